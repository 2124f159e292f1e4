"""Shapley values against enumeration, and the selection that they make."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts import Genotype
from nni_darts._nni import LayerChoice, ModelSpace
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import NasBench201Space
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.architecture import Mask
from nni_darts.strategies.relaxations import BinaryGates, PartialChannels, Softmax
from nni_darts.strategies.relaxations.base import masked
from nni_darts.strategies.selections import Scoring, Shapley
from nni_darts.strategies.selections.contributions import Contributions, players_of
from nni_darts.strategies.selections.sharing import SharedResults
from tests.helpers.spaces import TwoLabels
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images
from tests.reference.shapley import marginals_in_order, shapley_by_orders, shapley_by_subsets
from tests.strategies.selections.test_limited import OfStrategy, check, searched
from tests.strategies.selections.test_perturbation import few, fit, loaders, space
from tests.strategies.selections.test_sharing import SHAPES, outputs, supernet


class FourOperations(ModelSpace):
    """A choice among four operations."""

    def __init__(self) -> None:
        super().__init__()
        candidates = [nn.Linear(6, 8), nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(6, 8, bias=False), nn.Linear(6, 8)]
        self.choice = LayerChoice(candidates, label='layer')
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.choice(x)))


def trained(criterion: str = 'accuracy', **settings: Any) -> Any:
    """Returns the module of a finished search with four operations, whose weights differ."""
    strategy = DifferentiableStrategy(architect=FirstOrder(), selection=Shapley(criterion=criterion, batches=None), **settings)
    whole = FourOperations()
    for number, candidate in enumerate(whole.choice):
        for parameter in candidate.parameters():
            parameter.data *= number + 1
    return fit(strategy, whole, loaders(2, 6, train=40, valid=40), classes=2)


def worth(module: Any, criterion: str) -> Any:
    """Returns a function that scores the supernet with some of its operations present, in one pass written out."""
    ((x, y), *more) = [batch for batch in module.validation_batches(None)[0]]
    x, y = torch.cat([x, *(batch[0] for batch in more)]), torch.cat([y, *(batch[1] for batch in more)])
    model, alpha = module.model, module.architecture.alpha('layer').detach()

    @torch.no_grad()
    def score(present: frozenset[int]) -> float:
        mixed = torch.zeros(len(x), 8, dtype=x.dtype)
        for index in present:
            mixed = mixed + torch.softmax(alpha, 0)[index] * model.choice.candidates()[index](x)
        logits = model.last(torch.tanh(mixed))
        return -float(functional.cross_entropy(logits, y)) if criterion == 'loss' else float((logits.argmax(1) == y).double().mean())

    return score


@pytest.mark.parametrize('criterion', ['accuracy', 'loss'])
def test_values_of_four_operations_are_those_of_enumeration(criterion: str) -> None:
    module = trained(criterion)
    module.architecture.state.fixed = {}
    score, everyone = worth(module, criterion), frozenset(range(4))
    assert shapley_by_orders(4, score) == pytest.approx(shapley_by_subsets(4, score), abs=1e-12)
    contributions = Contributions(Scoring(criterion, batches=None), 1, 0.0)
    orders, total = list(permutations(range(4))), torch.zeros(4, dtype=torch.float64)
    for order in orders:
        found = contributions.marginals(module.architecture, [('layer', index) for index in order], score(everyone), module)
        expected = marginals_in_order(order, score)
        assert found.tolist() == pytest.approx([expected[player] for player in order], abs=1e-9)
        assert float(found.sum()) == pytest.approx(score(everyone) - score(frozenset()), abs=1e-9)
        total[list(order)] += found / len(orders)
    assert total.tolist() == pytest.approx(shapley_by_subsets(4, score), abs=1e-9)


class Ordered(Contributions):
    """Has marginals from a function of the players present, and keeps the orders."""

    def scores(self, architecture: Any, order: Sequence[Any], ends: Sequence[int], module: Any) -> list[float]:
        return [module(frozenset(index for _, index in order[end:])) for end in ends]


@pytest.mark.parametrize('count', [1, 5])
def test_a_value_is_the_mean_less_the_standard_deviation_over_seeded_orders(count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    table = {
        frozenset(present): float(torch.rand((), generator=generator)) for size in range(5) for present in permutations(range(4), size)
    }
    players = [('layer', index) for index in range(4)]
    torch.manual_seed(7)
    found = Ordered(Scoring(), count, 0.0).values(None, players, table.__getitem__)  # type: ignore[arg-type]
    torch.manual_seed(7)
    orders = [torch.randperm(4).tolist() for _ in range(count)]
    each = [marginals_in_order(order, table.__getitem__) for order in orders]
    for label, index in players:
        marginals = torch.tensor([marginal[index] for marginal in each], dtype=torch.float64)
        mean = float(marginals.mean())
        deviation = float(((marginals - mean) ** 2).mean().sqrt())
        assert found[label, index] == pytest.approx(mean - deviation, abs=1e-12)


@pytest.mark.parametrize(
    ('truncation', 'scores', 'kept'),
    [
        (0.5, [0.8, 0.7, 0.39, 0.6, 0.1], 2),  # below half of 0.8
        (0.5, [0.8, 0.7, 0.41, 0.6, 0.4], 4),
        (0.0, [0.8, 0.7, 0.0, 0.6, 0.1], 4),
        (0.5, [-1.0, -1.5, -2.1, -1.2, -3.0], 2),  # a loss above twice 1.0
        (0.5, [-1.0, -1.5, -1.9, -1.2, -2.0], 4),
        (0.0, [-1.0, -1.5, -2.1, -1.2, -9.0], 4),
    ],
)
def test_an_order_ends_where_the_supernet_is_worth_little(truncation: float, scores: list[float], kept: int) -> None:
    players = [('layer', index) for index in range(4)]
    found = Ordered(Scoring(), 1, truncation).marginals(None, players, scores[0], lambda present: scores[4 - len(present)])  # type: ignore[arg-type]
    expected = [scores[index] - scores[index + 1] if index < kept else 0.0 for index in range(4)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_values_may_be_left_out_like_operations() -> None:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    for gone, expected in ((set(), [0.2, 0.5, 0.3]), ({1}, [0.2, 0.0, 0.3]), ({0, 2}, [0.0, 0.5, 0.0]), ({0, 1, 2}, [0.0] * 3)):
        assert masked(weights, Mask('x', frozenset(gone))).tolist() == expected


def test_a_supernet_without_any_operation_computes_zero() -> None:
    strategy = DifferentiableStrategy(Softmax())
    model = strategy.mutate_model(FourOperations())
    with strategy.architecture.viewed(mask={'layer': Mask('layer', frozenset(range(4)))}):
        assert torch.equal(model.choice(torch.ones(2, 6)), torch.zeros(2, 8))


@pytest.mark.parametrize('relaxation', [Softmax, lambda: PartialChannels(2), lambda: BinaryGates('two')])
@pytest.mark.parametrize('name', ['darts of two nodes', *SHAPES])
def test_shared_results_are_those_of_full_passes(name: str, relaxation: Any) -> None:
    made = relaxation()
    if isinstance(made, PartialChannels) and name != 'darts of two nodes':
        return
    architecture, model = supernet(name, made)
    players = players_of(architecture, architecture.operations())
    order = [players[place] for place in torch.randperm(len(players), generator=torch.Generator().manual_seed(0)).tolist()]
    batch = torch.randn(*SHAPES.get(name, (8, 1, 8, 8)), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for start in range(0, len(order), 5):
        views = []
        for end in range(start + 1, min(start + 5, len(order)) + 1):
            gone = {label: frozenset(index for known, index in order[:end] if known == label) for label, _ in order}
            views.append({label: Mask(label, indices) for label, indices in gone.items()})
        expected = outputs(architecture, model, [batch], views)  # type: ignore[arg-type]
        differing = {label for label, _ in order[start + 1 : start + 5]}
        with SharedResults(model, architecture, *differing) as shared:
            assert all(map(torch.equal, outputs(architecture, model, [batch], views, shared), expected))  # type: ignore[arg-type]


class Kept(Shapley):
    """Keeps the values."""

    def decide(self, architecture: Any, module: Any) -> list[dict[str, Any]]:
        values = self.contributions.values

        def kept(*arguments: Any) -> Any:
            self.found = values(*arguments)
            return self.found

        object.__setattr__(self.contributions, 'values', kept)
        return super().decide(architecture, module)


def test_the_cell_has_the_operations_and_inputs_with_the_largest_values() -> None:
    selection = Kept(criterion='loss', permutations=3, truncation=0.0)
    strategy = DifferentiableStrategy(architect=FirstOrder(), selection=selection)
    fit(strategy, space(), few(1, 8, 8))
    architecture, found = strategy.architecture, selection.found
    sample = strategy.select()
    assert Genotype.from_sample(sample).nodes == 3 and len(found) == 18 * 3
    best = {}
    for label, decision in architecture.operations().items():
        values = [found[label, index] for index in range(3)]
        best[label] = max(values)
        assert sample[label] == decision.names[values.index(max(values))]
    for label, decision in architecture.inputs().items():
        strongest = sorted(range(decision.candidates), key=lambda index: -best[decision.edges[index]])[:2]
        assert sample[label] == sorted(strongest)
    records = architecture.state.history
    assert len(records) == selection.decisions(architecture) == 18 + 2 * (1 + 2)
    assert all(record['margin'] >= 0 for record in records)
    for record in records:
        dropped = record['stage'] == 'topology'
        assert record['choice'] == record['candidates'][record['scores'].index((max if dropped else min)(record['scores']))]
    assert sum(count for count, _ in selection.scored(architecture)) == 1 + 3 * 18 * 3


@pytest.mark.parametrize('limit', [500, 1503, 2500, 4000])
def test_the_cell_is_within_the_limits(limit: int) -> None:
    for seed in range(15):
        selection = Shapley()
        strategy = searched(selection, limit, seed)
        numbers = torch.randn(1000, generator=torch.Generator().manual_seed(seed)).tolist()

        def values(architecture: Any, players: Sequence[Any], module: Any, numbers: list[float] = numbers) -> dict[Any, float]:
            return dict(zip(players, numbers))

        object.__setattr__(selection.contributions, 'values', values)
        selection.decide(strategy.architecture, OfStrategy(strategy))  # type: ignore[arg-type]
        check(strategy)
        assert selection._decided(strategy.architecture)


@pytest.mark.parametrize('name', ['darts-1st+shapley', 'sgas+shapley', 'proxyless+shapley'])
def test_names(name: str) -> None:
    selection = create_strategy(name, permutations=3, criterion='loss').selection
    made = selection.operations if name.startswith('sgas') else selection
    assert isinstance(made, Shapley) and made.contributions.permutations == 3


def test_a_users_space_and_one_without_inputs_are_decided() -> None:
    for made, data, classes in ((TwoLabels(), loaders(2, 6), 2), (NasBench201Space(2, 3, 4, 1), few(1, 8, 8), 4)):
        if isinstance(made, TwoLabels):
            made.last = nn.Linear(8, 2)
        selection = Shapley(permutations=2, criterion='loss')
        strategy = DifferentiableStrategy(architect=FirstOrder(), selection=selection)
        fit(strategy, made, data, classes=classes)
        assert len(strategy.architecture.state.history) == selection.decisions(strategy.architecture)
        assert set(strategy.select()) == set(strategy.architecture.decisions)


def test_a_search_interrupted_at_its_decisions_resumes_with_the_same_ones(tmp_path: Path) -> None:
    changes = {'space.nodes': 1, 'search.settings.darts-1st+shapley': {'permutations': 2}}
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **changes})
    one, other = broken_and_resumed(recipe, 'darts-1st+shapley', tmp_path)
    assert one[0] == other[0] and measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    decided = [(tmp_path / name / 'selection.jsonl').read_text() for name in ('broken', 'unbroken')]
    assert decided[0] == decided[1] and decided[0].count('\n') == 4
