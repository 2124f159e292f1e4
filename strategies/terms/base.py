"""The base classes of terms: those of the loss that α minimises, and those of the steps of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['Step', 'StepTerm', 'Term']


class Term:
    """Adds to the loss of α, in any strategy that trains α by gradients.

    A subclass computes :meth:`value`, which depends on α and the epoch, not on data. Every architect differentiates it: it is a part of
    L_v, also at the virtual step's weights.

    Example:
        >>> class Shrinkage(Term):
        ...     def value(self, architecture, relaxation, moment):
        ...         return sum(alpha.square().sum() for alpha in architecture.arch_parameters())
    """

    def value(self, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """Returns the term, a scalar.

        Args:
            architecture: α and the decisions so far.
            relaxation: gives the probabilities of candidates.
            moment: the epoch, and the number of epochs of the search.
        """
        raise NotImplementedError

    def on_loss(self, loss: Tensor, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """Returns a scalar loss with the term. Arguments as for :meth:`value`."""
        return loss + self.value(architecture, relaxation, moment).to(loss)


@dataclass(frozen=True)
class Step:
    """A step of the weights, as its terms see it.

    Attributes:
        architecture: α, which is frozen while the weights move, unless both move together.
        relaxation: how choices are mixed.
        model: the supernet.
        optimizer: the optimizer of the weights.
        moment: the epoch, and the number of epochs of the search.
        moves_alpha: whether α moves in this step of the search; not in warm-up epochs.
        train_loss: returns L_t on the step's training batch, times ``loss_scale``, without side effects on logs.
        valid_loss: the same for L_v on its validation batch.
        loss_scale: scale of the gradients of the step: 1, except with ``precision='16-mixed'``.
    """

    architecture: Architecture
    relaxation: Relaxation
    model: nn.Module
    optimizer: Optimizer
    moment: Moment
    moves_alpha: bool
    train_loss: Callable[[], Tensor]
    valid_loss: Callable[[], Tensor]
    loss_scale: float = 1.0

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters that the step can move."""
        return [weight for group in self.optimizer.param_groups for weight in group['params'] if weight.requires_grad]


class StepTerm:
    """Changes the steps of the weights. Terms act during the search, and not while a selection fine-tunes.

    The hooks are called in the order of the methods below. The virtual step of second-order DARTS follows the loss alone.

    Attributes:
        passes: largest cost in a step, in forward-and-backward passes of a batch through the supernet.
    """

    passes: float = 0

    def passes_in(self, epochs: int) -> float:
        """Returns the cost of a search of ``epochs`` epochs, in passes over the training batches."""
        return self.passes * epochs

    def check(self, architecture: Architecture, model: nn.Module) -> None:
        """Raises ValueError if the term cannot be used with a supernet. Called as soon as the supernet is built."""

    def begin(self, architecture: Architecture, model: nn.Module, optimizer: Optimizer) -> None:
        """Prepares a search that starts or resumes.

        Args:
            architecture: α and the decisions; data to keep in checkpoints goes into ``architecture.state.memory``.
            model: the supernet.
            optimizer: the optimizer of the weights.
        """

    def before(self, step: Step) -> None:
        """Called before the step of α that precedes the step of the weights."""

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """Returns a context for the step of the weights, from its forward pass to the optimizer's step."""
        yield

    def gradient(self, step: Step) -> None:
        """Called once ``.grad`` of the weights is the gradient of the whole batch. It may change it; clipping comes next."""

    def begin_epoch(self, moment: Moment) -> None:
        """Prepares an epoch."""
