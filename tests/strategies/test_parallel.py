"""A search on several ranks is the search on one, where no statistics of a batch are in between; and ranks are the same, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts._nni import DataLoader, Lightning, ModelSpace
from nni_darts.data import ImageDataModule, load_images
from nni_darts.errors import RankLost
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import create_strategy
from nni_darts.training import ImageClassifier
from tests.helpers.fitting import fit, trainer
from tests.helpers.ranks import on_ranks
from tests.helpers.spaces import TwoLabels

CASES = {
    'darts-1st': ('darts-1st', {}, False),
    'darts-2nd': ('darts-2nd', {}, False),
    'darts-2nd clipped as for text': ('darts-2nd', {'clip_norm': 0.05}, False),
    'darts-2nd exact': ('darts-2nd', {'hessian': 'exact'}, False),
    'darts-2nd unrolled': ('darts-2nd', {'hessian': 'exact', 'unroll': 3}, False),
    'idarts': ('idarts', {'weight_steps': 2}, False),
    'joint': ('darts-joint', {}, False),
    'coordinate': ('darts-coordinate', {}, False),
    'sdarts-rs': ('sdarts-rs', {}, False),
    'sdarts-adv': ('sdarts-adv', {'steps': 2}, False),
    'gdas': ('gdas', {}, False),
    'snas': ('snas', {}, False),
    'proxyless': ('proxyless', {'paths': 'two', 'weight_steps': 1}, False),
    'reinmax': ('reinmax', {}, False),
    'enas': ('enas', {'samples': 6, 'finalists': 2, 'criterion': 'loss', 'paths_per_step': 2}, False),
    'pt': ('darts-1st+pt', {'criterion': 'loss', 'epochs_between': 1}, False),
    'shapley': ('darts-1st+shapley', {'criterion': 'loss', 'permutations': 2, 'batches': None}, False),
    'sgas': ('sgas', {'batch_increase': 0}, False),
    'cells, darts-2nd': ('darts-2nd', {}, True),
    'cells, pc-darts': ('pc-darts', {'portion': 2, 'warmup_epochs': 0}, True),
    'beta': ('beta-darts', {}, False),
    'gaea': ('gaea-darts', {}, False),
    'drnas': ('drnas', {}, False),
    'oles': ('oles', {'regularise': {'oles': {'threshold': 0.9, 'steps': 2, 'gradient': 'validation'}}}, False),
    'cells, lambda': ('lambda-darts', {}, True),
    'cells, darts-minus': ('darts-minus', {}, True),
    'cells, early stopping': ('darts-2nd', {'early_stopping': {'ratio': 0, 'iterations': 3}}, True),
}
"""Strategy, settings, and whether cells are searched, or else single layers."""


def batches(count: int, seed: int, *shape: int) -> DataLoader:
    """Of eight samples each, and one of seven, which no two ranks can halve; each rank gets its part."""
    generator = torch.Generator().manual_seed(seed)
    whole = []
    for index in range(count):
        size = 7 if index == 1 else 8
        inputs = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
        whole.append((inputs, torch.randint(2, (size,), generator=generator)))
    return DataLoader([tuple(map(parallel.part, batch)) for batch in whole], batch_size=None)


def small_cells() -> ModelSpace:
    """Cells without statistics of a batch: every sample is normalised by itself."""
    space = DartsSpace(2, 3, 2, 1, 2, operations=('none', 'max_pool_3x3', 'skip_connect', 'sep_conv_3x3'))

    def replace(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features, affine=child.affine))
            replace(child)

    replace(space)
    return space


def searched(name: str, settings: dict[str, Any], cells: bool, epochs: int) -> dict[str, Any]:
    """Everything that a search leaves: of the weights, α, both optimizers and measurements."""
    torch.set_default_dtype(torch.float64)
    shape = (1, 6, 6) if cells else (6,)
    space = small_cells() if cells else TwoLabels()
    space(torch.zeros(2, *shape))  # its last layer takes its size from what it sees
    strategy = create_strategy(name, execution='plain', learning_rate=0.1, gradient_clip_val=0.3, **settings)
    module = fit(strategy, space, (batches(3, 1, *shape), batches(3, 2, *shape)), epochs=epochs, classes=2)
    states = [optimizer.state_dict()['state'] for optimizer in module.trainer.optimizers]
    return {
        'weights': [parameter.detach() for parameter in module.model.parameters()],
        'alpha': [alpha.detach() for alpha in strategy.arch_parameters()],
        'optimizers': [value for state in states for entry in state.values() for value in entry.values() if isinstance(value, Tensor)],
        'metrics': {key: float(value) for key, value in module.trainer.callback_metrics.items()},
        'history': [[record['choice'], record['scores']] for record in strategy.architecture.state.history],
        'cell': {label: str(value) for label, value in strategy.select().items()},
    }


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True) if a.numel())


def scored(criterion: str) -> list[Any]:
    """Decisions with their scores, in a supernet that nothing changes, on batches with whose statistics it normalises."""
    torch.manual_seed(0)
    settings = Recipe.load('digits').data
    images = ImageDataModule(load_images(settings), settings, train_portion=0.9, batch_size=50, seed=1)
    strategy = create_strategy('fixed-alpha+pt', criterion=criterion, epochs_between=1, batches=2 if criterion == 'loss' else None)
    space = DartsSpace(2, 3, 10, 1, 1, operations=('skip_connect', 'sep_conv_3x3'))
    module = ImageClassifier(10, 1, learning_rate=0.0, min_learning_rate=0.0, weight_decay=0.0)
    short = trainer(1, precision='64-true', num_sanity_val_steps=0, limit_train_batches=1)
    model = strategy.mutate_model(space)
    strategy.mutate_evaluator(Lightning(module, short, datamodule=images)).evaluate(model)
    return [[record['label'], record['choice'], record['scores']] for record in strategy.architecture.state.history]


def all_runs() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for case, (name, settings, cells) in CASES.items():
        torch.manual_seed(0)
        results[case] = searched(name, settings, cells, epochs=2 if name == 'lambda-darts' or not cells else 1)
    return {**results, 'accuracy': scored('accuracy'), 'loss': scored('loss'), 'difference': different_on_each()}


def different_on_each() -> str:
    """What is said where ranks have different numbers."""
    parallel.must_agree('zeros', torch.zeros(3))
    try:
        parallel.must_agree('numbers', torch.zeros(3), torch.tensor(float(parallel.rank())))
    except RankLost as error:
        return str(error)
    return ''


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process leaves, and each of two ranks."""
    folder = tmp_path_factory.mktemp('ranks')
    return [*on_ranks(1, folder / 'one', all_runs), *on_ranks(2, folder / 'two', all_runs)]


@pytest.mark.parametrize('case', CASES)
def test_two_ranks_are_one_process(case: str, results: list[dict[str, Any]]) -> None:
    alone, *ranks = [result[case] for result in results]
    for kind in ('weights', 'alpha', 'optimizers'):
        assert difference(ranks[0][kind], ranks[1][kind]) == 0
        assert difference(ranks[0][kind], alone[kind]) < 1e-10
    assert ranks[0]['cell'] == ranks[1]['cell'] == alone['cell']
    assert ranks[0]['history'] == ranks[1]['history']
    assert [choice for choice, _ in ranks[0]['history']] == [choice for choice, _ in alone['history']]
    assert ranks[0]['metrics'] == ranks[1]['metrics'] == pytest.approx(alone['metrics'], rel=1e-6)


@pytest.mark.parametrize('criterion', ['accuracy', 'loss'])
def test_shared_scoring_is_that_of_one_process(criterion: str, results: list[dict[str, Any]]) -> None:
    """Batch norm sees whole batches, of which each rank scores every second one."""
    alone, *ranks = [result[criterion] for result in results]
    assert ranks[0] == ranks[1] and len(alone) == 4
    for (label, choice, scores), expected in zip(ranks[0], alone, strict=True):
        assert [label, choice] == expected[:2]
        assert scores == (expected[2] if criterion == 'accuracy' else pytest.approx(expected[2], rel=1e-12))


def test_ranks_that_differ_are_noticed(results: list[dict[str, Any]]) -> None:
    alone, *ranks = [result['difference'] for result in results]
    assert alone == '' and all('do not have the same numbers' in said for said in ranks)
