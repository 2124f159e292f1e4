"""The choices that a supernet declares, and what a search has decided about them so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ['InputDecision', 'OperationDecision', 'SearchState', 'Topology', 'edge_topology']


@dataclass(frozen=True)
class OperationDecision:
    """One label of NNI's LayerChoice: one of ``names``; ``group`` as for :class:`InputDecision`."""

    names: tuple[Any, ...]
    group: str = ''


@dataclass(frozen=True)
class InputDecision:
    """One label of NNI's InputChoice: ``chosen`` of ``candidates`` inputs (None: any number of them).

    ``edges`` lists the labels of the operations on the inputs where these are edges of a cell; such a decision has no α unless edges are
    ``weighted`` (PC-DARTS' β). Decisions of different ``group`` are about different cells.
    """

    candidates: int
    chosen: int | None
    edges: tuple[str, ...] | None = None
    group: str = ''
    weighted: bool = False


@dataclass(frozen=True)
class Topology:
    """The edges that modules declare (see :func:`edge_topology`).

    Attributes:
        edges: label of an InputChoice → labels of the LayerChoices on its inputs.
        groups: any of these labels → the kind of cell it belongs to.
    """

    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


def edge_topology(modules: Sequence[nn.Module]) -> Topology:
    """Collects the edges that modules declare.

    A module with a method ``topology()`` returns label of an InputChoice → labels of the LayerChoices on its inputs: the inputs are edges.
    Its attribute ``group`` names the kind of cell, where there are several.
    """
    edges: dict[str, tuple[str, ...]] = {}
    groups: dict[str, str] = {}
    for module in modules:
        topology = getattr(module, 'topology', None)
        if callable(topology):
            for label, labels in topology().items():
                names = [str(name) for name in (label, *labels)]
                edges[names[0]] = tuple(names[1:])
                groups |= dict.fromkeys(names, getattr(module, 'group', ''))
    return Topology(edges, groups)


@dataclass
class SearchState:
    """The decisions that have been taken during a search, and what else it must remember: plain data, part of each checkpoint.

    Attributes:
        fixed: label of an operation → index of the candidate that was kept.
        dropped: label of an InputChoice → indices of inputs that were dropped.
        history: the record of each decision.
        memory: what a selection or architect remembers from epoch to epoch.
        by_magnitude: the NNI sample that magnitude would have chosen when the search ended and a progressive selection began.
        curvature: ``epoch``, ``eigenvalue`` and ``sample`` of each epoch since α moves, where early stopping measures them.
        stopped: the entry of the epoch whose architecture early stopping returns, and ``after``, the epoch in which it stopped.
        ended: the last epoch of a search that ran out of time, ``search``, and the last one with its fine-tuning, ``all``.
    """

    fixed: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, list[int]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    by_magnitude: dict[str, Any] | None = None
    curvature: list[dict[str, Any]] = field(default_factory=list)
    stopped: dict[str, Any] | None = None
    ended: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain data for a checkpoint."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchState:
        """Reads the plain data of a checkpoint; that of earlier versions may lack ``ended``."""
        return cls(
            fixed=dict(data['fixed']),
            dropped={label: list(indices) for label, indices in data['dropped'].items()},
            history=list(data['history']),
            memory=dict(data['memory']),
            by_magnitude=data['by_magnitude'],
            curvature=list(data['curvature']),
            stopped=data['stopped'],
            ended=data.get('ended'),
        )
