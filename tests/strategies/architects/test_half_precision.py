"""Float16 with scaled gradients (``precision: 16-mixed``): α learns what it learns in higher precision, and overflow changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader, Lightning
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import BilevelProblem, Coordinate, FirstOrder, SecondOrder, architecture_gradient
from nni_darts.training import ImageClassifier
from nni_darts.training.run import half_precision
from tests.helpers.fitting import trainer
from tests.helpers.spaces import TwoLabels

SIXTEEN = {'bf16': torch.bfloat16, 'fp16': torch.float16}
SCALE = 2.0**16


@cache
def alpha_gradient(precision: str, loss_scale: float = 1.0, order: int = 2, hessian: str = 'finite_difference') -> Tensor:
    """∇α of a small supernet of convolutions, at the same weights, α and images in each precision."""
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(execution='plain')
    model = strategy.mutate_model(DartsSpace(4, 3, 10, 3, 1))
    architecture = strategy.architecture
    images, labels = torch.randn(2, 8, 3, 8, 8), torch.randint(10, (2, 8))
    if precision == 'fp64':
        model.double()
        architecture.double()
        images = images.double()

    def loss(part: int) -> Callable[[], Tensor]:
        return lambda: functional.cross_entropy(model(images[part]), labels[part])

    dtype = SIXTEEN.get(precision)
    with nullcontext() if dtype is None else torch.autocast('cpu', dtype, cache_enabled=False):
        found = architecture_gradient(
            BilevelProblem(
                loss(0),
                loss(1),
                list(model.parameters()),
                architecture.arch_parameters(),
                buffers=list(model.buffers()),
                learning_rate=0.05,
                loss_scale=loss_scale,
            ),
            order=order,
            hessian=hessian,
        )
    return torch.cat([gradient.double().flatten() for gradient in found])


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


@pytest.mark.parametrize('hessian', ['finite_difference', 'exact'])
def test_direction_is_at_least_as_good_as_in_bfloat16(hessian: str) -> None:
    exact = alpha_gradient('fp64', hessian=hessian)
    coarse = cosine(alpha_gradient('bf16', hessian=hessian), exact)
    fine = cosine(alpha_gradient('fp16', SCALE, hessian=hessian), exact)
    assert fine > 0.99 and fine >= coarse > 0.97
    # Second order, and not first order with noise on it.
    assert cosine(alpha_gradient('fp64', order=1), exact) < 0.995 < fine


def test_without_a_scale_small_gradients_vanish() -> None:
    """The reason for the scaler: a gradient below 6·10⁻⁸ is 0 in float16."""
    weight, alpha = torch.ones(4, 4, requires_grad=True), torch.ones(1, requires_grad=True)

    def loss() -> Tensor:
        return 1e-9 * (torch.ones(1, 4) * alpha @ weight).sum().float()

    with torch.autocast('cpu', torch.float16, cache_enabled=False):
        plain, scaled = (
            architecture_gradient(BilevelProblem(loss, loss, [weight], [alpha], learning_rate=0.1, loss_scale=scale), order=1)[0]
            for scale in (1.0, SCALE)
        )
    assert float(plain) == 0 and float(scaled) == pytest.approx(1.6e-8, rel=1e-2)


def test_scale_and_step_length_are_apart() -> None:
    """The difference's steps have the length that v itself gives them: in float32 a scale changes no bit."""
    one, other = (alpha_gradient('fp32', scale) for scale in (1.0, SCALE))
    assert torch.equal(one, other)


class Watch(pl.Callback):
    """Notes the scale, and whether α and the weights moved, after each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, bool, bool]] = []

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._before = self._now(module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        now = self._now(module)
        moved = [any(not torch.equal(*pair) for pair in zip(*parts)) for parts in zip(self._before, now)]
        self.steps.append((trainer.precision_plugin.scaler.get_scale(), *moved))
        self._before = now

    def _now(self, module: Any) -> tuple[list[Tensor], list[Tensor]]:
        return [[tensor.detach().clone() for tensor in part] for part in (module.architecture.parameters(), module.model.parameters())]


def searched(architect: Any, first_scale: float, batches: int) -> Watch:
    watch = Watch()
    space = TwoLabels()
    images, labels = torch.randn(8 * batches, 6), torch.randint(2, (8 * batches,))
    space(images)  # makes the lazy layer
    loaders = [DataLoader(TensorDataset(images, labels), batch_size=8) for _ in range(2)]
    strategy = DifferentiableStrategy(architect=architect)
    model = strategy.mutate_model(space)
    plugin = MixedPrecision('16-mixed', 'cpu', torch.amp.GradScaler('cpu', init_scale=first_scale))
    run = trainer(1, plugins=[plugin], callbacks=[watch], num_sanity_val_steps=0)
    strategy.mutate_evaluator(Lightning(ImageClassifier(2, 1, learning_rate=0.05), run, *loaders)).evaluate(model)
    return watch


@pytest.mark.parametrize('architect', [SecondOrder(), SecondOrder('exact'), FirstOrder()], ids=['second', 'exact', 'first'])
def test_overflow_halves_the_scale_and_changes_nothing_else(architect: Any) -> None:
    watch = searched(architect, 2.0**40, 40)
    skipped = [step for step in watch.steps if not (step[1] or step[2])]
    assert len(skipped) > 10 and watch.steps[: len(skipped)] == [(2.0 ** (39 - number), False, False) for number in range(len(skipped))]
    # Then both move, at a scale that stays where it is.
    assert watch.steps[-1][1:] == (True, True) and watch.steps[-1][0] == watch.steps[-2][0] >= 2.0**12


def test_each_of_two_steps_on_one_batch_updates_the_scale() -> None:
    """Coordinate descent steps twice for each pair of batches."""
    watch = searched(Coordinate(), 2.0**40, 6)
    assert [scale for scale, *_ in watch.steps] == [2.0 ** (38 - 2 * number) for number in range(6)]


def test_clipping_is_that_of_the_gradient_itself() -> None:
    """NNI's module clips right after backward, where a scaled gradient is 65,536 times too long."""

    class Norm(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            self.norms.append(float(torch.stack([weight.grad.norm() for weight in module.model.parameters()]).norm()))

        norms: list[float] = []

    found = {}
    for name, plugins in (('fp16', [half_precision('cpu')]), ('fp32', [])):
        torch.manual_seed(1)
        space, watch = TwoLabels(), Norm()
        watch.norms = []
        images, labels = torch.randn(8, 6), torch.randint(2, (8,))
        space(images)
        loaders = [DataLoader(TensorDataset(images, labels), batch_size=8) for _ in range(2)]
        strategy = DifferentiableStrategy(gradient_clip_val=0.1)
        model = strategy.mutate_model(space)
        run = trainer(1, plugins=plugins, callbacks=[watch], num_sanity_val_steps=0)
        strategy.mutate_evaluator(Lightning(ImageClassifier(2, 1, learning_rate=0.05), run, *loaders)).evaluate(model)
        (found[name],) = watch.norms
    assert found['fp32'] == pytest.approx(0.1, rel=1e-4) and found['fp16'] == pytest.approx(0.1, rel=1e-2)
