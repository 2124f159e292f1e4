"""Architects that compute the gradient of α; most are named combinations of the options of :func:`architecture_gradient`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from nni_darts.strategies.architects.gradient import BilevelProblem, architecture_gradient
from nni_darts.strategies.catalogue import SecondOrderSettings
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Architect', 'Coordinate', 'FirstOrder', 'Joint', 'SecondOrder', 'SingleLevel']


class Architect:
    """Computes the gradient for α's optimizer.

    Attributes:
        union: whether α and the weights both learn from training and validation batches; otherwise α learns from validation batches only,
            and the weights from training batches only.
        own_optimizer: whether α has its own optimizer; otherwise that of the weights moves it.
        own_pass: whether the gradient of α has passes of its own; otherwise it is that of the weights' loss, from the weights' own pass.
        weight_steps: number of steps of the weights for each step of α, which comes before the first of them.
        passes: cost of a step of α, in forward-and-backward passes of a batch through the supernet.
        moves_policy: whether it trains the policy from which paths are sampled.
    """

    union = False
    own_optimizer = True
    own_pass = True
    weight_steps: int = 1
    passes: float = 1
    moves_policy = False

    def gradients(self, module: DifferentiableModule, train: Any, valid: Any, index: int, shares: Sequence[float]) -> list[Tensor]:
        """Returns the gradient that α's optimizer descends for each of ``module.architecture.arch_parameters()``.

        Args:
            module: module with supernet, α and losses.
            train, valid: batches of the two losses.
            index: index of the step in its epoch.
            shares: weights of this rank's parts of the two batches, for ``module.loss_on`` and ``module.architecture_loss_on``.
        """
        groups = module.weight_optimizer.param_groups
        problem = BilevelProblem(
            lambda: module.loss_on(train, index, shares[0]),
            lambda: module.penalised(module.architecture_loss_on(valid, index, shares[1])),
            [weight for group in groups for weight in group['params']],
            module.architecture.arch_parameters(),
            module.weight_optimizer,
            list(module.model.buffers()),
            learning_rate=[float(group['lr']) for group in groups for _ in group['params']],
            loss_scale=module.loss_scale,
        )
        return self.gradient(problem)

    def options(self) -> dict[str, Any]:
        """Returns keyword arguments for :func:`architecture_gradient`."""
        raise NotImplementedError

    def gradient(self, problem: BilevelProblem) -> list[Tensor]:
        """Returns the gradient of the validation loss with respect to α, as :func:`architecture_gradient` does."""
        return architecture_gradient(problem, **self.options())


@typed
@dataclass(frozen=True)
class FirstOrder(Architect):
    """``∇α L_v(w, α)``: DARTS with ξ = 0.

    Args:
        weight_steps: number of steps of the weights for each step of α.
    """

    weight_steps: Annotated[int, Field(ge=1)] = 1

    def options(self) -> dict[str, Any]:
        """See :class:`Architect`."""
        return {'order': 1}


class Coordinate(FirstOrder):
    """Coordinate descent on a single level, an ablation (Liu et al., ICLR 2019, section 3.3).

    For every batch of the training or the validation part, first α and then the weights take a step that lowers the loss on that batch.
    """

    union = True


class Joint(Architect):
    """Joint descent on a single level, an ablation (Liu et al., ICLR 2019, section 3.3).

    For every batch of the training or the validation part, the SGD of the weights moves α, too.
    """

    union = True
    own_optimizer = False
    own_pass = False
    passes = 0


class SingleLevel(Architect):
    """Descent of α and the weights on the same training loss, each by its own optimizer (SNAS: Xie et al., ICLR 2019).

    One pass over the training batch gives both gradients, at the same α and weights. No validation batch is used.
    """

    own_pass = False
    passes = 0


@typed(settings=SecondOrderSettings)
@dataclass(frozen=True)
class SecondOrder(Architect):
    """The gradient through virtual steps of the weights. The options are those of :func:`architecture_gradient`, and checked at once."""

    hessian: Literal['finite_difference', 'exact'] = 'finite_difference'
    epsilon: float = 0.01
    clip_norm: float | Literal['published'] | None = None
    unroll: int = 1

    @property
    def passes(self) -> float:  # type: ignore[override]
        """The cost of a step of α: one for the gradient at the end, and three for each virtual step and its Hessian-vector product."""
        return 3 * self.unroll + 1

    def options(self) -> dict[str, Any]:
        """See :class:`Architect`."""
        return {'order': 2, **asdict(self)}
