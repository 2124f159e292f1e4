"""The module that replaces a choice among operations during the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture, Mask

__all__ = ['Relaxation', 'masked', 'onto_simplex', 'weighted_sum']


def weighted_sum(weights: Tensor | Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """``Σ_i weights[i] · outputs[i]``; the outputs have one shape."""
    terms = [weight * output for weight, output in zip(weights, outputs, strict=True)]
    return sum(terms[1:], terms[0])


def onto_simplex(weights: Tensor) -> Tensor:
    """Clips at 0 and divides by the sum: (candidates,) → (candidates,) with a sum of 1.

    Where no weight is above 0 the largest one becomes 1, as in the code of SmoothDARTS; of equals that is the first. A sum too small for
    the division counts as 0.
    """
    clipped = weights.clamp(min=0.0)
    total = clipped.sum()
    positive = total > torch.finfo(weights.dtype).tiny
    largest = torch.zeros_like(weights).scatter(0, weights.argmax(dim=0, keepdim=True), 1.0)
    # The inner `where` keeps NaN out of the gradient of the branch that is not taken.
    return torch.where(positive, clipped / torch.where(positive, total, torch.ones_like(total)), largest)


def masked(weights: Tensor, mask: Mask | None) -> Tensor:
    """Sets the weight of a masked candidate to zero, and renormalises the others if the mask says so; in and out (candidates,)"""
    if mask is None:
        return weights
    kept = torch.ones_like(weights).index_fill(0, torch.tensor(mask.index, device=weights.device), 0.0) * weights
    return onto_simplex(kept) if mask.renormalise else kept


class Relaxation:
    """The relaxation of DARTS, and the places where others differ from it (Liu et al., ICLR 2019, equation 2).

    ``ō(x) = Σ_o softmax(α)_o · o(x)``.

    Attributes:
        trains_alpha: whether α moves at all.
        weighted_edges: whether the edges into a node have weights of their own.
        sampled: whether the supernet computes one path at a time, drawn from a policy.
        portion: k, where 1 / k of the channels is searched and the other channels bypass the operations; None where all are searched.
        passes: what a step of the weights costs, in forward-and-backward passes of a batch through the supernet.
    """

    trains_alpha = True
    weighted_edges = False
    passes: float = 1
    sampled = False
    portion: int | None = None

    @property
    def mixes_by_weights(self) -> bool:
        """Whether an edge is the sum of its candidates' outputs times :meth:`weights`, so that it can be computed otherwise."""
        return type(self).mix is Relaxation.mix and type(self).around is Relaxation.around

    def begin(self, architecture: Architecture) -> None:
        """Called once the supernet has declared all its decisions."""

    def probabilities(self, alpha: Tensor) -> Tensor:
        """α (candidates,) → probability of each candidate (candidates,): what a selection ranks."""
        return torch.softmax(alpha, dim=-1)

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """The factor of each candidate's output in this forward pass: (candidates,)"""
        return self.probabilities(alpha)

    def mix(self, label: str, alpha: Tensor, candidates: Sequence[nn.Module], args: Any, kwargs: Any, mask: Mask | None = None) -> Tensor:
        """The output of a relaxed LayerChoice, given its candidates and their arguments.

        Args:
            mask: the candidate that is left out, if one is. It is not computed, and which one it is stays on the host.
        """
        weights = list(self.weights(label, alpha).unbind())
        kept = [index for index in range(len(candidates)) if mask is None or index != mask.index]
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
        """Returns the module to search in place of a candidate: here the candidate itself."""
        return module

    def around(self, compute: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Calls what computes an edge with its arguments, whether its operation is still mixed or decided."""
        return compute(*args, **kwargs)

    def begin_step(self, progress: float) -> None:
        """Called before each training step, that of α included.

        Args:
            progress: e / (E − 1) in epoch e (from 0) of a search of E epochs: 1 in its last epoch, above 1 while a selection fine-tunes.
        """

    @contextmanager
    def weight_step(self, architecture: Architecture, loss: Callable[[], Tensor], model: nn.Module, progress: float) -> Iterator[None]:
        """Surrounds each step of the weights.

        Args:
            architecture: α, frozen meanwhile.
            loss: the training loss on the step's batch, in float16 times the scale of its gradients.
            model: the supernet.
            progress: e / E in epoch e (from 0) of a search of E epochs: below 1 until the search is over.
        """
        yield

    @contextmanager
    def validation_step(self, architecture: Architecture, model: nn.Module) -> Iterator[None]:
        """Surrounds each validation batch."""
        yield
