"""The policy gradient of ENAS (Pham et al., ICML 2018, section 2.2; Williams, 1992)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nni_darts import parallel
from nni_darts.strategies.architects.architect import Architect
from nni_darts.strategies.architects.gradient import gradient_of, saved
from nni_darts.strategies.catalogue import ReinforceSettings
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.relaxations.policies import draw
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Reinforce']


@typed(settings=ReinforceSettings)
@dataclass(frozen=True)
class Reinforce(Architect):
    """Trains the controller of sampled paths to prefer paths that validate well with the shared weights.

    With a path a of probability π(a), its reward R(a), H the entropy of π, and b a moving average, ∇(E[R] + β·H) is estimated by::

        (R(a) − β·log π(a) − b) · ∇ log π(a)

    Its expectation is exact, because b does not depend on a, and −E[log π · ∇ log π] = ∇H. log π(a) is the log-probability of a's turns
    in the order in which they were taken. If the strategy has a penalty, R(a) includes that on the cost of a.

    Args:
        criterion: reward on a validation batch, which is its ``accuracy`` or its negative ``loss``.
        paths_per_step: number of paths drawn in each step.
        baseline_decay: decay of b, which starts with the first reward.
        entropy_weight: β.

    Raises:
        ValueError: for a setting outside its range.
    """

    moves_policy = True

    criterion: Literal['accuracy', 'loss'] = 'accuracy'
    paths_per_step: int = 1
    baseline_decay: float = 0.99
    entropy_weight: float = 1e-4

    @property
    def passes(self) -> float:  # type: ignore[override]
        """The cost of a step of α, in which each path is evaluated."""
        return self.paths_per_step * EVALUATION

    def gradients(self, module: DifferentiableModule, train: Any, valid: Any, index: int, shares: Sequence[float]) -> list[Tensor]:
        """See :class:`Architect`. Returns minus the policy gradient, because an optimizer descends. The training batch is not used."""
        architecture = module.architecture
        drawn = [architecture.policy.follow(draw) for _ in range(self.paths_per_step)]  # type: ignore[union-attr]
        scores = []
        with torch.no_grad(), saved(list(module.model.buffers())):
            for path, _ in drawn:
                with architecture.viewed(path=path):
                    scores.append(module.rewarded(module.score_on(valid, index, shares[1], self.criterion), path))
        (rewards,) = parallel.average([torch.stack(scores).cpu()])  # one transfer for all paths
        losses = [self.surrogate(architecture.state.memory, reward, log) for reward, (_, log) in zip(rewards.tolist(), drawn)]
        loss = sum(losses[1:], losses[0]) / self.paths_per_step
        return parallel.average(gradient_of(loss, architecture.arch_parameters(), module.loss_scale))

    def surrogate(self, memory: dict[str, Any], reward: float, log_probability: Tensor) -> Tensor:
        """Returns a scalar whose gradient is minus the estimate above; ``memory`` keeps b, which is updated with this reward afterwards."""
        total = reward - self.entropy_weight * float(log_probability.detach())
        baseline = memory.get('baseline', total)
        memory['baseline'] = self.baseline_decay * baseline + (1 - self.baseline_decay) * total
        return (baseline - total) * log_probability
