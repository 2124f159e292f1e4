"""The base class of relaxations, which compute a choice among operations during the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture, Mask
    from nni_darts.strategies.moment import Moment

__all__ = ['Relaxation', 'masked', 'onto_simplex', 'weighted_sum']


def weighted_sum(weights: Tensor | Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """Returns ``Σ_i weights[i] · outputs[i]``; all outputs have the same shape."""
    terms = [weight * output for weight, output in zip(weights, outputs, strict=True)]
    return sum(terms[1:], terms[0])


def onto_simplex(weights: Tensor) -> Tensor:
    """Clips weights (candidates,) at 0 and divides them by their sum.

    If no weight is above 0, the largest one becomes 1 (in a tie, the first), as in the code of SmoothDARTS. A sum too small to divide by
    counts as 0.
    """
    clipped = weights.clamp(min=0.0)
    total = clipped.sum()
    positive = total > torch.finfo(weights.dtype).tiny
    largest = torch.zeros_like(weights).scatter(0, weights.argmax(dim=0, keepdim=True), 1.0)
    # The inner `where` keeps NaN out of the gradient of the branch that is not used.
    return torch.where(positive, clipped / torch.where(positive, total, torch.ones_like(total)), largest)


def masked(weights: Tensor, mask: Mask | None) -> Tensor:
    """Returns the weights (candidates,) with zero for masked candidates; the others are renormalised if the mask says so."""
    if mask is None:
        return weights
    gone = torch.tensor(sorted(mask.indices), dtype=torch.long, device=weights.device)
    kept = torch.ones_like(weights).index_fill(0, gone, 0.0) * weights
    return onto_simplex(kept) if mask.renormalise else kept


class Relaxation:
    """The relaxation of DARTS and the base class of all others (Liu et al., ICLR 2019, equation 2).

    ``ō(x) = Σ_o softmax(α)_o · o(x)``.

    Attributes:
        trains_alpha: whether α is trained.
        on_simplex: whether the α of a choice are probabilities themselves, instead of logits.
        weighted_edges: whether the edges into a node have their own weights.
        sampled: whether the supernet computes one path at a time, drawn from a policy.
        portion: k, if only 1 / k of the channels is searched and the other channels bypass the operations; None if all are searched.
        differentiable_twice: whether weights can be differentiated twice in α, as the curvature of early stopping requires.
        probe: (label, place, weights) → weights that a cell uses in their place; None outside of steps that watch the weights of each cell.
        passes: cost of a step of the weights, in forward-and-backward passes of a batch through the supernet.
    """

    trains_alpha = True
    on_simplex = False
    weighted_edges = False
    differentiable_twice = True
    passes: float = 1
    sampled = False
    portion: int | None = None
    probe: Callable[[str, int, Tensor], Tensor] | None = None

    @property
    def mixes_by_weights(self) -> bool:
        """Whether an edge is the sum of its candidates' outputs times :meth:`weights`, so that an executor may compute it."""
        return type(self).mix is Relaxation.mix and type(self).around is Relaxation.around

    def begin(self, architecture: Architecture) -> None:
        """Prepares the relaxation. Called once the supernet has declared all its decisions."""

    def optimizer(self, alphas: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> Optimizer:
        """Returns the optimizer of α.

        Args:
            alphas: all α.
            settings: ``lr``, ``betas`` and ``weight_decay`` of Adam.
        """
        return Adam(alphas, **settings)

    def begin_epoch(self, moment: Moment) -> None:
        """Prepares an epoch. Called before it, and with the next epoch before the decisions at its end."""

    def begin_forward(self) -> None:
        """Prepares a forward pass of the supernet. Called before each one, by a hook of the supernet."""

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Returns the probability of each candidate, (candidates,), by which a selection ranks them, for α (candidates,)."""
        return torch.softmax(alpha, dim=-1)

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns the factor of each candidate's output in this forward pass, (candidates,), followed by that of :meth:`auxiliary`."""
        return self.probabilities(alpha)

    def used_weights(self, label: str, alpha: Tensor, place: int) -> Tensor:
        """Returns :meth:`weights` for one cell, as ``probe`` returns them if there is one.

        Args:
            label: label of the choice.
            alpha: its α, (candidates,).
            place: identifier of the module that asks, which differs from cell to cell.
        """
        weights = self.weights(label, alpha)
        return weights if self.probe is None else self.probe(label, place, weights)

    def mix(self, label: str, alpha: Tensor, candidates: Sequence[nn.Module], args: Any, kwargs: Any, mask: Mask | None = None) -> Tensor:
        """Returns the output of a relaxed LayerChoice.

        Args:
            label: label of the choice.
            alpha: α of the choice, (candidates,).
            candidates: modules of the candidates, and of :meth:`auxiliary` where there is one.
            args: positional arguments of the candidates.
            kwargs: keyword arguments of the candidates.
            mask: candidates to leave out, or None. They are not computed, and their indices stay on the host. If all are left out, the
                output is zero.
        """
        weights = list(self.used_weights(label, alpha, id(candidates[0])).unbind())
        kept = [index for index in range(len(candidates)) if mask is None or index not in mask.indices]
        if not kept:
            return torch.zeros_like(candidates[0](*args, **kwargs))
        if mask is not None and mask.renormalise:
            others = list(onto_simplex(torch.stack([weights[index] for index in kept])).unbind())
        else:
            others = [weights[index] for index in kept]
        return weighted_sum(others, [candidates[index](*args, **kwargs) for index in kept])

    def value_weights(self, label: str, alpha: Tensor, place: int, mask: Mask | None = None) -> Tensor:
        """Returns the weights of the values of a label in this forward pass: (candidates,).

        Args:
            label: label of the value choice.
            alpha: its α, (candidates,).
            place: identifier of the module that asks, of which there may be several.
            mask: the value that is left out, if one is.
        """
        return masked(self.weights(label, alpha), mask)

    def candidate(self, module: nn.Module, name: str) -> nn.Module:
        """Returns the module to search in place of a candidate, which by default is the candidate itself."""
        return module

    def auxiliary(self, label: str, candidates: Mapping[str, nn.Module]) -> nn.Module | None:
        """Returns a module whose output is added to the mixture of an undecided choice, and which is never chosen; None for no such module.

        Its weight is the last of :meth:`weights`, which are one more than the candidates then.

        Args:
            label: label of the choice.
            candidates: name → module to search.
        """
        return None

    def around(self, compute: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Returns the output of an edge. It calls ``compute``, which computes a mixed or a decided operation, with the arguments."""
        return compute(*args, **kwargs)

    def begin_step(self, progress: float) -> None:
        """Prepares a training step, including a step of α.

        Args:
            progress: e / (E − 1) in epoch e (from 0) of a search of E epochs: 1 in its last epoch, above 1 while a selection fine-tunes.
        """

    def end_architecture_step(self) -> None:
        """Called after each step of α's optimizer."""

    @contextmanager
    def weight_step(self, architecture: Architecture, loss: Callable[[], Tensor], model: nn.Module, progress: float) -> Iterator[None]:
        """Returns a context for a step of the weights.

        Args:
            architecture: α, which is frozen in the meantime.
            loss: returns the training loss on the step's batch; in float16, times the scale of its gradients.
            model: the supernet.
            progress: e / E in epoch e (from 0) of a search of E epochs, which is below 1 until the search is over.
        """
        yield

    @contextmanager
    def validation_step(self, architecture: Architecture, model: nn.Module) -> Iterator[None]:
        """Returns a context for a validation batch."""
        yield
