"""Paths through a supernet, one architecture each, and the distributions they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nni_darts.strategies.architecture import InputDecision, OperationDecision
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.relaxations.subsets import subsets

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture, Path

__all__ = ['Controller', 'Policy', 'UniformPolicy']

Decide = Callable[[Tensor], int]
"""log-probabilities of the options (options,) → position of the one that is taken"""

_DRAWS = 64
"""Paths over which a policy's probabilities are averaged."""


def draw(log_probabilities: Tensor) -> int:
    """Draws an option from torch's generator of the CPU, whose state is in the checkpoint."""
    return int(torch.multinomial(log_probabilities.detach().exp().cpu(), 1))


def most_probable(log_probabilities: Tensor) -> int:
    """The most probable option; ties keep the first."""
    return int(log_probabilities.argmax())


class Policy(nn.Module):
    """A distribution over the paths of a supernet, drawn turn by turn.

    A turn chooses one operation, or one input. Inputs of a choice of k are drawn one after the other without repetition; where a choice
    may keep any number of inputs, one turn chooses among all subsets but the empty one. Operations of an edge are chosen only if its input
    is, and never ``none``.

    Args:
        architecture: all decisions there are. The policy refers to it and does not own it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._architecture = Reference(architecture)  # which holds the policy

    def logits(self, state: Any, label: str) -> tuple[Tensor, Any]:
        """Scores of all options of a label, and the state after it was asked for them; ``state`` is None at the first turn."""
        raise NotImplementedError

    def taken(self, state: Any, label: str, option: int) -> Any:
        """The state after an option of a label was taken."""
        return state

    def follow(self, decide: Decide, seen: Callable[[str, Sequence[int], Tensor], None] | None = None) -> tuple[Path, Tensor]:
        """Takes every turn.

        Args:
            decide: takes an option.
            seen: called with label, options and their log-probabilities (options,) of every turn.

        Returns:
            The path, and the log-probability of having taken its turns in this order: a scalar, differentiable.
        """
        architecture = self._architecture.value
        state: Any = None
        total: list[Tensor] = []

        def turn(label: str, options: Sequence[int]) -> int:
            nonlocal state
            logits, state = self.logits(state, label)
            # Only the options that are left share the probability.
            log_probabilities = logits[list(options)].log_softmax(dim=0)
            if seen:
                seen(label, options, log_probabilities)
            position = decide(log_probabilities)
            total.append(log_probabilities[position])
            state = self.taken(state, label, options[position])
            return options[position]

        path: dict[str, tuple[int, ...]] = {}
        for label, decision in architecture.decisions.items():
            if isinstance(decision, InputDecision):
                path[label] = _take_inputs(label, decision, turn)
                edges = [decision.edges[index] for index in path[label]] if decision.edges else []
                path |= {edge: (turn(edge, architecture.eligible(edge)),) for edge in edges}
            elif label not in architecture.edges:
                path[label] = (turn(label, architecture.eligible(label)),)
        return path, torch.stack(total).sum()

    @torch.no_grad()
    def draw(self) -> Path:
        """A path drawn from the policy."""
        return self.follow(draw)[0]

    @torch.no_grad()
    def best(self) -> Path:
        """The path of the most probable option at each turn; ties keep the first."""
        return self.follow(most_probable)[0]

    @torch.no_grad()
    def first(self) -> Path:
        """The path of the first option at each turn, whatever the probabilities."""
        return self.follow(lambda log_probabilities: 0)[0]

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[str, float]]:
        """Label → operation → probability, given that the path comes by: a mean over paths, drawn without touching the random state.

        An edge that none of these paths takes is left out.
        """
        architecture = self._architecture.value
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def seen(label: str, options: Sequence[int], log_probabilities: Tensor) -> None:
            decision = architecture.decisions[label]
            if isinstance(decision, OperationDecision):
                table = torch.zeros(len(decision.names), dtype=torch.float64)
                table[list(options)] = log_probabilities.exp().double().cpu()
                sums[label] = sums.get(label, 0) + table
                counts[label] = counts.get(label, 0) + 1

        with torch.random.fork_rng(devices=[]):  # only the CPU's generator draws
            for _ in range(_DRAWS):
                self.follow(draw, seen)
        return {
            label: dict(zip(map(str, decision.names), (sums[label] / counts[label]).tolist()))
            for label, decision in architecture.operations().items()
            if label in sums
        }


def _take_inputs(label: str, decision: InputDecision, turn: Callable[[str, Sequence[int]], int]) -> tuple[int, ...]:
    if decision.chosen is None:
        found = subsets(decision.candidates, None)
        return found[turn(label, range(len(found)))]
    taken: list[int] = []
    for _ in range(decision.chosen):
        taken.append(turn(label, [index for index in range(decision.candidates) if index not in taken]))
    return tuple(sorted(taken))


def _options(architecture: Architecture, label: str) -> int:
    """How many options a label has at most."""
    decision = architecture.decisions[label]
    if isinstance(decision, OperationDecision):
        return len(decision.names)
    return decision.candidates if decision.chosen is not None else len(subsets(decision.candidates, None))


class UniformPolicy(Policy):
    """Every option of a turn is as probable as the others (Li & Talwalkar, UAI 2019)."""

    def logits(self, state: Any, label: str) -> tuple[Tensor, Any]:
        """See :class:`Policy`."""
        return torch.zeros(_options(self._architecture.value, label), device='cpu'), state


class Controller(Policy):
    """An LSTM that reads what was taken so far and scores what comes next (Pham et al., ICML 2018, section 2).

    With h its state, the scores of a label's options are ``c·tanh(W_label h)``; c bounds how sure it can get. What it reads is a vector
    for each option of each label.

    Args:
        architecture: as for :class:`Policy`.
        hidden: units of the LSTM.
        tanh_constant: c.
    """

    def __init__(self, architecture: Architecture, hidden: int = 64, tanh_constant: float = 1.1) -> None:
        super().__init__(architecture)
        self.tanh_constant = tanh_constant
        self._places = {label: place for place, label in enumerate(architecture.decisions)}
        sizes = [_options(architecture, label) for label in architecture.decisions]
        self.start = nn.Parameter(torch.empty(hidden))
        self.cell = nn.LSTMCell(hidden, hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, size, bias=False) for size in sizes)
        self.options = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_INITIAL_RANGE, _INITIAL_RANGE)

    def logits(self, state: Any, label: str) -> tuple[Tensor, Any]:
        """See :class:`Policy`. The state is what is read next, and the LSTM's."""
        read, memory = (self.start, None) if state is None else state
        memory = self.cell(read[None], memory)
        return self.tanh_constant * torch.tanh(self.heads[self._places[label]](memory[0][0])), (read, memory)

    def taken(self, state: Any, label: str, option: int) -> Any:
        """See :class:`Policy`."""
        return self.options[self._places[label]].weight[option], state[1]  # type: ignore[index]


_INITIAL_RANGE = 0.1
"""Parameters start uniformly within ± this, as the authors' do: nearly uniform paths."""
