"""Weight sharing by single paths: ENAS (Pham et al., ICML 2018) and random search (Li & Talwalkar, UAI 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nni_darts.strategies.catalogue import ControllerSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.relaxations.batch_statistics import batch_statistics
from nni_darts.strategies.relaxations.policies import Controller, UniformPolicy
from nni_darts.strategies.settings import typed
from nni_darts.strategies.view import View

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['SampledPaths']


@typed(settings=ControllerSettings)
class SampledPaths(Relaxation):
    """Each step of the weights trains one architecture, drawn from a policy; no other part of the supernet is computed.

    Validation draws a path for each batch. Its batch norms use the statistics of the batch, because running statistics would mix those of
    all paths.

    Args:
        controller: whether paths are drawn from an LSTM controller, whose parameters take the place of α; otherwise, uniformly.
        hidden: number of units of the controller.
        tanh_constant: constant that bounds the controller's scores.

    Raises:
        ValueError: for a setting outside its range.
    """

    sampled = True

    def __init__(self, controller: bool = False, *, hidden: int = 64, tanh_constant: float = 1.1) -> None:
        self.trains_alpha = controller
        self.hidden = hidden
        self.tanh_constant = tanh_constant

    def begin(self, architecture: Architecture) -> None:
        """Replaces α by the policy."""
        if self.trains_alpha:
            architecture.draw_from(Controller(architecture, self.hidden, self.tanh_constant))
        else:
            architecture.draw_from(UniformPolicy(architecture))

    @contextmanager
    def weight_step(self, architecture: Architecture, loss: Callable[[], Tensor], model: nn.Module, progress: float) -> Iterator[None]:
        """Draws the path for this step."""
        architecture.view = View(architecture, path=architecture.policy.draw())  # type: ignore[union-attr]
        yield

    @contextmanager
    def validation_step(self, architecture: Architecture, model: nn.Module) -> Iterator[None]:
        """Draws the path for this batch."""
        architecture.view = View(architecture, path=architecture.policy.draw())  # type: ignore[union-attr]
        with batch_statistics(model):
            yield
