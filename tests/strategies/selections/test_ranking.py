from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.relaxations import SampledPaths
from nni_darts.strategies.selections import Ranking
from tests.helpers.fitting import fit
from tests.helpers.stopping import broken_and_resumed
from tests.helpers.tiny import overrides, write_images

OPERATIONS = ['none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3']


def loaders() -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> TensorDataset:
        images = torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)
        return TensorDataset(images, torch.randint(4, (count,), generator=generator))

    return DataLoader(part(24), batch_size=8, shuffle=True), DataLoader(part(20), batch_size=8)


class Watched(Ranking):
    """Remembers what is drawn, and sees that nothing else changes."""

    def decide(self, architecture: Any, module: Any) -> list[dict[str, Any]]:
        self.drawn: list[Any] = []
        original = architecture.policy.draw

        def draw() -> Any:
            self.drawn.append(original())
            return self.drawn[-1]

        architecture.policy.draw = draw
        before = [tensor.detach().clone() for tensor in (*module.parameters(), *module.buffers())]
        written = super().decide(architecture, module)
        assert all(map(torch.equal, before, (*module.parameters(), *module.buffers())))
        del architecture.policy.draw
        return written


def brute_force(model: Any, strategy: DifferentiableStrategy, path: Any, data: list[Any], criterion: str) -> float:
    """The frozen network with the supernet's weights on whole batches, each normalised by itself."""
    network = copy.deepcopy(model).freeze(strategy.architecture.sample_of(path)).train()
    with torch.no_grad():
        logits, labels = torch.cat([network(images) for images, _ in data]), torch.cat([labels for _, labels in data])
    if criterion == 'accuracy':
        return float((logits.argmax(1) == labels).double().mean())
    return -float(functional.cross_entropy(logits, labels))


def key(path: Any) -> tuple:
    return tuple(sorted(path.items()))


@pytest.mark.parametrize('criterion', ['accuracy', 'loss'])
def test_ranks_by_shared_weight_validation(criterion: str) -> None:
    torch.manual_seed(1)
    selection = Watched(samples=6, finalists=3, criterion=criterion)
    strategy = DifferentiableStrategy(SampledPaths(), selection=selection)
    train, valid = loaders()
    module = fit(strategy, DartsSpace(2, 3, 4, 1, nodes=2, operations=OPERATIONS), (train, valid), classes=4)
    data = list(valid)
    unique = list({key(path): path for path in selection.drawn}.values())
    on_one = {key(path): brute_force(module.model, strategy, path, data[:1], criterion) for path in unique}
    finalists = sorted(unique, key=lambda path: -on_one[key(path)])[:3]
    on_all = [(brute_force(module.model, strategy, path, data, criterion), path) for path in finalists]
    on_all.sort(key=lambda entry: -entry[0])
    (record,) = strategy.architecture.state.history
    assert record['scores'] == pytest.approx([score for score, _ in on_all], abs=1e-6)
    assert record['margin'] == pytest.approx(on_all[0][0] - on_all[1][0], abs=1e-6)
    assert strategy.select() == strategy.architecture.sample_of(on_all[0][1])
    assert record['candidates'][0].items() <= strategy.select().items()
    json.dumps(record)


def test_few_paths_are_all_scored_on_everything_and_twice_the_same_counts_once() -> None:
    torch.manual_seed(1)
    strategy = DifferentiableStrategy(SampledPaths(), selection=Ranking(samples=120, batches=None))
    space = DartsSpace(2, 3, 4, 1, nodes=1, operations=['skip_connect', 'max_pool_3x3'])
    fit(strategy, space, loaders(), classes=4)
    (record,) = strategy.architecture.state.history
    assert len(record['candidates']) == 16  # two operations on each of two edges in each of two cells
    assert record['choice'] == 'the best of 16' and record['scores'] == sorted(record['scores'], reverse=True)


@pytest.mark.parametrize('name', ['enas', 'random-ws'])
def test_a_resumed_search_is_the_unbroken_one(name: str, tmp_path: Path) -> None:
    settings = {**overrides(write_images(tmp_path / 'images.npz')), 'search.settings': {name: {'samples': 6, 'finalists': 2}}}
    recipe = Recipe.load('digits', settings)
    (unbroken, _), (resumed, result) = broken_and_resumed(recipe, name, tmp_path)
    assert resumed == unbroken and 0 <= result['valid_accuracy'] <= 1
    files = [(tmp_path / folder / 'selection.jsonl').read_text() for folder in ('broken', 'unbroken')]
    assert files[0] == files[1] and len(files[0].splitlines()) == 1
    lines = [json.loads(line) for line in (tmp_path / 'broken' / 'metrics.jsonl').read_text().splitlines()]
    assert [(line['decisions'], line['of_decisions']) for line in lines] == [(0, 1), (1, 1)]
