"""The architecture parameters α of a supernet, with the decisions about its choices."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nni_darts.errors import InputError
from nni_darts.strategies.decisions import InputDecision, OperationDecision, SearchState, Topology, edge_topology
from nni_darts.strategies.view import Mask, Path, View

if TYPE_CHECKING:
    from nni_darts.genotypes.program import Program
    from nni_darts.strategies.relaxations.policies import Policy

__all__ = ['Architecture', 'InputDecision', 'Mask', 'OperationDecision', 'Path', 'SearchState', 'Topology', 'View', 'edge_topology']

INITIAL_SCALE = 1e-3

_CANDIDATES = 'candidates'


def _moved(name: str) -> Any:
    """Returns a property that forwards a name of version 0.1 to the attribute of the state, with a warning."""

    def get(self: Architecture) -> Any:
        warnings.warn(f'architecture.{name} is architecture.state.{name} now.', DeprecationWarning, stacklevel=2)
        return getattr(self.state, name)

    def put(self: Architecture, value: Any) -> None:
        warnings.warn(f'architecture.{name} is architecture.state.{name} now.', DeprecationWarning, stacklevel=2)
        setattr(self.state, name, value)

    return property(get, put)


class Architecture(nn.Module):
    """The architecture parameters α of a supernet: one parameter for each label, in the order in which the supernet declares them.

    The architecture is not a submodule of the supernet, so the weights' optimizer never sees α. The search's Lightning module holds it, so
    α is part of every checkpoint. Initial values are drawn from 10⁻³·N(0, 1), as in DARTS.

    Attributes:
        decisions: label → decision to take, in the order of declaration.
        edges: label of the operations on an edge of a cell → (label of the edge's InputChoice, index of the input).
        state: the decisions taken so far; part of each checkpoint.
        view: the part of the supernet that a forward pass computes.
        policy: distribution of paths if the supernet computes one path at a time, in which case there is no α; otherwise None.
        on_simplex: whether α are probabilities themselves, on a simplex, instead of logits; a relaxation sets it.
        limits: limits on the cost of the architecture that is selected, with the costs of all candidates; None without limits.
    """

    fixed, dropped, history, memory = map(_moved, ('fixed', 'dropped', 'history', 'memory'))

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, OperationDecision | InputDecision] = {}
        self.edges: dict[str, tuple[str, int]] = {}
        self._alphas = nn.ParameterDict()
        self.policy: Policy | None = None
        self.on_simplex = False
        self.limits: Program | None = None
        self.state = SearchState()
        self.view = View(self)

    # parameters -------------------------------------------------------------------------------------------------------------------

    def declare(self, label: str, decision: OperationDecision | InputDecision) -> None:
        """Adds a decision. A label may be declared several times, for equal decisions.

        Raises:
            ValueError: if the label already stands for a different decision.
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

    def alpha(self, label: str) -> Tensor:
        """Returns α of a label, of shape (candidates,)."""
        return self._alphas[_key(label)]

    def edge_weights(self, label: str) -> Tensor:
        """Returns softmax(β), the weights of a node's weighted edges, (candidates,); β itself where it lies on a simplex."""
        return self.alpha(label) if self.on_simplex else torch.softmax(self.alpha(label), dim=0)

    def logits(self, label: str) -> Tensor:
        """Returns α of a label as logits, (candidates,), whose softmax are the probabilities: ln α where α lies on a simplex."""
        return self.alpha(label).log() if self.on_simplex else self.alpha(label)

    def labels(self) -> list[str]:
        """Returns the labels that have an α, in the order of declaration."""
        return [label for label in self.decisions if _key(label) in self._alphas]

    def arch_parameters(self) -> list[nn.Parameter]:
        """Returns all α in the order of :meth:`labels`, which is the same in every run, as restoring an optimizer's state requires.

        If paths are drawn, returns the parameters of the policy instead.
        """
        return list(self._alphas.values() if self.policy is None else self.policy.parameters())

    def draw_from(self, policy: Policy) -> None:
        """Makes the supernet compute one path at a time, drawn from a policy, whose parameters replace α."""
        self._alphas = nn.ParameterDict()
        self.policy = policy
        self.view = View(self, path=policy.first())

    # choices ----------------------------------------------------------------------------------------------------------------------

    def operations(self) -> Mapping[str, OperationDecision]:
        """Returns label → decision among operations."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, OperationDecision)}

    def inputs(self) -> Mapping[str, InputDecision]:
        """Returns label → decision among inputs."""
        return {label: decision for label, decision in self.decisions.items() if isinstance(decision, InputDecision)}

    def grouped(self, labels: Iterable[str]) -> dict[str, list[str]]:
        """Returns kind of cell → its labels, in order."""
        groups: dict[str, list[str]] = {}
        for label in labels:
            groups.setdefault(self.decisions[label].group, []).append(label)
        return groups

    def eligible(self, label: str) -> list[int]:
        """Returns the indices of a label's operations that may be chosen; on an edge of a cell, ``none`` may not be chosen."""
        names = self.decisions[label].names  # type: ignore[union-attr]
        return [index for index, name in enumerate(names) if label not in self.edges or name != 'none']

    def sample_of(self, path: Path, *, only_path: bool = False) -> dict[str, Any]:
        """Returns the NNI sample of a path. Edges that are not on it have their first operation, or no entry if ``only_path``."""
        sample: dict[str, Any] = {}
        for label, decision in self.decisions.items():
            if isinstance(decision, InputDecision):
                sample[label] = list(path[label])
            elif label in path or not only_path:
                sample[label] = decision.names[path[label][0] if label in path else self.eligible(label)[0]]
        return sample

    def path_of(self, sample: Mapping[str, Any]) -> Path:
        """Returns the path of an NNI sample: the inverse of :meth:`sample_of`."""
        path: dict[str, tuple[int, ...]] = {}
        for label, decision in self.decisions.items():
            if isinstance(decision, InputDecision):
                path[label] = tuple(sorted(sample[label]))
            else:
                choice, index = self.edges.get(label, ('', 0))
                if not choice or index in sample[choice]:
                    path[label] = (decision.names.index(sample[label]),)
        return path

    # view -------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def viewed(self, **changes: Any) -> Iterator[None]:
        """Changes the view within the block; ``changes`` are ``path`` or ``mask`` of :class:`View`."""
        before, self.view = self.view, replace(self.view, **changes)
        try:
            yield
        finally:
            self.view = before

    # checkpoints ------------------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the decisions taken so far and the candidates of each label, for the checkpoint."""
        return {**self.state.to_dict(), _CANDIDATES: self._candidates()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores the decisions of a checkpoint.

        Raises:
            InputError: if the choices of the space have changed since, because α belongs to candidates by their order.
        """
        candidates = state.get(_CANDIDATES)  # missing in checkpoints of earlier versions
        if candidates is not None and candidates != (current := self._candidates()):
            label = next(label for label in [*candidates, *current] if candidates.get(label) != current.get(label))
            had, has = (', '.join(names[label]) if label in names else 'no such choice' for names in (candidates, current))
            raise InputError(
                f'the space has changed since the search began: choice {label!r} had {had}, and now has {has}; restore its code, or start '
                'again in another folder'
            )
        self.state = SearchState.from_dict(state)

    def _candidates(self) -> dict[str, list[str]]:
        """Returns label → names of its candidates, or indices of its inputs, in order."""
        return {
            label: list(map(str, decision.names if isinstance(decision, OperationDecision) else range(decision.candidates)))
            for label, decision in self.decisions.items()
        }


def _key(label: str) -> str:
    """Returns a parameter's name, which must not contain a dot."""
    return label.replace('%', '%25').replace('.', '%2E')
