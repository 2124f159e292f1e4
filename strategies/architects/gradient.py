"""The architecture gradient of DARTS (Liu et al., ICLR 2019, section 2.3, equations 5 to 8)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from nni_darts import parallel
from nni_darts.strategies.architects.derivatives import (
    gradient_of,
    not_finite,
    overflowed,
    require_grad,
    saved,
    scaled,
    unchanged,
    unscaled,
    without_autocast,
)
from nni_darts.strategies.architects.implicit import implicit_gradient
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.architects.unrolled import unrolled_gradient
from nni_darts.strategies.architects.virtual_step import clip_coefficient, virtual_step
from nni_darts.strategies.catalogue import ImplicitSettings, SecondOrderSettings

__all__ = ['BilevelProblem', 'architecture_gradient', 'gradient_of', 'require_grad', 'saved', 'unchanged']

PUBLISHED_NORM = 0.25
"""The norm to which the authors clip gradients of recurrent networks."""


@dataclass(frozen=True, eq=False)  # tensors cannot be compared with one truth value
class BilevelProblem:
    """The two losses of a search, ``min over α of L_v(w*(α), α)`` with ``w*(α) = argmin over w of L_t(w, α)``, at one point (w, α).

    Args:
        train_loss, valid_loss: closures over the current values of ``weights`` and ``alphas`` that return a scalar.
        weights: the parameters w, leaf tensors. Weights with ``requires_grad=False`` do not move.
        alphas: the architecture parameters α, leaf tensors.
        optimizer: the ``torch.optim.SGD`` of the weights, whose momentum buffers, weight decay, Nesterov's momentum and dampening the
            virtual step applies; None for plain gradient descent. It is only read.
        buffers: tensors to which the losses write, such as the running statistics of batch norm.
        learning_rate: ξ, the current learning rate of the weights; a sequence has one for each weight, if the optimizer's groups differ.
        loss_scale: factor of every loss during differentiation, so that float16 can represent its gradients. Each gradient is divided by
            it at once, so the virtual step, v and its length are those of the losses themselves. A power of 2 changes nothing else.

    Raises:
        ValueError: for a learning rate that is negative or not finite, a sequence of another length than ``weights``, or a tensor that is
            not a leaf.

    Example:
        >>> w, alpha = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        >>> train_loss, valid_loss = lambda: (w - alpha).square().sum(), lambda: w.square().sum()
        >>> problem = BilevelProblem(train_loss, valid_loss, [w], [alpha], learning_rate=0.1)
        >>> architecture_gradient(problem, hessian='exact')  # −ξ·∂²L_t/∂α∂w·v = −0.1·(−2)·1.6
        [tensor([0.3200])]
    """

    train_loss: Callable[[], Tensor]
    valid_loss: Callable[[], Tensor]
    weights: Sequence[Tensor]
    alphas: Sequence[Tensor]
    optimizer: Optimizer | None = None
    buffers: Sequence[Tensor] = ()
    learning_rate: float | Sequence[float] = field(kw_only=True)
    loss_scale: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.weights) or not all(math.isfinite(rate) and rate >= 0 for rate in self.rates):
            raise ValueError(
                f'learning_rate must be a number of at least 0, or one for each of the {len(self.weights)} weights, '
                f'not {self.learning_rate!r}'
            )
        for name, tensors in (('weights', self.weights), ('alphas', self.alphas)):
            if any(not tensor.is_leaf for tensor in tensors):
                raise ValueError(f'{name} must be leaf tensors, such as parameters')

    @property
    def rates(self) -> list[float]:
        """The learning rate of each weight."""
        rate = self.learning_rate
        return list(map(float, rate)) if isinstance(rate, Sequence) else [float(rate)] * len(self.weights)

    @property
    def moving(self) -> list[Tensor]:
        """The weights that a step can move."""
        return [weight for weight in self.weights if weight.requires_grad]


def architecture_gradient(
    problem: BilevelProblem,
    *,
    order: Literal[1, 2] = 2,
    hessian: Literal['finite_difference', 'exact'] = 'finite_difference',
    epsilon: float = 0.01,
    clip_norm: float | Literal['published'] | None = None,
    unroll: int = 1,
    terms: int | None = None,
) -> list[Tensor]:
    """Returns the gradient of the validation loss with respect to the architecture parameters α.

    First order: ``∇α L_v(w, α)``. Second order, with the weights w' after one virtual step of the weight optimizer::

        w' = w − ξ·step(∇w L_t(w, α))
        ∇α L_v(w', α) − c·∇²αw L_t(w, α)·v          v = ∇w' L_v(w', α),  c = −∂w'/∂(∇w L_t)

    where c = ξ for SGD with or without momentum, and ξ(1 + μ) with Nesterov's momentum. If ∇w L_t is clipped, c is multiplied by the
    coefficient k of ``clip_norm``. The product is either the paper's central difference,
    ``(∇α L_t(w + εv, α) − ∇α L_t(w − εv, α)) / 2ε`` with ``ε = epsilon / ‖v‖₂``, or the exact value by differentiating twice. On networks
    with ReLU and max-pool, the two differ early in training; the published results used the difference. Second order
    with ξ = 0 is first order.

    With ``unroll`` above 1, w' are the weights after that many steps on the same training loss, and the gradient is the exact one through
    all of them (:func:`.unrolled_gradient`). With ``terms``, the gradient is the implicit one at w, without a virtual step
    (:func:`.implicit_gradient`).

    Even if an exception is raised, weights, buffers, ``.grad``, ``requires_grad`` and the optimizer are afterwards exactly as before.
    Every pass starts from the same buffers. Repeated passes of the training loss use the random numbers (dropout masks) of its first
    pass, and the final random state is as if the training loss and the validation loss had been computed once each.

    Under autocast, the losses are computed in 16 bits, but the product is not: w and w ± εv are the same 16-bit number for most weights,
    and batch norm cannot be differentiated twice in float16.

    If several processes share a step (:mod:`nni_darts.parallel`), each computes the losses of its parts of the batches. The result, on
    every rank, is that of the losses' means over ranks: the virtual step, v and the product are averaged.

    Args:
        problem: the losses with the tensors that they depend on.
        order: 1 or 2.
        hessian: ``finite_difference`` or ``exact``.
        epsilon: length ε‖v‖ of the steps of the difference.
        clip_norm: norm to which ∇w L_t is clipped in the virtual step, as the authors do for recurrent (but not for convolutional)
            networks. With ``k = min(1, clip_norm / ‖∇w L_t‖₂)`` held fixed, the virtual step is that of ``k·∇w L_t``, the product is
            multiplied by k, and v is not clipped; this is the gradient through the clipped step. ``published`` is the formula of the
            authors' code at their norm of 0.25: the product is multiplied by a k without the upper limit of 1, and v is clipped, too.
            In both cases, a decoder tied to the embedding moves with it; in the authors' code, the virtual step does not move it.
        unroll: number of virtual steps; more than one need ``hessian='exact'``.
        terms: number K of terms of the Neumann series for the inverse Hessian, after the first one (iDARTS); None for virtual steps. The
            options before it do not apply.

    Returns:
        A list of tensors shaped like ``problem.alphas``, with zeros where the loss does not depend on α. If float16 overflows under a
        ``loss_scale``, some values are not finite.

    Raises:
        ValueError: for an option outside its range, a loss that is not a scalar, or, at order 2, an optimizer other than SGD.
    """
    if order not in (1, 2):
        raise ValueError(f'order must be 1 or 2, not {order!r}')
    # These raise ValueError for an invalid option.
    settings = SecondOrderSettings(hessian=hessian, epsilon=epsilon, clip_norm=clip_norm, unroll=unroll)
    implicit = None if terms is None else ImplicitSettings(terms=terms)
    with unchanged([*problem.weights, *problem.alphas], problem.buffers) as rewind:
        if order == 1 or not any(problem.rates) or not problem.moving:
            return _first_order(problem)
        if implicit is not None:
            return implicit_gradient(problem, implicit.terms, rewind)
        if settings.unroll > 1:
            return unrolled_gradient(problem, settings, rewind)
        return _second_order(problem, settings, rewind)


def _first_order(problem: BilevelProblem) -> list[Tensor]:
    require_grad(problem.alphas, True)
    require_grad(problem.weights, False)
    return parallel.average(gradient_of(problem.valid_loss(), problem.alphas, problem.loss_scale))


def _second_order(problem: BilevelProblem, settings: SecondOrderSettings, rewind: Callable[[], None]) -> list[Tensor]:
    """Returns the gradient through a virtual step. ``rewind`` restores the buffers."""
    weights, alphas, loss_scale = problem.weights, problem.alphas, problem.loss_scale
    rate_of = {id(weight): rate for weight, rate in zip(weights, problem.rates)}
    devices = [tensor.device for tensor in (*weights, *alphas)]
    moving, before_train = problem.moving, RandomState(devices)
    require_grad(alphas, False)
    reached, gradients = _reached(moving, problem.train_loss(), loss_scale)
    if not reached:
        rewind()
        return _first_order(problem)
    gradients = parallel.average(gradients)
    if overflowed(gradients, loss_scale):
        return not_finite(alphas)  # no pass uses weights that are not finite, because hidden states would keep them
    published = settings.clip_norm == 'published'
    max_norm = PUBLISHED_NORM if settings.clip_norm == 'published' else settings.clip_norm
    coefficient = None if max_norm is None else clip_coefficient(gradients, max_norm)
    if coefficient is not None:
        gradients = list(torch._foreach_mul(gradients, coefficient.clamp(max=1.0)))
    steps, factors = virtual_step(reached, gradients, problem.optimizer, [rate_of[id(weight)] for weight in reached])
    del gradients

    with saved(reached) as restore:
        with torch.no_grad():
            torch._foreach_add_(reached, steps)
        del steps
        rewind()
        require_grad(alphas, True)
        result = parallel.average(gradient_of(problem.valid_loss(), [*alphas, *reached], loss_scale))
        after_valid = RandomState(devices)
        result, vector = result[: len(alphas)], result[len(alphas) :]
        if overflowed(vector, loss_scale):
            return not_finite(alphas)
        if published:
            vector = list(torch._foreach_mul(vector, clip_coefficient(vector, PUBLISHED_NORM).clamp(max=1.0)))
        # c differs between weights only if the optimizer's groups differ. Multiplying v by it keeps one product for all groups.
        vector = list(torch._foreach_mul(vector, factors))

        def repeated_train_loss() -> Tensor:
            rewind()
            before_train.restore()
            return problem.train_loss()

        with without_autocast(devices):
            if settings.hessian == 'exact':
                restore()
                product = _exact_product(repeated_train_loss, reached, alphas, vector)
            else:
                require_grad(weights, False)
                product = _difference_product(repeated_train_loss, reached, alphas, vector, settings.epsilon, restore)
        product = parallel.average(product)
        if coefficient is not None:
            # Not multiplied into v, because it must not change the length of the difference's steps.
            product = list(torch._foreach_mul(product, coefficient if published else coefficient.clamp(max=1.0)))
    after_valid.restore()
    return list(torch._foreach_sub(result, product))


def _exact_product(
    train_loss: Callable[[], Tensor], weights: Sequence[Tensor], alphas: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """Returns ∇²αw L_t · vector by differentiating twice."""
    gradients = torch.autograd.grad(train_loss(), weights, create_graph=True)
    attached = [(gradient, part) for gradient, part in zip(gradients, vector) if gradient.requires_grad]
    if not attached:
        return [torch.zeros_like(alpha) for alpha in alphas]
    outputs, parts = zip(*attached)
    product = torch.autograd.grad(outputs, alphas, grad_outputs=parts, allow_unused=True)
    return [torch.zeros_like(alpha) if part is None else part for part, alpha in zip(product, alphas)]


def _difference_product(
    train_loss: Callable[[], Tensor],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    vector: Sequence[Tensor],
    epsilon: float,
    restore: Callable[[], None],
) -> list[Tensor]:
    """Returns ∇²αw L_t · vector by a central difference (equation 8), which only differentiates with respect to α."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(vector))))
    scale = epsilon / norm.clamp(min=1e-12)  # for a zero vector, the difference of equal gradients is zero
    offset = torch._foreach_mul(list(vector), scale)
    sides = []
    for sign in (1.0, -1.0):
        restore()
        with torch.no_grad():
            torch._foreach_add_(list(weights), offset, alpha=sign)
        sides.append(gradient_of(train_loss(), alphas))
    difference = torch._foreach_sub(sides[0], sides[1])
    return list(torch._foreach_div(difference, 2 * scale))


def _reached(weights: Sequence[Tensor], loss: Tensor, loss_scale: float) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the weights on which the loss depends, and its gradient. An optimizer does not move the other weights."""
    if loss.numel() != 1:
        raise ValueError(f'a loss must be a scalar, not of shape {tuple(loss.shape)}')
    if not loss.requires_grad:
        return [], []
    gradients = torch.autograd.grad(scaled(loss, loss_scale), weights, allow_unused=True)
    pairs = [(weight, gradient) for weight, gradient in zip(weights, gradients) if gradient is not None]
    return [weight for weight, _ in pairs], unscaled([gradient for _, gradient in pairs], loss_scale)
