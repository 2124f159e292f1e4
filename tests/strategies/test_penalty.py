"""The expected cost under α, its gradient, and penalties on it."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.profiler.pytorch.flops import NumParamsProfiler
from torch import nn

from nni_darts._nni import LayerChoice, ModelSpace
from nni_darts.errors import InputError
from nni_darts.genotypes.costs import CostTable, JointCosts, chosen_candidates
from nni_darts.genotypes.neighbours import Choices
from nni_darts.recipes import Recipe
from nni_darts.runs.cost_limits import program_of
from nni_darts.runs.cost_tables import cost_table
from nni_darts.runs.costs import cost_of
from nni_darts.runs.tasks import task_of
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects.reinforce import Reinforce
from nni_darts.strategies.architecture import Architecture, InputDecision, OperationDecision
from nni_darts.strategies.penalty import CostPenalty, Penalties, expected_cost, of_nni
from nni_darts.strategies.relaxations import PartialChannels, Softmax
from nni_darts.strategies.relaxations.policies import Controller, draw
from tests.helpers import running, tiny
from tests.helpers.hub import HUB, of_the_hub

CERTAIN = 1000.0


def architecture_of(recipe: Recipe) -> Architecture:
    strategy = DifferentiableStrategy()
    strategy.mutate_model(task_of(recipe).space(recipe, task_of(recipe).shape(recipe)))
    return strategy.architecture


@pytest.mark.parametrize('space', ['darts', 's3', 'nasbench201'])
def test_the_expected_cost_of_a_certain_alpha_is_that_of_the_command_exactly(space: str) -> None:
    changes: dict[str, Any] = {'space.name': space, 'space.channels': 4, 'space.cells': 3, 'space.nodes': 4}
    changes |= {'retrain.channels': 6, 'retrain.cells': 3}
    recipe = Recipe.load('digits', changes)
    architecture, rng, data = architecture_of(recipe), random.Random(1), task_of(recipe).shape(recipe)
    table = cost_table(recipe, data)
    for _ in range(12):
        cell = recipe.space.random_cell(rng)
        sample = recipe.space.sample_of(cell)
        chosen = {edge for edges in cell.edges().values() for edge, _ in edges}
        for label, decision in architecture.operations().items():
            name = sample[label] if label in chosen else 'none'
            architecture.alpha(label).data = torch.full((len(decision.names),), -CERTAIN).double()
            architecture.alpha(label).data[decision.names.index(name)] = CERTAIN
        for measure, amount in cost_of(cell, recipe, data).items():
            assert expected_cost(architecture, Softmax(), table, measure).item() == amount


def test_the_expected_cost_of_a_certain_alpha_is_exact_where_layers_share_choices() -> None:
    recipe = of_the_hub('MobileNetV3Space', HUB['MobileNetV3Space'])
    data = task_of(recipe).shape(recipe)
    table, space = cost_table(recipe, data), recipe.space.on_data(lambda: task_of(recipe).facts(data))
    architecture, rng = architecture_of(recipe), random.Random(2)
    assert table.joint and table.labels == set(architecture.operations())
    for _ in range(4):
        network = space.random_cell(rng)
        for label, value in space.sample_of(network).items():
            names = architecture.operations()[label].names
            architecture.alpha(label).data = torch.full((len(names),), -CERTAIN).double()
            architecture.alpha(label).data[names.index(value)] = CERTAIN
        for measure, amount in cost_of(network, recipe, data).items():
            assert expected_cost(architecture, Softmax(), table, measure).item() == amount


def small(weighted: bool = False) -> tuple[Architecture, CostTable]:
    """Returns a cell of one node with two of three edges, a choice of operations, and a choice of two of three inputs."""
    torch.manual_seed(3)
    architecture, names = Architecture(), ('none', 'a', 'b')
    for index in range(3):
        architecture.declare(f'edge{index}', OperationDecision(names))
    architecture.declare('node', InputDecision(3, 2, ('edge0', 'edge1', 'edge2'), weighted=weighted))
    architecture.declare('free', OperationDecision(names))
    architecture.declare('inputs', InputDecision(3, 2))
    for alpha in architecture.arch_parameters():
        alpha.data = torch.randn(len(alpha)).double()
    rng = random.Random(4)
    amounts = {label: {name: {'cost': rng.randrange(1, 50)} for name in names} for label in architecture.operations()}
    return architecture, CostTable({'cost': 10}, {**amounts, 'inputs': {index: {'cost': 3 + index**2} for index in range(3)}})


@pytest.mark.parametrize('weighted', [False, True])
def test_the_expectation_is_the_sum_over_all_architectures(weighted: bool) -> None:
    architecture, table = small(weighted)
    p = {label: torch.softmax(architecture.alpha(label), 0).tolist() for label in architecture.operations()}
    beta = torch.softmax(architecture.alpha('node'), 0).tolist() if weighted else [1.0] * 3
    scores, expected, total = architecture.alpha('inputs').tolist(), 0.0, 0.0
    for pair, inputs in itertools.product(itertools.combinations(range(3), 2), repeat=2):
        for first, second, free in itertools.product((1, 2), (1, 2), (0, 1, 2)):
            weight = math.prod(beta[index] for index in pair) * p[f'edge{pair[0]}'][first] * p[f'edge{pair[1]}'][second]
            weight *= p['free'][free] * math.exp(sum(scores[index] for index in inputs))
            cost = 10 + sum(table.added('inputs', index)['cost'] for index in inputs)
            for label, operation in ((f'edge{pair[0]}', first), (f'edge{pair[1]}', second), ('free', free)):
                cost += table.added(label, ('none', 'a', 'b')[operation])['cost']
            expected, total = expected + weight * cost, total + weight
    assert expected_cost(architecture, Softmax(), table, 'cost').item() == pytest.approx(expected / total, rel=1e-12)


def joint() -> tuple[Architecture, CostTable]:
    """Returns three choices, two of which share a cost with the third."""
    torch.manual_seed(5)
    architecture, values, rng = Architecture(), {'width': (8, 16, 24), 'kernel': (3, 5), 'depth': (0, 1)}, random.Random(6)
    for label, of in values.items():
        architecture.declare(label, OperationDecision(of))
        architecture.alpha(label).data = torch.randn(len(of)).double()
    parts = []
    for labels in (('depth', 'width'), ('kernel', 'width')):
        shared = {label: values[label] for label in labels}
        parts.append(JointCosts(shared, {'cost': [rng.randrange(50) for _ in itertools.product(*shared.values())]}))
    return architecture, CostTable({'cost': 10}, {'kernel': {3: {'cost': 4}, 5: {'cost': 9}}}, parts)


def test_the_expectation_of_joint_costs_is_the_sum_over_all_architectures() -> None:
    architecture, table = joint()
    p = {label: torch.softmax(architecture.alpha(label), 0).tolist() for label in architecture.operations()}
    names, expected = {label: decision.names for label, decision in architecture.operations().items()}, 0.0
    choices = Choices(names)
    for combination in itertools.product(*names.values()):
        sample = dict(zip(names, combination))
        probability = math.prod(p[label][names[label].index(value)] for label, value in sample.items())
        expected += probability * table.of(choices, sample)['cost']
    assert expected_cost(architecture, Softmax(), table, 'cost').item() == pytest.approx(expected, rel=1e-12)

    def cost(*alphas: Any) -> Any:
        return expected_cost(architecture, Softmax(), table, 'cost')

    assert torch.autograd.gradcheck(cost, tuple(architecture.arch_parameters()), eps=1e-6, atol=1e-7)
    path = {'width': (2,), 'kernel': (0,), 'depth': (1,)}
    score = Penalties(table, (CostPenalty('cost', 30, 0.4),)).on_score(torch.tensor(0.5), architecture, path)
    of_path = table.of(choices, {'width': 24, 'kernel': 3, 'depth': 1})['cost']
    assert float(score) == pytest.approx(0.5 - 0.4 * (of_path / 30 - 1))


@pytest.mark.parametrize('nonlinear', ['linear', 'positive', 'negative', 'absolute'])
@pytest.mark.parametrize('aggregate', ['add', 'mul'])
@pytest.mark.parametrize('weighted', [False, True])
def test_gradients_are_those_of_finite_differences(nonlinear: Any, aggregate: Any, weighted: bool) -> None:
    for target in (20, 500):
        architecture, table = small(weighted)
        penalties = Penalties(table, (CostPenalty('cost', target, 0.7, nonlinear, aggregate),))

        def loss(*alphas: Any) -> Any:
            return penalties.on_loss(sum((alpha**2).sum() for alpha in alphas), architecture, Softmax())  # noqa: B023

        assert torch.autograd.gradcheck(loss, tuple(architecture.arch_parameters()), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize('nonlinear', ['linear', 'positive', 'negative', 'absolute'])
@pytest.mark.parametrize('aggregate', ['add', 'mul'])
def test_values_are_those_of_nnis_formula(nonlinear: Any, aggregate: Any) -> None:
    theirs = ExpectationProfilerPenalty(None, 30.0, 0.4, nonlinear=nonlinear, aggregate=aggregate)  # type: ignore[arg-type]
    for cost in (12.0, 30.0, 45.0):
        expected = theirs.aggregate_fn(torch.tensor(2.0), theirs.nonlinear_fn(cost / 30 - 1))
        found = CostPenalty('cost', 30, 0.4, nonlinear, aggregate).on(torch.tensor(2.0), torch.tensor(cost).double())
        torch.testing.assert_close(found, expected)
    score = Penalties(CostTable({'cost': 45}, {}), (CostPenalty('cost', 30, 0.4, nonlinear, aggregate),))
    for reward in (0.7, -0.7):
        lowered = float(score.on_score(torch.tensor(reward), Architecture(), {}))
        assert lowered < reward or (nonlinear == 'negative' and lowered == pytest.approx(reward))


class Layers(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 4))
        self.first = LayerChoice({'narrow': nn.Linear(4, 4, bias=False), 'wide': wide}, label='a')
        self.second = LayerChoice({'plain': nn.Linear(4, 2), 'none': nn.Linear(4, 2, bias=False)}, label='b')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_penalty_objects_of_nni_get_a_gradient() -> None:
    profiler = NumParamsProfiler(Layers(), torch.rand(1, 4))
    penalty = ExpectationProfilerPenalty(profiler, 30.0, 0.5)
    strategy = DifferentiableStrategy()
    strategy.mutate_model(Layers())
    architecture = strategy.architecture
    for alpha in architecture.arch_parameters():
        alpha.data = torch.randn(2).double()
    base = {'a': 'narrow', 'b': 'plain'}
    others = {'a': 'wide', 'b': 'none'}
    loss = of_nni(penalty, torch.tensor(1.0).double(), architecture, Softmax())
    loss.backward()
    for label in ('a', 'b'):
        p = torch.softmax(architecture.alpha(label).detach(), 0)
        more = profiler.profile({**base, label: others[label]}) - profiler.profile(base)
        difference = 0.5 / 30 * more * p[0] * p[1]  # ∂E/∂α_i = Σ_j F_j p_j (δ_ij − p_i)
        torch.testing.assert_close(architecture.alpha(label).grad, torch.stack([-difference, difference]))


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


SEARCHES = ('darts-1st', 'darts-2nd', 'darts-joint', 'darts-coordinate', 'gdas', 'pc-darts', 'sdarts-rs', 'p-darts')


@pytest.mark.parametrize('strategy', SEARCHES)
def test_a_large_weight_finds_the_cheapest_cell(strategy: str, images: Path, tmp_path: Path) -> None:
    changes = {**tiny.overrides(images), **tiny.SMALL, 'space.channels': 4, 'search.epochs': 4, 'search.architecture_learning_rate': 0.3}
    changes |= {'search.penalty.parameters': {'target': 1000, 'weight': 1000.0}, 'search.settings.p-darts.max_skips': 100}
    recipe = Recipe.load('digits', {**changes, 'search.warmup_epochs': 0})
    program = program_of(recipe.changed({'limits.parameters': '1G'}, source=''), task_of(recipe).shape(recipe))
    assert program is not None
    _, result = running.search(recipe, strategy, 1, tmp_path / 'out')
    assert result['parameters'] == program.cheapest('parameters')


@pytest.mark.parametrize(
    ('relaxation', 'space', 'measure'),
    [
        (Softmax, 'darts', 'parameters'),
        (Softmax, 's3', 'multiply_adds'),
        (Softmax, 'nasbench201', 'multiply_adds'),
        (PartialChannels, 'darts', 'parameters'),
        (PartialChannels, 'nasbench201', 'multiply_adds'),
    ],
)
def test_as_the_weight_grows_the_cell_goes_from_the_one_with_the_least_loss_to_the_cheapest(
    relaxation: type[Softmax], space: str, measure: str
) -> None:
    changes: dict[str, Any] = {'space.name': space, 'space.channels': 4, 'space.cells': 3, 'space.nodes': 4}
    recipe = Recipe.load('digits', {**changes, 'retrain.channels': 4, 'retrain.cells': 3, 'limits.parameters': '1G'})
    data = task_of(recipe).shape(recipe)
    program, table = program_of(recipe, data), cost_table(recipe, data)
    assert program is not None
    operations = program.choices.operations
    dearest = {label: max(names, key=lambda name: table.added(label, name).get(measure, 0)) for label, names in operations.items()}
    found = []
    for weight in (1e-6, 999_999.0):
        torch.manual_seed(1)
        strategy = DifferentiableStrategy(relaxation())
        strategy.mutate_model(task_of(recipe).space(recipe, data))
        architecture, penalties = strategy.architecture.double(), Penalties(table, (CostPenalty(measure, 1000, weight),))
        for alpha in architecture.arch_parameters():
            alpha.data.normal_()
        optimizer = torch.optim.Adam(architecture.arch_parameters(), lr=0.5)
        for _ in range(50):
            # The loss of a supernet that does best with the dearest operation on every edge.
            chances = [torch.log_softmax(architecture.alpha(label), 0) for label in operations]
            indices = [decision.names.index(dearest[label]) for label, decision in architecture.operations().items()]
            loss = -torch.stack([chance[index] for chance, index in zip(chances, indices)]).sum()
            optimizer.zero_grad()
            penalties.on_loss(loss, architecture, strategy.relaxation).backward()
            optimizer.step()
        found.append(strategy.select())
    wanted, cheapest = found
    assert all(value == dearest[label] for label, value in chosen_candidates(program.choices, wanted) if label in operations)
    assert table.of(program.choices, cheapest)[measure] == program.cheapest(measure) < table.of(program.choices, wanted)[measure]


def test_the_controller_learns_to_draw_cheap_paths() -> None:
    architecture, table = small()
    architecture.draw_from(Controller(architecture))
    policy, architect = architecture.policy, Reinforce(baseline_decay=0.9)
    assert policy is not None
    penalties = Penalties(table, (CostPenalty('cost', 50, 1.0),))

    def mean_penalty() -> float:
        return sum(0.5 - float(penalties.on_score(torch.tensor(0.5), architecture, policy.draw())) for _ in range(100)) / 100

    before, optimizer = mean_penalty(), torch.optim.Adam(policy.parameters(), lr=0.01)
    for _ in range(300):
        path, log_probability = policy.follow(draw)
        reward = float(penalties.on_score(torch.tensor(0.5), architecture, path))
        optimizer.zero_grad()
        architect.surrogate(architecture.state.memory, reward, log_probability).backward()
        optimizer.step()
    assert mean_penalty() < before - 0.1


def test_the_reward_of_a_search_includes_the_penalty(images: Path, tmp_path: Path) -> None:
    found = []
    for weight in (0.01, 5.0):
        changes = {**tiny.overrides(images), **tiny.SMALL, 'search.penalty.parameters': {'target': 5000, 'weight': weight}}
        running.search(Recipe.load('digits', changes), 'enas', 1, tmp_path / str(weight))
        found.append(json.loads((tmp_path / str(weight) / 'metrics.jsonl').read_text().splitlines()[-1])['probabilities'])
    assert found[0] != found[1]


def test_strategies_that_do_not_move_alpha_and_text_are_refused(images: Path, tmp_path: Path) -> None:
    penalty = {'search.penalty.multiply_adds': {'target': '1M', 'weight': 0.2}}
    recipe = Recipe.load('digits', {**tiny.overrides(images), **penalty})
    for strategy in ('fixed-alpha', 'random-ws'):
        with pytest.raises(InputError, match='search.penalty is a term of the loss of α, and this strategy does not move α'):
            running.search(recipe, strategy, 1, tmp_path / strategy)
    text = Recipe.load('pydoc', {**tiny.text_overrides(tiny.write_text(tmp_path)), **penalty})
    with pytest.raises(InputError, match='all recurrent cells of a size cost the same'):
        running.search(text, 'darts-1st', 1, tmp_path / 'text')
    with pytest.raises(InputError, match=r'search\.penalty'):
        Recipe.load('digits', {'search.penalty': {'multiply_adds': {'target': 'few', 'weight': 1.0}}})
