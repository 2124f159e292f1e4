"""Paths through a supernet, each of which is one architecture, and the distributions from which they are drawn."""

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
"""log-probabilities of the options (options,) → index of the chosen option"""

_DRAWS = 64
"""Number of paths over which a policy's probabilities are averaged."""


def draw(log_probabilities: Tensor) -> int:
    """Draws an option from torch's CPU generator, whose state is in the checkpoint."""
    return int(torch.multinomial(log_probabilities.detach().exp().cpu(), 1))


def most_probable(log_probabilities: Tensor) -> int:
    """Returns the most probable option; in a tie, the first."""
    return int(log_probabilities.argmax())


class Policy(nn.Module):
    """A distribution over the paths of a supernet, which is drawn in turns.

    A turn chooses one operation or one input. The k inputs of a choice of k are drawn one after the other without repetition. If a choice
    may keep any number of inputs, one turn chooses among all non-empty subsets. The operation of an edge is chosen only if its input is
    chosen, and is never ``none``.

    Args:
        architecture: all decisions. The policy refers to it, but does not own it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._architecture = Reference(architecture)  # the architecture owns the policy

    def logits(self, state: Any, label: str) -> tuple[Tensor, Any]:
        """Returns the scores of all options of a label, and the state after the request; ``state`` is None at the first turn."""
        raise NotImplementedError

    def taken(self, state: Any, label: str, option: int) -> Any:
        """Returns the state after an option of a label was chosen."""
        return state

    def follow(self, decide: Decide, seen: Callable[[str, Sequence[int], Tensor], None] | None = None) -> tuple[Path, Tensor]:
        """Takes all turns.

        Args:
            decide: chooses an option.
            seen: called in every turn with label, options and their log-probabilities (options,).

        Returns:
            The path, and the log-probability of its turns in this order, a differentiable scalar.
        """
        architecture = self._architecture.value
        state: Any = None
        total: list[Tensor] = []

        def turn(label: str, options: Sequence[int]) -> int:
            nonlocal state
            logits, state = self.logits(state, label)
            # Only the remaining options share the probability.
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
        """Returns a path drawn from the policy."""
        return self.follow(draw)[0]

    @torch.no_grad()
    def best(self) -> Path:
        """Returns the path with the most probable option in each turn; in a tie, the first option."""
        return self.follow(most_probable)[0]

    @torch.no_grad()
    def first(self) -> Path:
        """Returns the path with the first option in each turn, whatever the probabilities."""
        return self.follow(lambda log_probabilities: 0)[0]

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[str, float]]:
        """Returns label → operation → probability, given that the path takes the edge.

        It is a mean over sampled paths and does not change the random state. An edge that is on none of the paths is left out.
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

        with torch.random.fork_rng(devices=[]):  # only the CPU's generator is used
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
    """Returns the largest number of options of a label."""
    decision = architecture.decisions[label]
    if isinstance(decision, OperationDecision):
        return len(decision.names)
    return decision.candidates if decision.chosen is not None else len(subsets(decision.candidates, None))


class UniformPolicy(Policy):
    """A policy that gives every option of a turn the same probability (Li & Talwalkar, UAI 2019)."""

    def logits(self, state: Any, label: str) -> tuple[Tensor, Any]:
        """See :class:`Policy`."""
        return torch.zeros(_options(self._architecture.value, label), device='cpu'), state


class Controller(Policy):
    """An LSTM that reads the options chosen so far and scores the next ones (Pham et al., ICML 2018, section 2).

    With its state h, the scores of a label's options are ``c·tanh(W_label h)``, where c bounds how certain the controller can become. Its
    input is a vector for each option of each label.

    Args:
        architecture: see :class:`Policy`.
        hidden: number of units of the LSTM.
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
        """See :class:`Policy`. The state is the next input and the state of the LSTM."""
        read, memory = (self.start, None) if state is None else state
        memory = self.cell(read[None], memory)
        return self.tanh_constant * torch.tanh(self.heads[self._places[label]](memory[0][0])), (read, memory)

    def taken(self, state: Any, label: str, option: int) -> Any:
        """See :class:`Policy`."""
        return self.options[self._places[label]].weight[option], state[1]  # type: ignore[index]


_INITIAL_RANGE = 0.1
"""Parameters are initialised uniformly within ± this value, as in the authors' code, which makes paths nearly uniform."""
