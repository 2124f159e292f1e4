"""ProxylessNAS: binary gates, of which one is open (Cai, Zhu & Han, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nni_darts.strategies.catalogue import GateSettings
from nni_darts.strategies.relaxations.base import weighted_sum
from nni_darts.strategies.relaxations.batch_statistics import batch_statistics
from nni_darts.strategies.relaxations.sampling import Sampling, one_hot, with_gradient
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture, Mask

__all__ = ['BinaryGates']


class _Gates(NamedTuple):
    active: int
    sampled: list[int]
    before: Tensor  # α when the gates were drawn


@typed(settings=GateSettings)
class BinaryGates(Sampling):
    """Computes one path o_a(x) of each choice, drawn with the probabilities p = softmax(α).

    A step of α takes ``b_j = ⟨∂L/∂y, o_j(x)⟩`` for the gradient of gate j, and ``∂L/∂α_i = Σ_j b_j · p_j · (δ_ij − p_i)``. A step of the
    weights computes the path alone, so weights that are not on it do not move. Validation computes the most probable path, with batch
    norms that use the statistics of the batch.

    Args:
        paths: ``all`` sums over all j; ``two`` over two candidates that are drawn without replacement, between which p is renormalised and
            the active path is drawn. Then a step of α moves these two only, and shifts both so that all other probabilities stay the same.
    """

    def __init__(self, paths: Literal['all', 'two'] = 'all') -> None:
        super().__init__()
        self.paths = paths

    def draw(self, alpha: Tensor) -> _Gates:
        """Returns the gates for α (candidates,)."""
        noisy = alpha - torch.empty_like(alpha).exponential_().log()  # the largest of α + Gumbel noise are draws without replacement
        count = len(alpha) if self.paths == 'all' else min(2, len(alpha))
        sampled = list(range(len(alpha))) if self.paths == 'all' else noisy.topk(count).indices.tolist()
        active = int(noisy.argmax()) if self.paths == 'all' else sampled[int(torch.multinomial(torch.softmax(alpha[sampled], 0), 1))]
        return _Gates(active, sampled, alpha.clone())

    def mix(self, label: str, alpha: Tensor, candidates: Sequence[nn.Module], args: Any, kwargs: Any, mask: Mask | None = None) -> Tensor:
        """Returns the output of the active path, with the gradient of the gates if α needs one."""
        gates = self.drawn(label)
        differentiated = torch.is_grad_enabled() and alpha.requires_grad
        if mask is not None or (gates is None and differentiated):  # scoring without a candidate; curvature
            return super().mix(label, alpha, candidates, args, kwargs, mask)
        if not differentiated:
            return candidates[int(alpha.argmax()) if gates is None else gates.active](*args, **kwargs)
        weights, outputs = _weights(gates, alpha), []
        for index in gates.sampled:
            with nullcontext() if index == gates.active else torch.no_grad():  # the weight of any other path is 0
                outputs.append(candidates[index](*args, **kwargs))
        return weighted_sum([weights[index] for index in gates.sampled], outputs)

    def value_weights(self, label: str, alpha: Tensor, place: int, mask: Mask | None = None) -> Tensor:
        """See :class:`Relaxation`: one-hot at the active value, or at the most probable one in validation."""
        gates = self.drawn(label)
        if mask is not None or (gates is None and torch.is_grad_enabled()):
            return super().value_weights(label, alpha, place, mask)
        return one_hot(alpha, alpha.argmax()) if gates is None else _weights(gates, alpha)

    @torch.no_grad()
    def end_architecture_step(self) -> None:
        """Keeps the probabilities of all candidates but the two that were sampled."""
        for label, gates in self._drawn.items():
            if self.paths == 'two':
                alpha = self._architecture.value.alpha(label)  # type: ignore[union-attr]
                moved = alpha[gates.sampled] - (alpha[gates.sampled].logsumexp(0) - gates.before[gates.sampled].logsumexp(0))
                alpha.copy_(gates.before)
                alpha[gates.sampled] = moved

    @contextmanager
    def validation_step(self, architecture: Architecture, model: nn.Module) -> Iterator[None]:
        """Makes batch norms use the statistics of the batch."""
        with batch_statistics(model):
            yield


def _weights(gates: _Gates, alpha: Tensor) -> Tensor:
    """Returns the open gate as a one-hot vector (candidates,) with the gradient of the probabilities among the sampled candidates."""
    soft = torch.zeros_like(alpha).index_put((torch.tensor(gates.sampled, device=alpha.device),), torch.softmax(alpha[gates.sampled], 0))
    return with_gradient(one_hot(alpha, gates.active), soft)
