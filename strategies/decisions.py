"""The decisions that a supernet declares, and the state of a search that takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nni_darts.errors import did_you_mean

__all__ = ['InputDecision', 'OperationDecision', 'SearchState', 'Topology', 'edge_topology']


@dataclass(frozen=True)
class OperationDecision:
    """The decision at one label of NNI's LayerChoice: one of ``names``; ``group`` as for :class:`InputDecision`."""

    names: tuple[Any, ...]
    group: str = ''


@dataclass(frozen=True)
class InputDecision:
    """The decision at one label of NNI's InputChoice: ``chosen`` of ``candidates`` inputs (None: any number of inputs).

    If the inputs are edges of a cell, ``edges`` lists the labels of the operations on them. Such a decision has no α unless the edges are
    ``weighted`` (PC-DARTS' β). ``group`` names the kind of cell.
    """

    candidates: int
    chosen: int | None
    edges: tuple[str, ...] | None = None
    group: str = ''
    weighted: bool = False


@dataclass(frozen=True)
class Topology:
    """The edges of cells that modules declare (see :func:`edge_topology`).

    Attributes:
        edges: label of an InputChoice → labels of the LayerChoices on its inputs.
        groups: label of an InputChoice or LayerChoice → kind of cell to which it belongs.
    """

    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    def check(self, inputs: Collection[str], operations: Collection[str]) -> None:
        """Checks that the space has all choices that the topology names.

        Args:
            inputs: labels of the space's InputChoices.
            operations: labels of its LayerChoices.

        Raises:
            ValueError: for a label that the space does not have.
        """
        for label, edges in self.edges.items():
            for name, known, kind in [(label, inputs, 'InputChoice'), *((edge, operations, 'LayerChoice') for edge in edges)]:
                if name not in known:
                    raise ValueError(
                        f'topology() names the {kind} {name!r}{did_you_mean(name, known)}, which the space does not have; it has '
                        f'{", ".join(known) or "none"}'
                    )


def edge_topology(modules: Sequence[nn.Module]) -> Topology:
    """Collects the edges of cells that modules declare.

    A module declares the inputs of an InputChoice as edges with a method ``topology()``, which returns label of the InputChoice → labels of
    the LayerChoices on its inputs. If there are several kinds of cells, the attribute ``group`` names the kind.

    Raises:
        ValueError: if a ``topology()`` returns something else.
    """
    edges: dict[str, tuple[str, ...]] = {}
    groups: dict[str, str] = {}
    for module in modules:
        topology = getattr(module, 'topology', None)
        if callable(topology):
            declared = topology()
            if not isinstance(declared, Mapping) or not all(isinstance(labels, (list, tuple)) for labels in declared.values()):
                raise ValueError(
                    f'topology() of {type(module).__name__} returns {declared!r}; it must return a mapping from the label of an '
                    'InputChoice to the list of the labels of the LayerChoices on its inputs'
                )
            for label, labels in declared.items():
                names = [str(name) for name in (label, *labels)]
                edges[names[0]] = tuple(names[1:])
                groups |= dict.fromkeys(names, getattr(module, 'group', ''))
    return Topology(edges, groups)


@dataclass
class SearchState:
    """The decisions of a search so far, and other state to restore: plain data, part of each checkpoint.

    Attributes:
        fixed: label of a LayerChoice → index of the candidate that was kept.
        dropped: label of an InputChoice → indices of the inputs that were dropped.
        history: the record of each decision.
        memory: data that a selection or architect keeps from epoch to epoch.
        by_magnitude: NNI sample that magnitude would have chosen at the end of the search, before a progressive selection.
        curvature: ``epoch``, ``eigenvalue`` and ``sample`` of each epoch that moves α, if early stopping measures them.
        stopped: entry of ``curvature`` whose architecture early stopping returns, and ``after``, the epoch in which the search stopped.
        ended: if the search ran out of time, its last epoch without (``search``) and with (``all``) fine-tuning.
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
        """Returns the state as plain data for a checkpoint."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchState:
        """Reads the plain data of a checkpoint. Checkpoints of earlier versions may lack ``ended``."""
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
