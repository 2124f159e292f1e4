"""The architecture parameters α of a supernet, and what each of them chooses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nni_darts.strategies.relaxations.policies import Policy

__all__ = ['Architecture', 'InputDecision', 'Mask', 'OperationDecision', 'Path', 'Topology', 'edge_topology']

INITIAL_SCALE = 1e-3

Path = Mapping[str, tuple[int, ...]]
"""Label → what is taken: the operation, or the inputs in their order. Edges that are not taken are left out."""


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


class Mask(NamedTuple):
    """An operation or input that is left out for a while.

    The others keep their weights, or, if ``renormalise``, share that of an operation left out in proportion to theirs.
    """

    label: str
    index: int  # type: ignore[assignment]  # tuple.index, which nobody needs here
    renormalise: bool = False


@dataclass(frozen=True)
class Topology:
    """The edges that modules declare (see :func:`edge_topology`).

    Attributes:
        edges: label of an InputChoice → labels of the LayerChoices on its inputs.
        groups: any of these labels → the kind of cell it belongs to.
    """

    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


class Architecture(nn.Module):
    """All α of a supernet, one parameter for each label, in the order in which the supernet declares them.

    It is no submodule of the supernet: the weights' optimizer never sees α; the search's Lightning module holds it, so α is in every
    checkpoint. Values start at 10⁻³·N(0, 1), as in DARTS.

    A selection may take decisions one by one during training; they are part of the state, and the supernet computes them.

    Attributes:
        decisions: label → what there is to decide, in order.
        edges: label of the operations on an edge of a cell → (label of the InputChoice it is an input of, which input).
        fixed: label of an operation → index of the one that was kept.
        dropped: label of an InputChoice → indices of inputs that were dropped.
        history: what a selection wrote down of each decision.
        masked: the choice that is currently left out, to measure how much that hurts.
        policy: what paths are drawn from where the supernet computes one path at a time; there is no α then.
        path: the one it computes just now.
        memory: what a selection remembers from epoch to epoch: plain data.
        curvature: of each epoch since α moves ``epoch``, ``eigenvalue`` and ``sample``, where early stopping measures it.
        stopped: that entry of the epoch whose architecture early stopping returns, and ``after`` which epoch it stopped.
        ended: the last epoch of a search that ran out of time, and of all with its fine-tuning: ``search`` and ``all``.
        by_magnitude: the NNI sample that magnitude would have chosen when the search ended and a progressive selection began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, OperationDecision | InputDecision] = {}
        self._alphas = nn.ParameterDict()
        self.fixed: dict[str, int] = {}
        self.dropped: dict[str, list[int]] = {}
        self.history: list[dict[str, Any]] = []
        self.masked: Mask | None = None
        self.policy: Policy | None = None
        self.path: Path | None = None
        self.memory: dict[str, Any] = {}
        self.by_magnitude: dict[str, Any] | None = None
        self.curvature: list[dict[str, Any]] = []
        self.stopped: dict[str, Any] | None = None
        self.ended: dict[str, int] | None = None
        self.edges: dict[str, tuple[str, int]] = {}

    def declare(self, label: str, decision: OperationDecision | InputDecision) -> None:
        """Adds a decision; the same label again must mean the same decision.

        Raises:
            ValueError: if the label already stands for another one.
        """
        if label in self.decisions:
            if self.decisions[label] != decision:
                raise ValueError(f'label {label!r} is used for two different choices: {self.decisions[label]} and {decision}')
            return
        self.decisions[label] = decision
        if isinstance(decision, InputDecision):
            self.edges |= {edge: (label, index) for index, edge in enumerate(decision.edges or ())}
        if isinstance(decision, OperationDecision) or decision.edges is None or decision.weighted:
            size = len(decision.names) if isinstance(decision, OperationDecision) else decision.candidates
            self._alphas[_key(label)] = nn.Parameter(INITIAL_SCALE * torch.randn(size))

    def draw_from(self, policy: Policy) -> None:
        """From now on the supernet computes one path at a time. The policy's parameters take the place of α."""
        self._alphas = nn.ParameterDict()
        self.policy = policy
        self.path = policy.first()

    @contextmanager
    def along(self, path: Path) -> Iterator[None]:
        """Within the block the supernet computes this path."""
        before, self.path = self.path, path
        try:
            yield
        finally:
            self.path = before

    def sample_of(self, path: Path, *, only_path: bool = False) -> dict[str, Any]:
        """The NNI sample of a path. Edges that are not on it have their first operation, or none if ``only_path``."""
        sample: dict[str, Any] = {}
        for label, decision in self.decisions.items():
            if isinstance(decision, InputDecision):
                sample[label] = list(path[label])
            elif label in path or not only_path:
                sample[label] = decision.names[path[label][0] if label in path else self.eligible(label)[0]]
        return sample

    def alpha(self, label: str) -> Tensor:
        """α of a label: (candidates,)"""
        return self._alphas[_key(label)]

    def labels(self) -> list[str]:
        """The labels that have an α, in order."""
        return [label for label in self.decisions if _key(label) in self._alphas]

    def arch_parameters(self) -> list[nn.Parameter]:
        """All α in the order of :meth:`labels`: the same in every run, so an optimizer's state resumes onto the right one.

        Where paths are drawn, the parameters of the policy.
        """
        return list(self._alphas.values() if self.policy is None else self.policy.parameters())

    def operations(self) -> Mapping[str, OperationDecision]:
        """The decisions among operations."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, OperationDecision)}

    def inputs(self) -> Mapping[str, InputDecision]:
        """The decisions among inputs."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, InputDecision)}

    def grouped(self, labels: Iterable[str]) -> dict[str, list[str]]:
        """Labels by kind of cell, in order."""
        groups: dict[str, list[str]] = {}
        for label in labels:
            groups.setdefault(self.decisions[label].group, []).append(label)
        return groups

    def eligible(self, label: str) -> list[int]:
        """The operations of a label that may be chosen: ``none`` not on an edge of a cell."""
        names = self.decisions[label].names  # type: ignore[union-attr]
        return [index for index, name in enumerate(names) if label not in self.edges or name != 'none']

    def operation(self, label: str) -> int | None:
        """The operation that alone stands for a label: the one on the path, or the one that was kept; None if it is open."""
        return self.path[label][0] if self.path is not None else self.fixed.get(label)

    def remaining(self, label: str) -> list[int]:
        """The inputs of an InputChoice that are on the path; without one those that are not dropped, nor masked just now."""
        if self.path is not None:
            return list(self.path[label])
        gone = set(self.dropped.get(label, ()))
        if self.masked is not None and self.masked.label == label:
            gone.add(self.masked.index)
        return [index for index in range(self.inputs()[label].candidates) if index not in gone]

    def is_cut(self, label: str) -> bool:
        """Whether the operations of that label stand on an input that is dropped, or masked just now: nothing reads them."""
        if label not in self.edges:
            return False
        choice, index = self.edges[label]
        return index not in self.remaining(choice)

    def edge_weights(self, label: str) -> Tensor:
        """Returns the factor of each input of a node with weighted edges, softmax(β): (candidates,)"""
        return torch.softmax(self.alpha(label), dim=0)

    def get_extra_state(self) -> dict[str, Any]:
        """The decisions taken so far, for the checkpoint."""
        return {
            'fixed': self.fixed,
            'dropped': self.dropped,
            'history': self.history,
            'memory': self.memory,
            'by_magnitude': self.by_magnitude,
            'curvature': self.curvature,
            'stopped': self.stopped,
            'ended': self.ended,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up the decisions of a checkpoint."""
        self.fixed = dict(state['fixed'])
        self.dropped = {label: list(indices) for label, indices in state['dropped'].items()}
        self.history = list(state['history'])
        self.memory = dict(state['memory'])
        self.by_magnitude = state['by_magnitude']
        self.curvature = list(state['curvature'])
        self.stopped = state['stopped']
        self.ended = state.get('ended')  # earlier versions lack it


def _key(label: str) -> str:
    """A parameter's name must not contain a dot."""
    return label.replace('%', '%25').replace('.', '%2E')


def edge_topology(modules: Sequence[nn.Module]) -> Topology:
    """Collects what modules say of themselves.

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
