"""The part of a supernet that a forward pass computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['Mask', 'Path', 'View']

Path = Mapping[str, tuple[int, ...]]
"""Label → index of the chosen operation, or indices of the chosen inputs in order. Edges that are not chosen have no entry."""


class Mask(NamedTuple):
    """An operation or input that is temporarily left out, or several of one label.

    The other candidates keep their weights. With ``renormalise``, they share the weight of the masked operation in proportion to their own.
    """

    label: str
    index: int | frozenset[int]  # type: ignore[assignment]
    renormalise: bool = False

    @property
    def indices(self) -> frozenset[int]:
        """The candidates that are left out."""
        return self.index if isinstance(self.index, frozenset) else frozenset((self.index,))


@dataclass(frozen=True)
class View:
    """The part of a supernet that a forward pass computes: one path, or all candidates that are neither decided against nor masked.

    Attributes:
        architecture: choices of the supernet and the decisions about them.
        path: the only path to compute; None computes all candidates.
        mask: candidates to leave out, to measure how much worse the supernet is without them: of one label, or label → mask.
    """

    architecture: Architecture
    path: Path | None = None
    mask: Mask | Mapping[str, Mask] | None = None

    def operation(self, label: str) -> int | None:
        """Returns the only operation to compute for a label, on the path or by decision; None if the label is undecided."""
        return self.path[label][0] if self.path is not None else self.architecture.state.fixed.get(label)

    def inputs(self, label: str) -> list[int]:
        """Returns the inputs of an InputChoice to compute: the path's inputs, or all inputs that are neither dropped nor masked."""
        if self.path is not None:
            return list(self.path[label])
        gone = set(self.architecture.state.dropped.get(label, ()))
        if (mask := self.mask_of(label)) is not None:
            gone |= mask.indices
        return [index for index in range(self.architecture.decisions[label].candidates) if index not in gone]  # type: ignore[union-attr]

    def is_cut(self, label: str) -> bool:
        """Returns whether the operations of a label are on an input that is left out, so that no module reads their outputs."""
        if label not in self.architecture.edges:
            return False
        choice, index = self.architecture.edges[label]
        return index not in self.inputs(choice)

    def mask_of(self, label: str) -> Mask | None:
        """Returns the mask of this label, if any of its candidates is left out."""
        if isinstance(self.mask, Mapping):
            return self.mask.get(label)
        return self.mask if self.mask is not None and self.mask.label == label else None
