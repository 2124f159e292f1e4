from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from nni_darts import Genotype
from nni_darts._nni import ModelSpace
from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.search_spaces import DartsRnnSpace, DartsSpace, Dropouts, NasBench201Space
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder, Reinforce
from nni_darts.strategies.relaxations import SampledPaths, Softmax
from nni_darts.strategies.relaxations.policies import Controller, draw
from nni_darts.strategies.selections import Magnitude, Ranking
from nni_darts.strategies.supernet import MixedOperation
from tests.helpers.spaces import Nested, TwoLabels
from tests.reference.policy import all_paths, objective


def supernet(name: str, space: ModelSpace, **settings: Any) -> tuple[DifferentiableStrategy, ModelSpace]:
    strategy = create_strategy(name, **settings)
    return strategy, strategy.mutate_model(space)


def toy() -> tuple[DifferentiableStrategy, Controller]:
    """A controller of any state over 3 layers × 2 of 3 inputs."""
    torch.manual_seed(3)
    strategy, _ = supernet('enas', TwoLabels(), hidden=5)
    policy = strategy.architecture.policy.double()
    for parameter in policy.parameters():
        nn.init.normal_(parameter)
    return strategy, policy


def reward(path: Any) -> float:
    return 0.3 * path['layer'][0] + (0.5 if path['features'] == (0, 2) else 0.1) + 0.07 * path['layer'][0] * path['features'][0]


@pytest.mark.parametrize('entropy_weight', [0.0, 0.2])
def test_the_policy_gradient_is_that_of_the_enumerated_expectation(entropy_weight: float) -> None:
    strategy, policy = toy()
    paths = all_paths(policy.follow)
    assert len(paths) == 3 * 3 * 2  # two inputs one after the other
    assert float(sum(log.detach().exp() for _, log in paths)) == pytest.approx(1, abs=1e-12)
    parameters = list(policy.parameters())
    expected = torch.autograd.grad(objective(paths, reward, entropy_weight), parameters, retain_graph=True, allow_unused=True)
    architect = Reinforce(entropy_weight=entropy_weight)
    # Whatever the baseline: it is the same for every path.
    for baseline in (0.0, 0.7):
        estimates = [log.exp().detach() * architect.surrogate({'baseline': baseline}, reward(path), log) for path, log in paths]
        gradient = torch.autograd.grad(sum(estimates), parameters, retain_graph=True, allow_unused=True)
        for found, wanted in zip(gradient, expected):
            assert (found is None) == (wanted is None)
            if found is not None:
                torch.testing.assert_close(-found, wanted, rtol=1e-9, atol=1e-12)


def test_paths_are_drawn_with_the_probabilities_of_the_controller() -> None:
    _, policy = toy()
    expected: Counter[Any] = Counter()
    for path, log in all_paths(policy.follow):
        expected[tuple(path.items())] += float(log.exp())
    torch.manual_seed(0)
    counts = Counter(tuple(policy.draw().items()) for _ in range(2000))
    for path, probability in expected.items():
        assert counts[path] / 2000 == pytest.approx(probability, abs=4 * math.sqrt(probability / 2000) + 1e-3)
    layers: Counter[Any] = Counter()
    for path, log in all_paths(policy.follow):
        layers[path['layer']] += float(log.exp())
    assert policy.best()['layer'] == max(layers, key=lambda layer: layers[layer])  # the first decision


def test_the_baseline_is_a_moving_average() -> None:
    memory: dict[str, Any] = {}
    architect = Reinforce(baseline_decay=0.9, entropy_weight=0.5)
    log = torch.tensor(-2.0, requires_grad=True)
    assert float(architect.surrogate(memory, 3.0, log)) == 0  # the first reward is the baseline
    assert memory['baseline'] == pytest.approx(4.0)
    assert float(architect.surrogate(memory, 1.0, log)) == pytest.approx((4.0 - 2.0) * -2.0)
    assert memory['baseline'] == pytest.approx(0.9 * 4.0 + 0.1 * 2.0)


def test_the_controller_finds_what_pays() -> None:
    torch.manual_seed(0)
    strategy, _ = supernet('enas', TwoLabels(), hidden=16, tanh_constant=2.5)
    policy, architect, memory = strategy.architecture.policy, Reinforce(baseline_decay=0.9), {}
    optimizer = torch.optim.Adam(policy.parameters(), 0.02)
    for _ in range(150):
        path, log = policy.follow(draw)
        optimizer.zero_grad()
        architect.surrogate(memory, reward(path), log).backward()
        optimizer.step()
    paths = [path for path, _ in all_paths(policy.follow)]
    assert reward(policy.best()) == max(map(reward, paths))


def test_uniform_paths() -> None:
    strategy, _ = supernet('random-ws', DartsSpace(channels=1, cells=3, nodes=2))
    torch.manual_seed(0)
    inputs: Counter[Any] = Counter()
    operations: Counter[str] = Counter()
    for _ in range(1500):
        path = strategy.architecture.policy.draw()
        inputs[path['normal_input_3']] += 1
        taken = [label for label in path if label.startswith('normal_op_3')]
        assert taken == [f'normal_op_3_{index}' for index in path['normal_input_3']]
        operations[strategy.architecture.sample_of(path)['reduce_op_2_0']] += 1
    assert len(inputs) == 3 and all(count == pytest.approx(500, abs=75) for count in inputs.values())
    assert len(operations) == 7 and 'none' not in operations
    assert all(count == pytest.approx(1500 / 7, abs=60) for count in operations.values())
    assert strategy.arch_parameters() == []
    table = strategy.probabilities()['normal_op_2_0']
    assert table['none'] == 0 and table['sep_conv_5x5'] == pytest.approx(1 / 7)


def computed(model: nn.Module, *inputs: Any) -> tuple[Any, int]:
    """What a supernet returns, and how many candidates it computes for that."""
    calls: list[int] = []
    hooks = [
        candidate.register_forward_hook(lambda *_: calls.append(1))
        for module in model.modules()
        if isinstance(module, MixedOperation)
        for candidate in module.candidates()
    ]
    output = model(*inputs)
    for hook in hooks:
        hook.remove()
    return output, len(calls)


@pytest.mark.parametrize('name', ['enas', 'random-ws'])
@pytest.mark.parametrize('space', ['darts', 'nasbench201'])
def test_only_the_sampled_path_is_computed_and_it_is_the_frozen_network(name: str, space: str) -> None:
    torch.manual_seed(0)
    made = DartsSpace(2, 4, nodes=2) if space == 'darts' else NasBench201Space(2, 3)
    strategy, model = supernet(name, made.double())
    model.eval()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):
        path = strategy.architecture.policy.draw()
        with strategy.architecture.viewed(path=path):
            output, calls = computed(model, images)
        # Two edges on each of two nodes of four cells, or six edges of three cells.
        assert calls == (16 if space == 'darts' else 18)
        frozen = copy.deepcopy(model).freeze(strategy.architecture.sample_of(path))
        torch.testing.assert_close(frozen.eval()(images), output, rtol=1e-10, atol=1e-12)


def test_recurrent_paths_are_the_frozen_network() -> None:
    torch.manual_seed(0)
    space = DartsRnnSpace(11, 6, 6, nodes=3, dropouts=Dropouts(0, 0, 0, 0, 0))
    strategy, model = supernet('enas', space.double())
    strategy.architecture.policy.double()
    tokens = torch.randint(11, (4, 3))
    model.eval()
    for _ in range(3):
        path = strategy.architecture.policy.draw()
        sample = strategy.architecture.sample_of(path)
        with strategy.architecture.viewed(path=path):
            output = model(tokens).logits
        assert RnnGenotype.from_sample(sample).nodes == 3
        torch.testing.assert_close(copy.deepcopy(model).freeze(sample)(tokens).logits, output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('name', ['enas', 'random-ws'])
@pytest.mark.parametrize(
    ('reduction', 'n_chosen'),
    [
        *((reduction, n_chosen) for reduction in ('sum', 'mean', 'concat') for n_chosen in (1, 2, 3)),
        # A concatenation of any number of them would have a width that depends on the choice.
        ('sum', None),
        ('mean', None),
    ],
)
def test_any_choice_of_inputs(name: str, reduction: str, n_chosen: int | None) -> None:
    torch.manual_seed(0)
    strategy, model = supernet(name, TwoLabels(reduction, n_chosen))
    images = torch.randn(5, 6)
    seen = set()
    for _ in range(30):
        path = strategy.architecture.policy.draw()
        seen.add(path['features'])
        with strategy.architecture.viewed(path=path):
            output = model(images)
        torch.testing.assert_close(copy.deepcopy(model).freeze(strategy.architecture.sample_of(path))(images), output)
    assert len(seen) == {1: 3, 2: 3, 3: 1, None: 7}[n_chosen]


def test_nested_choices() -> None:
    strategy, model = supernet('enas', Nested())
    for _ in range(8):
        path = strategy.architecture.policy.draw()
        with strategy.architecture.viewed(path=path):
            output = model(torch.ones(2, 4))
        torch.testing.assert_close(copy.deepcopy(model).freeze(strategy.architecture.sample_of(path))(torch.ones(2, 4)), output)


def test_validation_uses_the_statistics_of_its_batch_and_keeps_the_running_ones() -> None:
    torch.manual_seed(0)
    strategy, model = supernet('random-ws', DartsSpace(2, 3, nodes=1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(50.0)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    images = torch.randn(8, 3, 8, 8)
    with strategy.relaxation.validation_step(strategy.architecture, model):
        output = model(images)
        path = strategy.architecture.view.path
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert not any(module.training for module in model.modules())
    model.train()
    with strategy.architecture.viewed(path=path):
        torch.testing.assert_close(model(images), output)


def test_a_sample_is_a_cell() -> None:
    strategy, model = supernet('enas', DartsSpace(2, 3, nodes=3))
    genotype = Genotype.from_sample(strategy.select())  # until the ranking the most probable path
    assert genotype.nodes == 3
    assert 'none' not in {name for name, _ in (*genotype.normal, *genotype.reduce)}
    assert set(strategy.probabilities()) <= set(strategy.architecture.operations())


@pytest.mark.parametrize(
    ('parts', 'names'),
    [
        ((SampledPaths(), None, Magnitude()), 'Ranking'),
        ((Softmax(), FirstOrder(), Ranking()), 'SampledPaths'),
        ((SampledPaths(controller=True), FirstOrder(), Ranking()), 'Reinforce'),
        ((SampledPaths(), Reinforce(), Ranking()), 'Reinforce'),
        ((Softmax(), Reinforce(), Magnitude()), 'Reinforce'),
    ],
)
def test_parts_that_do_not_work_together(parts: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        DifferentiableStrategy(*parts)


@pytest.mark.parametrize(
    'settings',
    [
        {'hidden': 0},
        {'tanh_constant': 0.0},
        {'paths_per_step': 0},
        {'baseline_decay': 1.0},
        {'entropy_weight': -1.0},
        {'criterion': 'f1'},
        {'samples': 0},
        {'finalists': 0},
        {'batches': 0},
        {'batch_norm': 'none'},
    ],
)
def test_settings_outside_their_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        create_strategy('enas', **settings)


@pytest.mark.parametrize('name', ['enas+pt', 'random-ws+pt-mag'])
def test_there_is_no_alpha_to_select_by(name: str) -> None:
    with pytest.raises(ValueError, match='all but enas, random-ws, p-darts, random, evolution, proxy also'):
        create_strategy(name)
