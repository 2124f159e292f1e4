"""OLES: operation-level early stopping of the weights (Jiang et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from nni_darts import parallel
from nni_darts.strategies.architects.gradient import saved
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.settings import typed
from nni_darts.strategies.supernet import MixedOperation
from nni_darts.strategies.terms.base import Step, StepTerm
from nni_darts.strategies.terms.registry import OlesSettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment

__all__ = ['Oles']


@typed(settings=OlesSettings)
class Oles(StepTerm):
    """Freezes the weights of an operation for good when its gradients of training and validation loss disagree (section 4.2).

    The gradient g of the last step of the weights, after clipping, is compared with g + ∇w L_v before the next step of α: the cosine along
    the first dimension of each parameter, averaged. g is in the sum because the authors' code does not set gradients to zero in between,
    and the threshold belongs to that sum; ``validation`` compares g with ∇w L_v alone. Each mean is over exactly ``steps`` cosines, and the
    first step of an epoch, which follows a checkpoint, is not compared. A frozen operation has no gradient, so neither momentum nor
    weight decay moves it; its batch norms still follow the data. ∇w L_v costs a pass of its own, and is taken with the α of that moment.

    Args:
        threshold: the operation is frozen if the mean is below it, 0.4 as published.
        steps: number of cosines of a mean, 20 as published.
        gradient: ``summed`` as in the authors' code, or ``validation``.
    """

    passes = 1

    def __init__(self, threshold: float = 0.4, steps: int = 20, gradient: Literal['summed', 'validation'] = 'summed') -> None:
        self.threshold = threshold
        self.steps = steps
        self.gradient_of = gradient
        self._operations: dict[str, list[nn.Parameter]] = {}
        self._kept: dict[nn.Parameter, Tensor] = {}
        self._memory: dict[str, Any] = {}

    def check(self, architecture: Architecture, model: nn.Module) -> None:
        """See :class:`StepTerm`. Raises ValueError if no candidate has weights."""
        if not _weights_of_operations(model):
            raise ValueError('oles freezes the weights of candidate operations, and no operation of this space has weights of its own')

    def begin(self, architecture: Architecture, model: nn.Module, optimizer: Optimizer) -> None:
        """See :class:`StepTerm`."""
        self._operations = _weights_of_operations(model)
        self._memory = architecture.state.memory.setdefault('oles', {'frozen': [], 'sums': {}, 'counts': {}})
        for name in self._memory['frozen']:
            self._freeze(name)

    def begin_epoch(self, moment: Moment) -> None:
        """Forgets the last gradient."""
        self._kept = {}

    def before(self, step: Step) -> None:
        """Compares the gradients of all operations, and freezes those that disagree."""
        weights = [weight for part in self._operations.values() for weight in part if weight in self._kept and weight.requires_grad]
        if not weights or not step.moves_alpha:
            return
        state = RandomState({weight.device for weight in weights})
        with saved(list(step.model.buffers())):
            found = torch.autograd.grad(step.valid_loss(), weights, allow_unused=True)
        state.restore()  # with no operation frozen, a search is that without the term, bit for bit
        reached = [(weight, gradient) for weight, gradient in zip(weights, found) if gradient is not None]
        means = parallel.average([gradient / step.loss_scale for _, gradient in reached])
        cosines = dict(zip((weight for weight, _ in reached), map(self._cosine, (weight for weight, _ in reached), means)))
        scores = {
            name: torch.stack([cosines[weight] for weight in part if weight in cosines]).mean()
            for name, part in self._operations.items()
            if any(weight in cosines for weight in part)
        }
        if scores:
            for name, score in zip(scores, torch.stack(list(scores.values())).tolist()):  # one transfer for all
                self._judge(name, score)

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """Keeps the gradients of the step, in tensors of their own."""
        yield
        weights = [weight for part in self._operations.values() for weight in part if weight.requires_grad and weight.grad is not None]
        self._kept = {weight: weight.grad.detach().clone() for weight in weights}  # type: ignore[union-attr]

    def _cosine(self, weight: nn.Parameter, of_validation: Tensor) -> Tensor:
        kept = self._kept[weight]
        other = kept + of_validation if self.gradient_of == 'summed' else of_validation
        return functional.cosine_similarity(kept, other, dim=0).mean()

    def _judge(self, name: str, score: float) -> None:
        sums, counts = self._memory['sums'], self._memory['counts']
        sums[name], counts[name] = sums.get(name, 0.0) + score, counts.get(name, 0) + 1
        if counts[name] == self.steps:
            if sums[name] / self.steps < self.threshold:
                self._memory['frozen'].append(name)
                self._freeze(name)
            sums[name], counts[name] = 0.0, 0

    def _freeze(self, name: str) -> None:
        for weight in self._operations[name]:
            weight.requires_grad_(False)
            weight.grad = None  # otherwise the optimizer would take another step


def _weights_of_operations(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Returns name of a candidate operation in the supernet → its weights, for the operations that have any."""
    choices = [(name, module) for name, module in model.named_modules() if isinstance(module, MixedOperation)]
    found = {f'{name}.{operation}': getattr(choice, str(operation)) for name, choice in choices for operation in choice.names}
    return {name: weights for name, module in found.items() if (weights := list(module.parameters()))}
