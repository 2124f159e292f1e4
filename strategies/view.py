"""The part of a supernet that a forward pass computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['Mask', 'Path', 'View']

Path = Mapping[str, tuple[int, ...]]
"""Label → the operation, or the inputs in their order, that are taken. Edges that are not taken are left out."""


class Mask(NamedTuple):
    """An operation or input that is left out for a while.

    The others keep their weights, or, if ``renormalise``, share that of an operation left out in proportion to theirs.
    """

    label: str
    index: int  # type: ignore[assignment]
    renormalise: bool = False


@dataclass(frozen=True)
class View:
    """The part of a supernet that a forward pass computes: one path, or all that no decision and no mask has taken away.

    Attributes:
        architecture: the supernet's choices and the decisions about them.
        path: the path that alone is computed; None computes all candidates.
        mask: the candidate that is left out, to measure how much that hurts.
    """

    architecture: Architecture
    path: Path | None = None
    mask: Mask | None = None

    def operation(self, label: str) -> int | None:
        """Returns the operation that alone stands for a label: the one on the path, or the one that was kept; None if it is open."""
        return self.path[label][0] if self.path is not None else self.architecture.state.fixed.get(label)

    def inputs(self, label: str) -> list[int]:
        """Returns the inputs of an InputChoice: those on the path, or those that are neither dropped nor masked."""
        if self.path is not None:
            return list(self.path[label])
        gone = set(self.architecture.state.dropped.get(label, ()))
        if (mask := self.mask_of(label)) is not None:
            gone.add(mask.index)
        return [index for index in range(self.architecture.decisions[label].candidates) if index not in gone]  # type: ignore[union-attr]

    def is_cut(self, label: str) -> bool:
        """Returns whether the operations of a label stand on an input that is left out, so that nothing reads them."""
        if label not in self.architecture.edges:
            return False
        choice, index = self.architecture.edges[label]
        return index not in self.inputs(choice)

    def mask_of(self, label: str) -> Mask | None:
        """Returns the mask, if it leaves out a candidate of this label."""
        return self.mask if self.mask is not None and self.mask.label == label else None
