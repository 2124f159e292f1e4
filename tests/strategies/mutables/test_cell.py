"""Relaxed cells of NNI, against an expectation computed by hand and against NNI's own frozen cells."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from nni_darts._nni import ModelSpace, recursive_freeze
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.mutables.cell import MixedCell
from nni_darts.strategies.trained.in_process import SampleSpace
from tests.helpers.choices import Cells, images

KINDS = [('all', True), ('loose_end', True), ('loose_end', False), ('all', False)]
NAMES = ['all, made for inputs', 'loose ends, made for inputs', 'loose ends', 'all']


def supernet(merge: str, factory: bool, method: str = 'darts-1st', **sizes: int) -> tuple[DifferentiableStrategy, ModelSpace]:
    torch.manual_seed(0)
    strategy = create_strategy(method)
    return strategy, strategy.mutate_model(Cells(merge, factory, **sizes).double())


def drawn(merge: str, factory: bool, count: int) -> list[dict[str, Any]]:
    space = SampleSpace(Cells(merge, factory))
    rng = random.Random(5)
    return [space.sample(space.random_cell(rng)) for _ in range(count)]


def set_one_hot(strategy: DifferentiableStrategy, sample: dict[str, Any]) -> None:
    for label, decision in strategy.architecture.decisions.items():
        names = getattr(decision, 'names', None)
        with torch.no_grad():
            strategy.architecture.alpha(label).fill_(-1e4)[sample[label] if names is None else names.index(sample[label])] = 1e4


def nni_logits(model: ModelSpace, merge: str, factory: bool, sample: dict[str, Any], x: Tensor) -> Tensor:
    """Returns what NNI's own frozen space computes with the supernet's weights; the head reads only the loose ends."""
    frozen = recursive_freeze(model, sample, include_root=False)[0].eval()
    own = Cells(merge, factory).freeze(sample).double().eval()
    for part in ('stem', 'first.preprocessor', 'head'):
        own.get_submodule(part).load_state_dict(frozen.get_submodule(part).state_dict())
    for node, operators in enumerate(frozen.first.nodes):
        for place, operator in enumerate(operators):
            own.first.ops[node][place].load_state_dict(operator.operation.state_dict())
    stem = own.stem(x)
    features = own.first([stem, torch.tanh(stem)]).mean((2, 3))
    columns = [4 * (node - 2) + channel for node in own.first.output_node_indices for channel in range(4)]
    return features @ own.head.weight[:, columns].T + own.head.bias


@pytest.mark.parametrize(('merge', 'factory'), KINDS[:3], ids=NAMES[:3])
def test_one_hot_cell_computes_what_nni_freezes(merge: str, factory: bool) -> None:
    strategy, model = supernet(merge, factory)
    x = images()
    for sample in drawn(merge, factory, 12):
        set_one_hot(strategy, sample)
        expected = recursive_freeze(model, sample, include_root=False)[0](x)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(expected, nni_logits(model, merge, factory, sample, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(('merge', 'factory'), KINDS[:3], ids=NAMES[:3])
def test_sampled_path_computes_what_is_frozen(merge: str, factory: bool) -> None:
    strategy, model = supernet(merge, factory, 'random-ws')
    x = images()
    for sample in drawn(merge, factory, 12):
        decisions = strategy.architecture.decisions
        path = {label: tuple(sample[label]) if not hasattr(decision, 'names') else (decision.names.index(sample[label]),)
                for label, decision in decisions.items()}  # fmt: skip
        with strategy.architecture.viewed(path=path):
            torch.testing.assert_close(model(x), recursive_freeze(model, sample, include_root=False)[0](x), rtol=0, atol=1e-12)


def test_cells_without_a_factory_that_keep_all_nodes_are_relaxed_choice_by_choice() -> None:
    assert not any(isinstance(module, MixedCell) for module in supernet('all', False)[1].modules())


def test_node_is_the_expectation_over_inputs_and_operations() -> None:
    strategy, model = supernet('all', True, nodes=2, operators=1)
    for alpha in strategy.arch_parameters():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)
    architecture, cell = strategy.architecture, model.first
    stem = model.stem(images())
    states = list(cell.preprocessor([stem, torch.tanh(stem)]))
    for node in range(2):
        inputs, operations = (torch.softmax(architecture.alpha(f'first/{what}_{node + 2}_0'), 0) for what in ('input', 'op'))
        operator = cell.nodes[node][0]
        terms = [
            inputs[source] * operations[number] * operator.sources[source][number](states[source])
            for source, number in itertools.product(range(node + 2), range(2))
        ]
        states.append(sum(terms[1:], terms[0]))
    torch.testing.assert_close(cell([stem, torch.tanh(stem)]), torch.cat(states[2:], 1))


def test_a_loose_end_has_the_probability_that_nobody_reads_it() -> None:
    strategy, model = supernet('loose_end', True, nodes=3, operators=2)
    probabilities = []
    for node in (3, 4):
        for place in (0, 1):
            alpha = strategy.architecture.alpha(f'first/input_{node}_{place}')
            alpha.data = torch.randn(alpha.shape)
            if node > 2:
                probabilities.append(torch.softmax(alpha, 0)[2])
    expected = torch.stack([1 - probability for probability in probabilities]).prod()
    torch.testing.assert_close(model.first.loose(0), expected)
    assert model.first.loose(2) == 1.0


@pytest.mark.parametrize(('merge', 'factory'), KINDS[:3], ids=NAMES[:3])
def test_gradient_of_alpha_matches_finite_differences(merge: str, factory: bool) -> None:
    strategy, model = supernet(merge, factory)
    x = images(3)
    for alpha in strategy.arch_parameters():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)
    gradients = torch.autograd.grad((model(x) ** 2).sum(), strategy.arch_parameters())
    for alpha, gradient in zip(strategy.arch_parameters(), gradients):
        for index in range(len(alpha)):
            losses = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    alpha[index] += step
                    losses.append(float((model(x) ** 2).sum()))
                    alpha[index] -= step
            assert float(gradient[index]) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_perturbation_leaves_out_one_input() -> None:
    strategy, model = supernet('loose_end', True, nodes=2, operators=1)
    x = images(2)
    strategy.architecture.state.dropped['first/input_3_0'] = [0, 1]  # the second node reads the first
    assert model.first.loose(0) == 0.0
    before = model(x)
    with torch.no_grad():
        strategy.architecture.alpha('first/input_3_0').copy_(torch.randn(3))
    torch.testing.assert_close(model(x), before)
