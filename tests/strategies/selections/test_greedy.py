from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from nni_darts import Genotype
from nni_darts._nni import Lightning
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace, NasBench201Space
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.relaxations import Softmax
from nni_darts.strategies.selections import Greedy, Perturbation
from tests.helpers import running
from tests.helpers.tiny import overrides, write_images
from tests.reference import greedy as reference
from tests.strategies.selections.test_perturbation import OPERATIONS, fit, loaders


def relaxed(space: Any) -> DifferentiableStrategy:
    torch.manual_seed(0)
    strategy = create_strategy('sgas')
    strategy.mutate_model(space)
    return strategy


def schedule(strategy: DifferentiableStrategy, epochs: int) -> list[int]:
    """The epochs, counted from 1, at whose end a round of decisions falls."""
    due = [strategy.selection.rounds_due(epoch, epochs, strategy.architecture) for epoch in range(epochs + 1)]
    return [epoch for epoch, count in enumerate(due) for _ in range(count)]


def test_decisions_fall_when_the_authors_take_them() -> None:
    strategy = relaxed(DartsSpace(1, 3, operations=OPERATIONS))
    assert schedule(strategy, 50) == [10, 15, 20, 25, 30, 35, 40, 45]
    assert strategy.selection.decisions(strategy.architecture) == 2 * 2 * 8
    assert schedule(strategy, 100) == [20, 30, 40, 50, 60, 70, 80, 90]
    assert schedule(strategy, 1) == [1] * 8


@pytest.mark.parametrize('epochs', [1, 2, 7, 8, 20, 50])
@pytest.mark.parametrize('nodes', [1, 3, 6])
def test_every_decision_falls_within_the_search(nodes: int, epochs: int) -> None:
    strategy = relaxed(DartsSpace(1, 3, nodes=nodes, operations=OPERATIONS))
    due = schedule(strategy, epochs)
    assert len(due) == 2 * nodes and 1 <= due[0] and due[-1] <= epochs


def test_without_a_choice_of_inputs_every_operation_is_decided() -> None:
    assert len(schedule(relaxed(NasBench201Space(1, 3)), 50)) == 6


@pytest.mark.parametrize('criterion', [1, 2])
def test_scores_against_the_reference(criterion: int) -> None:
    strategy = relaxed(DartsSpace(1, 3))
    architecture = strategy.architecture.double()
    selection = Greedy(greedy_criterion=criterion)
    labels = architecture.grouped(architecture.operations())['normal']
    epochs = []
    for _ in range(7):
        for label in labels:
            torch.nn.init.normal_(architecture.alpha(label))
        epochs.append([architecture.alpha(label).tolist() for label in labels])
        selection.observe(1, 1, architecture, strategy.relaxation)
    expected = reference.scores(epochs[-1], epochs[-5:-1], criterion)
    assert selection._scores(architecture, Softmax(), labels) == pytest.approx(expected, rel=1e-10, abs=1e-12)


class Watch(pl.Callback):
    """What is decided after each epoch, and the sizes of its batches."""

    def __init__(self, strategy: DifferentiableStrategy) -> None:
        self.strategy = strategy
        self.fixed: list[dict[str, int]] = []
        self.dropped: list[dict[str, list[int]]] = []
        self.validated: list[int] = []
        self.sizes: list[list[int]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.fixed.append(dict(self.strategy.architecture.state.fixed))
        self.dropped.append(dict(self.strategy.architecture.state.dropped))
        self.sizes.append([])

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.validated.append(trainer.current_epoch)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        self.sizes[-1].append(len(batch['train'][1]))


def searched(strategy: DifferentiableStrategy, space: Any, epochs: int) -> Watch:
    watch = Watch(strategy)
    original = strategy.mutate_evaluator

    def watched(evaluator: Lightning) -> Lightning:
        evaluator.trainer.callbacks.append(watch)
        return original(evaluator)

    strategy.mutate_evaluator = watched
    fit(strategy, space, loaders(4, 1, 8, 8), epochs)
    watch.on_train_epoch_start(None, None)
    return watch


def small() -> DartsSpace:
    return DartsSpace(2, 3, 4, 1, nodes=3, operations=['none', *OPERATIONS])


@pytest.mark.parametrize('criterion', [1, 2])
def test_decided_edges_never_change_and_every_node_keeps_two(criterion: int) -> None:
    strategy = DifferentiableStrategy(selection=Greedy(greedy_criterion=criterion, batch_increase=0))
    watch = searched(strategy, small(), 10)
    for before, after in zip(watch.fixed, watch.fixed[1:]):
        assert before.items() <= after.items()
    for before, after in zip(watch.dropped, watch.dropped[1:]):
        assert before.items() <= after.items()
    # Rounds fall at the end of epochs 2 to 7 of 10: two edges each.
    assert [len(fixed) for fixed in watch.fixed] == [0, 0, 2, 4, 6, 8, 10, 12, 12, 12, 12]
    architecture, sample = strategy.architecture, strategy.select()
    for label, index in architecture.state.fixed.items():
        assert sample[label] == architecture.decisions[label].names[index] != 'none'
    for label, decision in architecture.inputs().items():
        decided = [index for index, edge in enumerate(decision.edges) if edge in architecture.state.fixed]
        assert sample[label] == decided and len(decided) == 2
    assert Genotype.from_sample(sample).nodes == 3


class Noted(Greedy):
    """Notes the α of the edges whenever they are scored."""

    def _scores(self, architecture: Any, relaxation: Any, labels: Any) -> list[float]:
        self.noted = [*getattr(self, 'noted', []), {label: architecture.alpha(label).tolist() for label in labels}]
        return super()._scores(architecture, relaxation, labels)


def test_the_best_edge_is_taken_and_written_down() -> None:
    strategy = DifferentiableStrategy(selection=Noted())
    searched(strategy, small(), 3)
    history = strategy.architecture.state.history
    assert [record['stage'] for record in history] == ['edge', 'operation'] * 12
    assert len(history) == strategy.selection.decisions(strategy.architecture)
    for record, alphas in zip(history[::2], strategy.selection.noted, strict=True):
        expected = dict(zip(alphas, reference.scores([*alphas.values()], [[*alphas.values()]], criterion=1)))
        assert record['scores'] == pytest.approx([expected[label] for label in record['candidates']], rel=1e-3, abs=1e-5)
        best, *others = sorted(record['scores'], reverse=True)
        assert record['choice'] == record['candidates'][record['scores'].index(best)]
        assert record['margin'] == (pytest.approx(best - others[0]) if others else None)


def test_batches_grow_after_each_round() -> None:
    strategy = DifferentiableStrategy(selection=Greedy(batch_increase=3))
    watch = searched(strategy, small(), 10)
    assert [max(sizes) for sizes in watch.sizes[:-1]] == [8, 8, 11, 14, 17, 20, 23, 24, 24, 24]  # of 24 samples
    # One sample alone would be a batch that batch norm cannot normalise: it is left out.
    assert [sum(sizes) for sizes in watch.sizes[:-1]] == [24] * 6 + [23] + [24] * 3
    assert watch.validated == list(range(10))


def test_loaders_that_cannot_grow() -> None:
    strategy = DifferentiableStrategy(selection=Greedy())
    train, valid = loaders(4, 1, 8, 8)
    batches = [batch for batch in train]

    class Fixed(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(batches)

        def __len__(self) -> int:
            return len(batches)

    from nni_darts._nni import DataLoader

    with pytest.raises(ValueError, match='batch_increase: 0'):
        fit(strategy, small(), (DataLoader(Fixed(), batch_size=None), valid), 3)


@pytest.mark.parametrize('name', ['sgas', 'sgas+pt'])
def test_resume_between_decisions(name: str, tmp_path: Path) -> None:
    settings = {**overrides(write_images(tmp_path / 'images.npz')), 'search.epochs': 4, 'space.operations': OPERATIONS}
    settings['search.settings'] = {name: {'greedy_criterion': 2}}
    recipe = Recipe.load('digits', settings)

    def stop(record: dict) -> None:
        if record['epoch'] == 3:
            raise KeyError('stop')

    unbroken, _ = running.search(recipe, name, 1, tmp_path / 'unbroken')
    with pytest.raises(KeyError, match='stop'):
        running.search(recipe, name, 1, tmp_path / 'broken', on_epoch=stop)
    assert running.search(recipe, name, 1, tmp_path / 'broken', resume=True)[0] == unbroken
    files = [(tmp_path / folder / 'selection.jsonl').read_text() for folder in ('broken', 'unbroken')]
    assert files[0] == files[1] and len(files[0].splitlines()) == 2 * 2 * 4


def test_perturbation_may_choose_the_operation() -> None:
    strategy = create_strategy('sgas+pt', batches=1)
    assert isinstance(strategy.selection.operations, Perturbation)
    searched(strategy, small(), 2)
    for record in strategy.architecture.state.history[1::2]:
        assert record['choice'] == record['candidates'][record['scores'].index(min(record['scores']))]
        assert all(0 <= score <= 1 for score in record['scores'])
    json.dumps(strategy.architecture.state.history)


@pytest.mark.parametrize(
    'settings',
    [
        {'greedy_criterion': 3},
        {'decision_start': -1},
        {'decision_start': 50},
        {'decision_every': 0},
        {'batch_increase': -8},
        {'history': 0},
    ],
)
def test_settings_outside_their_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Greedy(**settings)
