"""The ablations of one level against the same steps written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader, Lightning
from nni_darts.strategies import create_strategy
from tests.helpers.fitting import DECAY, MOMENTUM, RATE, Evaluator, trainer
from tests.helpers.spaces import TwoLabels


def data() -> tuple[list[Any], list[Any]]:
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(2):
        inputs = torch.randn(12, 6, generator=generator, dtype=torch.float64)
        labels = torch.randint(2, (12,), generator=generator)
        parts.append([(inputs[start : start + 4], labels[start : start + 4]) for start in (0, 4, 8)])
    return parts[0], parts[1]


def in_order(batches: list[Any]) -> DataLoader:
    return DataLoader(TensorDataset(*map(torch.cat, zip(*batches))), batch_size=4, sampler=list(range(12)))


def written_out(name: str, model: nn.Module, alphas: list[nn.Parameter], epochs: int) -> None:
    weights = list(model.parameters())
    if name == 'darts-joint':
        together = torch.optim.SGD([*weights, *alphas], RATE, MOMENTUM, weight_decay=DECAY)
        optimizers = [(together, [*weights, *alphas])]
    else:
        adam = torch.optim.Adam(alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3)
        optimizers = [(adam, alphas), (torch.optim.SGD(weights, RATE, MOMENTUM, weight_decay=DECAY), weights)]
    for _ in range(epochs):
        for pair in zip(*data()):
            for inputs, labels in pair:  # of the training part, then of the validation part
                for optimizer, moved in optimizers:
                    gradients = torch.autograd.grad(functional.cross_entropy(model(inputs), labels), moved)
                    for parameter, gradient in zip(moved, gradients):
                        parameter.grad = gradient
                    optimizer.step()


@pytest.mark.parametrize('name', ['darts-joint', 'darts-coordinate'])
def test_every_step_is_the_written_out_one(name: str) -> None:
    torch.manual_seed(0)
    strategy = create_strategy(name, gradient_clip_val=None)
    space = TwoLabels()
    space.last = nn.Linear(8, 2)
    model = strategy.mutate_model(space.double())
    strategy.architecture.double()
    reference, other = copy.deepcopy((strategy, model))
    written_out(name, other, reference.arch_parameters(), 2)

    train, valid = map(in_order, data())
    evaluator = Lightning(Evaluator(), trainer(2, precision='64-true', num_sanity_val_steps=0), train, valid)
    evaluator = strategy.mutate_evaluator(evaluator)
    start = [alpha.detach().clone() for alpha in strategy.arch_parameters()]
    evaluator.evaluate(model)
    found = [*model.parameters(), *strategy.arch_parameters()]
    wanted = [*other.parameters(), *reference.arch_parameters()]
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    assert not any(map(torch.equal, start, strategy.arch_parameters()))
    assert len(evaluator.trainer.optimizers) == (1 if name == 'darts-joint' else 2)


@pytest.mark.parametrize('name', ['darts-joint', 'darts-coordinate'])
def test_alpha_rests_while_it_warms_up(name: str) -> None:
    torch.manual_seed(0)
    strategy = create_strategy(name, warmup_epochs=1)
    space = TwoLabels()
    space.last = nn.Linear(8, 2)
    model = strategy.mutate_model(space.double())
    train, valid = map(in_order, data())
    evaluator = strategy.mutate_evaluator(Lightning(Evaluator(), trainer(1, precision='64-true', num_sanity_val_steps=0), train, valid))
    before = [alpha.detach().double().clone() for alpha in strategy.arch_parameters()]
    evaluator.evaluate(model)
    assert all(map(torch.equal, before, strategy.arch_parameters()))
