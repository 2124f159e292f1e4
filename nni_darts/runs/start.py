"""Starts a training from the weights of a finished one."""

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
"""Largest number of names of tensors in a message."""


@dataclass(frozen=True)
class Start:
    """The weights from which a training starts if not from scratch.

    Attributes:
        folder: output folder of a finished training whose weights are used.
        trained: number of epochs for which the network has already been trained, if this training continues that one; otherwise 0.
        best: the best of these epochs and its metric, if the best epoch is kept.
        checkpoints: name of the checkpoints' folder in the output folder; '' for the output folder itself.

    Example:
        ``Start(Path('out/retrain')).load(network)``
    """

    folder: Path
    trained: int = 0
    best: tuple[int, float] | None = None
    checkpoints: str = ''

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return {**asdict(self), 'folder': str(self.folder)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Start:
        """Builds the object from the result of :meth:`to_dict`."""
        return cls(Path(values['folder']), values['trained'], values['best'] and tuple(values['best']), values['checkpoints'])

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights in the folder. Raises InputError if the file is damaged."""
        return read_state_dict(self.folder / WEIGHTS)

    def load(self, network: nn.Module) -> None:
        """Loads the weights that fit into the network."""
        own = network.state_dict()
        fitting = {name: value for name, value in self.weights().items() if name in own and own[name].shape == value.shape}
        network.load_state_dict(fitting, strict=False)

    def misfits(self, network: nn.Module, genotype: AnyGenotype) -> list[str]:
        """Returns a sentence about the tensors of a network that do not fit the weights; empty if all fit.

        Raises:
            InputError: if the folder has no finished training of the same cell, or less than half of the tensors fit.
        """
        finished_training(self.folder)
        text = (self.folder / GENOTYPE).read_text('utf-8')
        if genotype_from_text(text).code() != genotype.code():
            raise InputError(f'the weights in {self.folder} belong to another cell; leave out the genotype or the weights')
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
        """Returns a sentence if the data have changed since the weights were trained, so that test images may have been training images.

        Args:
            recipe: recipe of the training that starts from the weights.
            amounts: sizes of the parts of its data, and classes.
        """
        run, _ = finished_training(self.folder)
        if Recipe.of_run(run['recipe'], source=str(self.folder / RUN)).data.path != recipe.data.path:
            return []
        changed = changed_amounts(run, amounts)
        return (
            [
                f'the data have changed since the weights in {self.folder} were trained ({changed}), so they may have been trained on what '
                'is now test data, and the test result may be too good; a folder with train and test folders avoids this'
            ]
            if changed
            else []
        )


def finished_training(output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns ``run.json`` and ``result.json`` of a training. Raises InputError if the folder does not have a finished training."""
    missing = [name for name in (RUN, RESULT, GENOTYPE, WEIGHTS) if not (output / name).is_file()]
    if missing:
        raise InputError(f'{output} has no {missing[0]}: it is not the output folder of a finished nni-darts retrain')
    run, result = read_json(output / RUN), read_json(output / RESULT)
    for path, values, key in ((output / RUN, run, 'recipe'), (output / RESULT, result, 'result')):
        if not isinstance(values, dict) or not isinstance(values.get(key), dict):
            raise InputError(f'{path} is damaged (it holds no {key}); train in another folder')
    return run, result
