from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import TensorDataset

from nni_darts import Genotype
from nni_darts._nni import DataLoader, Lightning
from nni_darts.genotypes.candidates import REDUCED
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import S1, DartsSpace, NasBench201Space
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.relaxations import Fixed, PartialChannels, Softmax
from nni_darts.strategies.selections import Perturbation, Progressive, ProgressiveMagnitude
from nni_darts.training import ImageClassifier
from tests.helpers import fitting, running
from tests.helpers.spaces import TwoLabels
from tests.helpers.tiny import overrides, write_images
from tests.reference.selection import brute_force_score

OPERATIONS = ['skip_connect', 'sep_conv_3x3', 'avg_pool_3x3']


def loaders(classes: int, *shape: int, train: int = 24, valid: int = 20) -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> TensorDataset:
        images = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        return TensorDataset(images, torch.randint(classes, (count,), generator=generator))

    return DataLoader(part(train), batch_size=8, shuffle=True), DataLoader(part(valid), batch_size=8)


def few(*shape: int) -> tuple[DataLoader, DataLoader]:
    """A batch to train on, and two of different sizes to score with."""
    return loaders(4, *shape, train=8, valid=12)


def fit(strategy: DifferentiableStrategy, space: Any, loader_pair: tuple[DataLoader, DataLoader], epochs: int = 1, classes: int = 4) -> Any:
    """A search in float64."""
    torch.manual_seed(1)
    return fitting.fit(strategy, space, loader_pair, epochs=epochs, classes=classes)


def space(channels: int = 2, nodes: int = 3) -> DartsSpace:
    return DartsSpace(channels=channels, cells=3, nodes=nodes, num_classes=4, in_channels=1, operations=OPERATIONS)


class Checked(Perturbation):
    """Compares every score with brute force, and everything that scoring must leave alone."""

    def score(self, architecture: Any, label: str, candidates: Any, module: Any) -> list[float]:
        def everything() -> list[torch.Tensor]:
            state = [value for optimizer in module.trainer.optimizers for entry in optimizer.state.values() for value in entry.values()]
            tensors = [*module.parameters(), *module.buffers(), *(value for value in state if isinstance(value, torch.Tensor))]
            return [tensor.detach().clone() for tensor in tensors] + [torch.get_rng_state()]

        before, modes = everything(), [child.training for child in module.modules()]
        scores = super().score(architecture, label, candidates, module)
        assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
        assert modes == [child.training for child in module.modules()]
        data = list(module.validation_batches(self.scoring.batches)[0])
        for index, score in zip(candidates, scores):
            train = self.scoring.batch_norm == 'train'
            mask = (label, index, self.renormalise)
            portion = module.strategy.relaxation.portion or 1
            expected = brute_force_score(module.model, architecture, data, mask, self.scoring.criterion, train, portion)
            assert score == pytest.approx(expected, abs=1e-12)
        self.checked = getattr(self, 'checked', 0) + len(scores)
        return scores


@pytest.mark.parametrize(('criterion', 'batch_norm'), [('accuracy', 'train'), ('loss', 'eval')])
def test_decisions_are_those_of_brute_force(criterion: str, batch_norm: str) -> None:
    selection = Checked(criterion=criterion, batch_norm=batch_norm, epochs_between=1)
    strategy = DifferentiableStrategy(selection=selection)
    fit(strategy, space(), few(1, 8, 8))
    history = strategy.architecture.state.history
    assert Counter(record['stage'] for record in history) == {'operation': 18, 'topology': 6}
    # Every edge had three operations; in each kind of cell one node dropped one of three inputs and one two of four.
    assert selection.checked == 18 * 3 + 2 * (3 + 4)
    for record in history:
        scores = record['scores']
        if record['stage'] == 'operation':
            assert record['choice'] == record['candidates'][scores.index(min(scores))]  # the first of equals
            assert record['margin'] == pytest.approx(sorted(scores)[1] - sorted(scores)[0])
        else:
            last = len(scores) - 1 - scores[::-1].index(max(scores))  # of equals the first inputs stay
            assert record['choice'] == record['candidates'][last]
    sample = strategy.select()
    genotype = Genotype.from_sample(sample)
    for record in history:
        if record['stage'] == 'operation':
            assert sample[record['label']] == record['choice']
        else:
            assert record['choice'] not in sample[record['label']]
    assert genotype.nodes == 3


def test_inputs_scored_again_are_scored_without_those_dropped() -> None:
    selection = Checked(criterion='loss', rescore_inputs=True, epochs_between=1)
    strategy = DifferentiableStrategy(selection=selection)
    fit(strategy, space(), few(1, 8, 8))
    assert selection.checked == 18 * 3 + 2 * (3 + 4 + 3)
    assert sum(count for count, _ in selection.scored(strategy.architecture)) == selection.checked


@pytest.mark.parametrize(('rescore', 'kept'), [(False, [1, 2]), (True, [0, 2])])
def test_one_set_of_scores_decides_the_inputs_as_published(rescore: bool, kept: list[int]) -> None:
    """Without input 3, input 0 matters more than it did with all others present; the published rule never sees that."""
    scored: list[tuple[str, tuple[int, ...]]] = []

    class Scripted(Perturbation):
        def score(self, architecture: Any, label: str, candidates: Any, module: Any) -> list[float]:
            if '_op_' in label:
                return [0.0] * len(candidates)
            scored.append((label, tuple(candidates)))
            hurts = {0: 0.3, 1: 0.4, 2: 0.5, 3: 0.2} if len(candidates) == 4 or not rescore else {0: 0.9, 1: 0.4, 2: 0.5}
            return [-hurts[index] for index in candidates]

    strategy = DifferentiableStrategy(selection=Scripted(epochs_between=1, rescore_inputs=rescore))
    fit(strategy, space(), few(1, 8, 8))
    assert strategy.select()['normal_input_4'] == kept
    wide = [candidates for label, candidates in scored if label == 'normal_input_4']
    assert wide == ([(0, 1, 2, 3), (0, 1, 2)] if rescore else [(0, 1, 2, 3)])
    records = [record for record in strategy.architecture.state.history if record['label'] == 'normal_input_4']
    assert [record['choice'] for record in records] == ([3, 1] if rescore else [3, 0])
    assert [record['margin'] for record in records] == pytest.approx([0.1, 0.1])


def test_an_epoch_between_two_events_decides_every_edge_of_nas_bench_201() -> None:
    """The authors' loop would end with an edge undecided."""
    strategy = DifferentiableStrategy(selection=ProgressiveMagnitude(epochs_between=1))
    strategy.mutate_model(NasBench201Space(channels=2, cells=3))
    assert strategy.selection.epochs(strategy.architecture) == 5 and calendar(strategy) == [0, 1, 2, 3, 4, 5]


def test_renormalised_scores_are_those_of_brute_force() -> None:
    selection = Checked(criterion='loss', renormalise=True, epochs_between=1)
    fit(DifferentiableStrategy(selection=selection), space(nodes=2), few(1, 8, 8))
    assert selection.checked == 10 * 3 + 2 * 3


@pytest.mark.parametrize('edge_weights', [True, False])
def test_partial_channels_are_scored_like_brute_force(edge_weights: bool) -> None:
    selection = Checked(criterion='loss', epochs_between=1)
    strategy = DifferentiableStrategy(PartialChannels(2, edge_weights=edge_weights), selection=selection)
    fit(strategy, space(channels=4, nodes=2), few(1, 7, 7))
    assert selection.checked == 10 * 3 + 2 * 3


def test_operations_that_differ_from_edge_to_edge() -> None:
    """S1: two operations on each edge; none of the names has the same place everywhere."""
    selection = Checked(criterion='loss', batches=1, epochs_between=1)
    strategy = DifferentiableStrategy(selection=selection)
    fit(strategy, S1(2, 3, 4, 1), few(1, 8, 8))
    assert selection.checked == 2 * (14 * 2 + 3 + 4 + 5)
    Genotype.from_sample(strategy.select()).to_sample(REDUCED['s1'])


def test_ties_keep_the_first() -> None:
    class Same(Progressive):
        def score(self, architecture: Any, label: str, candidates: Any, module: Any) -> list[float]:
            return [0.5] * len(candidates)

    strategy = DifferentiableStrategy(selection=Same(epochs_between=1))
    fit(strategy, space(), few(1, 8, 8))
    sample = strategy.select()
    assert {sample[label] for label in sample if '_op_' in label} == {OPERATIONS[0]}
    assert all(sample[label] == [0, 1] for label in sample if '_input_' in label)


def take_part(architecture: Architecture) -> None:
    """An event without scores: of each kind one operation, or else one node's inputs, is decided."""
    undecided = architecture.grouped(label for label in architecture.operations() if label not in architecture.state.fixed)
    for labels in undecided.values():
        architecture.state.fixed[labels[0]] = 0
    if not undecided:
        wide = [label for label in architecture.inputs() if len(architecture.view.inputs(label)) > 2]
        for labels in architecture.grouped(wide).values():
            architecture.state.dropped[labels[0]] = architecture.view.inputs(labels[0])[2:]


def calendar(strategy: DifferentiableStrategy) -> list[int]:
    """In which epochs of tuning, from 0, events fall after a search of 50 epochs."""
    found = []
    for epoch in range(-3, 100):
        for _ in range(strategy.selection.rounds_due(50 + epoch, 50, strategy.architecture)):
            take_part(strategy.architecture)
            found.append(epoch)
    return found


def test_events_and_epochs_are_those_of_the_paper() -> None:
    """14 edges and 3 nodes with more than two inputs: 5·(14 + 3 − 1) + 1 = 81 epochs."""
    strategy = create_strategy('darts-pt')
    strategy.mutate_model(DartsSpace(channels=1, cells=3, operations=['skip_connect', 'sep_conv_3x3']))
    selection = strategy.selection
    assert (selection.events(strategy.architecture), selection.epochs(strategy.architecture)) == (17, 81)
    assert calendar(strategy) == list(range(0, 81, 5))


def published_calendar(edges: int, between: int) -> tuple[list[int], int]:
    """Epochs of tuning in which an edge is decided, and all epochs of it: nasbench201/projection.py of the authors, written down."""
    epochs = between * (edges - 1)
    return [epoch for epoch in range(epochs) if epoch % between == 0 or epoch == epochs - 1], epochs


@pytest.mark.parametrize('between', [2, 3, 5])
def test_events_and_epochs_of_nas_bench_201_are_those_of_the_authors_code(between: int) -> None:
    strategy = DifferentiableStrategy(selection=ProgressiveMagnitude(epochs_between=between))
    strategy.mutate_model(NasBench201Space(channels=2, cells=3))
    expected, epochs = published_calendar(6, between)
    assert strategy.selection.epochs(strategy.architecture) == epochs
    assert calendar(strategy) == expected and len(expected) == 6


def test_a_checkpoint_with_an_edge_that_was_due_earlier_decides_it() -> None:
    """It is of a version that decided the last edge of NAS-Bench-201 an epoch later, and was written between the two."""
    strategy = DifferentiableStrategy(selection=ProgressiveMagnitude(epochs_between=5))
    strategy.mutate_model(NasBench201Space(channels=2, cells=3))
    for _ in range(5):
        take_part(strategy.architecture)
    assert strategy.selection.rounds_due(50 + 25, 50, strategy.architecture) == 1
    take_part(strategy.architecture)
    assert strategy.selection.rounds_due(50 + 25, 50, strategy.architecture) == 0


def test_nas_bench_201_has_no_topology_stage_and_may_choose_none() -> None:
    from nni.nas.hub.pytorch import NasBench201

    class PreferNone(Progressive):
        def score(self, architecture: Any, label: str, candidates: Any, module: Any) -> list[float]:
            return [-1.0 if architecture.operations()[label].names[index] == 'none' else 0.0 for index in candidates]

    strategy = DifferentiableStrategy(selection=PreferNone(epochs_between=1))
    module = fit(strategy, NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=4), loaders(4, 3, 8, 8))
    assert set(strategy.select().values()) == {'none'}
    assert len(strategy.architecture.state.history) == 6
    assert module.trainer.current_epoch == 1 + 5  # 1·(6 − 1): no epoch follows the last decision


def test_none_is_never_kept_on_an_edge_of_a_cell() -> None:
    strategy = DifferentiableStrategy(selection=Perturbation(epochs_between=1, batches=1))
    candidates = DartsSpace(channels=2, cells=3, nodes=1, num_classes=4, in_channels=1, operations=['none', *OPERATIONS])
    fit(strategy, candidates, loaders(4, 1, 8, 8))
    assert all('none' not in record['candidates'] for record in strategy.architecture.state.history)


@pytest.mark.parametrize('selection', [Perturbation(epochs_between=1), ProgressiveMagnitude(epochs_between=1)])
def test_a_users_space(selection: Progressive) -> None:
    class Flat(TwoLabels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1))

    strategy = DifferentiableStrategy(selection=selection)
    model = Flat()
    model.last = torch.nn.Linear(8, 4)
    fit(strategy, model, loaders(4, 6))
    sample = strategy.select()
    assert len(sample['features']) == 2 and sample['layer'] in (0, 1, 2)
    assert [record['label'] for record in strategy.architecture.state.history] == ['layer', 'features']


@pytest.mark.parametrize('scheduled', [True, False])
def test_tuning_uses_a_tenth_of_the_learning_rate_and_a_new_optimizer(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not scheduled:  # as many a user's evaluator
        monkeypatch.setattr(ImageClassifier, 'configure_optimizers', lambda self: torch.optim.SGD(self.parameters(), 0.05, 0.9))
    strategy = DifferentiableStrategy(selection=ProgressiveMagnitude(epochs_between=2))
    rates: list[tuple[int, float, bool]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
            optimizer = trainer.optimizers[0]
            if index == 0:
                rates.append((trainer.current_epoch, optimizer.param_groups[0]['lr'], bool(optimizer.state)))

    original = strategy.mutate_evaluator

    def watched(evaluator: Lightning) -> Lightning:
        evaluator.trainer.callbacks.append(Watch())
        return original(evaluator)

    strategy.mutate_evaluator = watched
    fit(strategy, DartsSpace(channels=2, cells=3, nodes=1, num_classes=4, in_channels=1, operations=OPERATIONS), loaders(4, 1, 8, 8), 2)
    tuning = [entry for entry in rates if entry[0] >= 2]
    assert [epoch for epoch, _, _ in tuning] == [2, 3]  # two events, none about topology: 2·(2 − 1)
    assert all(rate == pytest.approx(0.005) for _, rate, _ in tuning)
    assert [state for _, _, state in rates] == [False, True, False, True]


def test_progressive_magnitude_keeps_the_most_probable_each_time() -> None:
    strategy = DifferentiableStrategy(Softmax(), selection=ProgressiveMagnitude(epochs_between=1))
    fit(strategy, space(), few(1, 8, 8))
    for record in strategy.architecture.state.history:
        extreme = min if record['stage'] == 'operation' else max
        assert record['choice'] == record['candidates'][record['scores'].index(extreme(record['scores']))]


def test_fixed_alpha_keeps_alpha_through_the_tuning() -> None:
    strategy = DifferentiableStrategy(Fixed(), selection=Perturbation(epochs_between=1, batches=1))
    module = fit(strategy, space(), few(1, 8, 8))
    assert all(not optimizer.state for optimizer in module.trainer.optimizers[1:])


def test_a_search_interrupted_throughout_selection_gives_the_same_genotype(tmp_path: Path) -> None:
    """After the search, between two decisions, and before the last one: three interruptions of one search."""
    settings = {'search.epochs': 1, 'search.settings': {'darts-pt': {'batches': 1}}, 'space.operations': OPERATIONS}
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **settings})
    unbroken, _ = running.search(recipe, 'darts-pt', 1, tmp_path / 'unbroken')
    for resume, epoch in enumerate((1, 3, 6)):

        def stop(record: dict, last: int = epoch + 1) -> None:
            if record['epoch'] == last:
                raise KeyError('stop')

        torch.manual_seed(77)
        with pytest.raises(KeyError, match='stop'):
            running.search(recipe, 'darts-pt', 1, tmp_path / 'broken', resume=bool(resume), on_epoch=stop)
    torch.manual_seed(77)
    assert running.search(recipe, 'darts-pt', 1, tmp_path / 'broken', resume=True)[0] == unbroken
    files = [(tmp_path / name / 'selection.jsonl').read_text() for name in ('broken', 'unbroken')]
    assert files[0] == files[1]
    records = [json.loads(line) for line in files[0].splitlines()]
    assert len(records) == 2 * 5 + 2 * 1
    assert {'epoch', 'stage', 'label', 'candidates', 'scores', 'choice', 'margin'} == set(records[0])


@pytest.mark.parametrize('name', ['darts-pt', 'darts-2nd+pt', 'fixed-alpha+pt', 'sdarts-rs+pt', 'gdas+pt-mag', 'darts-1st+pt-mag'])
def test_names(name: str) -> None:
    strategy = create_strategy(name, epochs_between=2)
    assert strategy.selection.epochs_between == 2
    assert isinstance(strategy.selection, ProgressiveMagnitude if name.endswith('mag') else Perturbation)


@pytest.mark.parametrize('name', ['random+pt', 'darts-1st+', 'darts-1st+px', '+pt', 'darts-pt+pt'])
def test_wrong_names(name: str) -> None:
    with pytest.raises(ValueError, match='unknown strategy'):
        create_strategy(name)


@pytest.mark.parametrize(
    'settings',
    [
        {'criterion': 'f1'},
        {'batch_norm': 'none'},
        {'batches': 0},
        {'epochs_between': 0},
        {'learning_rate_factor': 0.0},
    ],
)
def test_settings_outside_their_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Perturbation(**settings)
