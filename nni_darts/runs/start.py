"""Where a training starts if not from scratch: at the weights of a finished one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype, genotype_from_text
from nni_darts.recipes import RUN, Recipe
from nni_darts.runs.folder import GENOTYPE, RESULT, WEIGHTS, changed_amounts, read_json
from nni_darts.runs.weights import read_state_dict

__all__ = ['Start', 'finished_training']

_LEAST_SHARE = 0.5
_SHOWN = 6
"""Names of tensors in a message."""


@dataclass(frozen=True)
class Start:
    """Where a training starts from if not from scratch.

    Attributes:
        folder: output folder of a finished training, whose weights the network starts from.
        trained: for how many epochs the network has been trained already, if this training continues that one; else 0.
        best: the best of these epochs and its metric, where the best is kept.
        checkpoints: name of the folder within the output folder for the checkpoints; '' for the output folder itself.

    Example:
        ``Start(Path('out/retrain')).load(network)``
    """

    folder: Path
    trained: int = 0
    best: tuple[int, float] | None = None
    checkpoints: str = ''

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), 'folder': str(self.folder)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Start:
        """Reads :meth:`to_dict`'s."""
        return cls(Path(values['folder']), values['trained'], values['best'] and tuple(values['best']), values['checkpoints'])

    def weights(self) -> dict[str, Tensor]:
        """Those of the folder. Raises InputError if the file is damaged."""
        return read_state_dict(self.folder / WEIGHTS)

    def load(self, network: nn.Module) -> None:
        """Gives the network the weights that fit."""
        own = network.state_dict()
        fitting = {name: value for name, value in self.weights().items() if name in own and own[name].shape == value.shape}
        network.load_state_dict(fitting, strict=False)

    def misfits(self, network: nn.Module, genotype: AnyGenotype) -> list[str]:
        """A sentence on the tensors of a network that the weights do not fit; none if all do.

        Raises:
            InputError: if the folder holds no finished training of the same cell, or less than half of the tensors fits.
        """
        finished_training(self.folder)
        text = (self.folder / GENOTYPE).read_text('utf-8')
        if genotype_from_text(text).code() != genotype.code():
            raise InputError(f'the weights in {self.folder} are of another cell: leave the genotype out, or the weights')
        own, theirs = network.state_dict(), self.weights()
        new = [name for name, value in own.items() if name not in theirs or theirs[name].shape != value.shape]
        share = 1 - len(new) / len(own)
        if share < _LEAST_SHARE:
            raise InputError(
                f'the weights in {self.folder} fit {100 * share:.0f} % of the tensors of this network, and at least half must: the '
                'channels, the cells or the stem of the two recipes differ'
            )
        shown = ', '.join(new[:_SHOWN]) + (f' and {len(new) - _SHOWN} more' if len(new) > _SHOWN else '')
        return (
            [f'{len(own) - len(new)} of {len(own)} tensors are those of {self.folder}; new because their shape differs: {shown}']
            if new
            else []
        )

    def tested_on(self, recipe: Recipe, amounts: Mapping[str, Any]) -> list[str]:
        """A sentence if the data that the weights learned from have changed since, so that the test may be of images they learned from.

        Args:
            recipe: of the training that starts from the weights.
            amounts: sizes of the parts and classes of its data.
        """
        run, _ = finished_training(self.folder)
        if Recipe.of_run(run['recipe'], source=str(self.folder / RUN)).data.path != recipe.data.path:
            return []
        changed = changed_amounts(run, amounts)
        return (
            [
                f'the data have changed since the weights in {self.folder} were trained ({changed}), so these may have learned from what '
                'is now test data, and the test may be too good; a folder with train and test folders keeps them apart'
            ]
            if changed
            else []
        )


def finished_training(output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``run.json`` and ``result.json`` of a training. Raises InputError if the folder holds no finished one."""
    missing = [name for name in (RUN, RESULT, GENOTYPE, WEIGHTS) if not (output / name).is_file()]
    if missing:
        raise InputError(f'{output} has no {missing[0]}: it is not the output folder of a finished nni-darts retrain')
    run, result = read_json(output / RUN), read_json(output / RESULT)
    for path, values, key in ((output / RUN, run, 'recipe'), (output / RESULT, result, 'result')):
        if not isinstance(values, dict) or not isinstance(values.get(key), dict):
            raise InputError(f'{path} is damaged (it holds no {key}); train in another folder')
    return run, result
