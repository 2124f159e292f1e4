"""Stacks of blocks whose depth is searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nni_darts._nni import recursive_freeze
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.base import weighted_sum

__all__ = ['MixedRepeat']


class MixedRepeat(RelaxedValues):
    """A relaxed ``Repeat``: ``Σ_d w_d · (block_d ∘ … ∘ block_1)(x)``, in which depth 0 stands for x itself.

    Parameters keep their names. Blocks beyond the depth of a path, or of a decided depth, are not computed.

    Raises:
        ValueError: if a stage of NNI's NDS spaces may have fewer than two cells, because the next stage is then built otherwise.
    """

    def __init__(self, module: Any, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(Settings.of({'depth': module.depth_choice}, where), where, architecture, relaxation)
        self.depths = self.settings.column('depth')
        if hasattr(module, 'first_cell_transformation_factory') and min(self.depths) < 2:
            raise ValueError(
                f'{where}: a stage of {min(self.depths)} cells changes the shape of what the next stage reads, which no supernet can hold; '
                'choose among at least 6 cells (num_cells), a fixed number of cells, or random or evolution'
            )
        self.blocks = module.blocks

    def forward(self, x: Any) -> Any:
        """The input, and the output of each depth, have one shape."""
        chosen = self._only_setting()
        if chosen is not None:
            for block in self.blocks[: self.depths[chosen]]:
                x = block(x)
            return x
        outputs = {0: x} if 0 in self.depths else {}
        for depth, block in enumerate(self.blocks[: max(self.depths)], start=1):
            x = block(x)
            if depth in self.depths:
                outputs[depth] = x
        return self._mix([outputs[depth] for depth in self.depths])

    def _only_setting(self) -> int | None:
        """Returns the setting of the path or of the decisions, if all labels are decided."""
        chosen = [self.architecture.view.operation(label) for label in self.labels]
        return None if None in chosen else self.settings.index(chosen)  # type: ignore[arg-type]

    def _mix(self, outputs: Sequence[Any]) -> Any:
        first = outputs[0]
        if isinstance(first, (list, tuple)):
            return type(first)(self._mix(parts) for parts in zip(*outputs, strict=True))
        shapes = {depth: tuple(output.shape[1:]) for depth, output in zip(self.depths, outputs)}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f'{self.where}: outputs differ in shape between depths ({shapes}), so they cannot be mixed; let every depth have the block '
                'that changes the shape, or use enas or random-ws, which sample paths, random or evolution'
            )
        weights: Tensor = self.setting_weights(first)
        return weighted_sum(weights, outputs)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns a ``Sequential`` of the first blocks, with the weights that they have here."""
        depth = self.depths[self.settings.index_of(sample)]
        return nn.Sequential(*(recursive_freeze(block, sample)[0] for block in self.blocks[:depth]))
