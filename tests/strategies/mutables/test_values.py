"""Relaxed value choices against what the frozen model computes with the same weights."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts._nni import ModelSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from tests.helpers.choices import VALUES, BatchNorm, Square, Strided, Width, images

LARGE = 1e4


def supernet(build: Any, method: str = 'darts-1st') -> tuple[DifferentiableStrategy, ModelSpace]:
    torch.manual_seed(0)
    strategy = create_strategy(method)
    return strategy, strategy.mutate_model(build().double())


def samples(strategy: DifferentiableStrategy) -> list[dict[str, Any]]:
    decisions = strategy.architecture.operations()
    return [dict(zip(decisions, values)) for values in itertools.product(*(decision.names for decision in decisions.values()))]


def set_one_hot(strategy: DifferentiableStrategy, sample: dict[str, Any]) -> None:
    for label, decision in strategy.architecture.operations().items():
        with torch.no_grad():
            strategy.architecture.alpha(label).fill_(-LARGE)[decision.names.index(sample[label])] = LARGE


def path_of(strategy: DifferentiableStrategy, sample: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {label: (decision.names.index(sample[label]),) for label, decision in strategy.architecture.operations().items()}


def seeded(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(7)
    return model(x)


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', VALUES)
def test_one_hot_supernet_computes_what_the_frozen_model_computes(name: str, train: bool) -> None:
    strategy, model = supernet(VALUES[name])
    x = images()
    with torch.no_grad():
        model.train()(x)  # running statistics that are not those of the start
    for sample in samples(strategy):
        if train and sample.get('dropout'):
            continue  # the two draw other masks
        set_one_hot(strategy, sample)
        frozen = model.freeze(sample).train(train)
        expected = frozen(x)
        torch.testing.assert_close(copy.deepcopy(model).train(train)(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', [*VALUES, 'stride'])
def test_sampled_path_computes_what_the_frozen_model_computes(name: str, train: bool) -> None:
    strategy, model = supernet({**VALUES, 'stride': Strided}[name], 'random-ws')
    x = images()
    for sample in samples(strategy):
        with strategy.architecture.viewed(path=path_of(strategy, sample)):
            frozen = model.freeze(sample).train(train)
            result, expected = seeded(model.train(train), x), seeded(frozen, x)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', VALUES)
def test_frozen_model_is_the_one_that_nni_builds(name: str) -> None:
    space = VALUES[name]()
    strategy, model = supernet(VALUES[name])
    for sample in samples(strategy)[:: max(1, len(samples(strategy)) // 4)]:
        shapes = {key: value.shape for key, value in space.freeze(sample).state_dict().items()}
        frozen = model.freeze(sample)
        assert sorted(map(tuple, shapes.values())) == sorted(tuple(value.shape) for value in frozen.state_dict().values())
        space.freeze(sample).double().load_state_dict(frozen.state_dict())


@pytest.mark.parametrize('name', VALUES)
def test_gradient_of_alpha_matches_finite_differences(name: str) -> None:
    strategy, model = supernet(VALUES[name])
    model.eval()
    x = images(3)
    for alpha in strategy.arch_parameters():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)

    def loss() -> Tensor:
        return (model(x) ** 2).sum()

    gradients = torch.autograd.grad(loss(), strategy.arch_parameters())
    for alpha, gradient in zip(strategy.arch_parameters(), gradients):
        for index in range(len(alpha)):
            with torch.no_grad():
                alpha[index] += 1e-5
                above = loss()
                alpha[index] -= 2e-5
                below = loss()
                alpha[index] += 1e-5
            assert float(gradient[index]) == pytest.approx(float(above - below) / 2e-5, rel=1e-5, abs=1e-8)
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients)


@pytest.mark.parametrize('name', VALUES)
def test_a_layer_is_the_expectation_over_joint_values(name: str) -> None:
    """Each relaxed module by itself, on an input of its largest size, against the sum over frozen modules with padded outputs."""
    strategy, model = supernet(VALUES[name])
    model.eval()
    for alpha in strategy.arch_parameters():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)
    inputs: dict[nn.Module, Tensor] = {}
    relaxed = [module for module in model.modules() if hasattr(module, 'settings')]
    for module in relaxed:
        module.register_forward_pre_hook(lambda module, args: inputs.__setitem__(module, args[0].detach()))
    model(images(2))
    for module in relaxed:
        if not hasattr(module, 'weight') or module.weight is None:
            continue
        x = inputs[module]
        channels = 1 if x.dim() > 2 else -1
        probabilities = {label: torch.softmax(strategy.architecture.alpha(label), 0) for label in module.labels}
        whole = module(x)
        total = torch.zeros_like(whole)
        for values in itertools.product(*(range(len(table)) for table in probabilities.values())):
            weight = torch.stack([table[index] for table, index in zip(probabilities.values(), values)]).prod()
            setting = module.settings.arguments[module.settings.index(values)]
            frozen = module.frozen(module.settings.index(values)).eval()
            width = setting['in_channels'] if 'in_channels' in setting else setting['in_features']
            output = frozen(x.narrow(channels, 0, width))
            padded = torch.zeros_like(whole)
            padded.narrow(channels, 0, output.shape[channels]).copy_(output)
            total = total + weight * padded
        torch.testing.assert_close(whole, total, rtol=0, atol=1e-10)


def test_one_label_on_two_axes_is_no_product_of_marginals() -> None:
    strategy, model = supernet(Square)
    layer = model.layers[2]
    kernel, groups = layer._expected_kernel(torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert groups == 1
    ratio = (kernel / layer.weight).squeeze()
    assert ratio[3, 3] == ratio[0, 3] == ratio[3, 0] == 0.5  # a product of marginals gives 0.25 at [3, 3]
    assert ratio[0, 0] == 1.0


def test_width_before_train_mode_batch_norm_has_a_gradient() -> None:
    strategy, model = supernet(BatchNorm)
    width = strategy.architecture.alpha('width')
    width.data = torch.zeros(2, dtype=torch.float64)
    convolution, norm = model.layers[0], model.layers[1].train()
    target = torch.randn(6, 5, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((norm(convolution(images())) * target).sum(), width)
    assert gradient.abs().max() > 1e-2
    plain = norm.norm(convolution(images()))
    (cancelled,) = torch.autograd.grad((plain * target).sum(), width)
    assert cancelled.abs().max() < 1e-2 * gradient.abs().max()


def test_gumbel_draws_one_value_for_all_modules_of_a_label() -> None:
    strategy, model = supernet(Width, 'gdas')
    seen = []
    for index in (0, 2, 5):
        module = model.layers[index]
        original = module.setting_weights
        module.setting_weights = lambda like, original=original: seen.append(original(like)) or seen[-1]
    for _ in range(5):
        seen.clear()
        model(images())
        chosen = {int(weights.argmax()) for weights in seen}
        assert len(seen) == 3 and len(chosen) == 1
        assert all(float(weights.detach().max()) == pytest.approx(1.0) and int((weights != 0).sum()) == 1 for weights in seen)


@pytest.mark.parametrize('method', ['darts-1st', 'gdas', 'sdarts-rs'])
def test_stride_to_choose_is_refused_before_anything_starts(method: str) -> None:
    with pytest.raises(ValueError, match=r"Conv2d 'layers.0' \(label stride\): .* different height and width.*enas"):
        supernet(Strided, method)
