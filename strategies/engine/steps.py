"""One step of the weights with the terms that change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nni_darts.strategies.engine.scoring import silent
from nni_darts.strategies.terms.base import Step, StepTerm

if TYPE_CHECKING:
    from nni_darts.strategies.engine.module import DifferentiableModule

__all__ = ['Steps']


class Steps:
    """Calls the hooks of the strategy's terms around one step of the weights.

    Args:
        module: the module of the search.
        batches: training and validation batch of the step.
        index: index of the step in its epoch.
        shares: weights of this rank's parts of the two batches.
        moves: whether α moves in this step.
    """

    def __init__(self, module: DifferentiableModule, batches: tuple[Any, Any], index: int, shares: Sequence[float], *, moves: bool) -> None:
        self._module = module
        self._batches = batches
        self._index = index
        self._shares = shares
        self._terms: list[StepTerm] = [] if module.epochs.tuning else module.strategy.step_terms
        if self._terms:
            self._step = Step(
                module.architecture,
                module.strategy.relaxation,
                module.model,
                module.weight_optimizer,
                module.epochs.moment,
                moves,
                self.train_loss,
                self._valid_loss,
                module.loss_scale,
            )

    def train_loss(self) -> Tensor:
        """Returns L_t on the training batch, times the scale of gradients, without a trace in the logs."""
        with silent(self._module.training_module):
            return self._module.loss_scale * self._module.loss_on(self._batches[0], self._index, self._shares[0])

    def _valid_loss(self) -> Tensor:
        with silent(self._module.training_module):
            return self._module.loss_scale * self._module.architecture_loss_on(self._batches[1], self._index, self._shares[1])

    def before(self) -> None:
        """Calls :meth:`StepTerm.before` of all terms."""
        for term in self._terms:
            term.before(self._step)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Enters :meth:`StepTerm.around` of all terms."""
        with ExitStack() as stack:
            for term in self._terms:
                stack.enter_context(term.around(self._step))
            yield

    def gradient(self) -> None:
        """Calls :meth:`StepTerm.gradient` of all terms."""
        for term in self._terms:
            term.gradient(self._step)
