"""The strategy through NNI's own ``NasExperiment``, on three kinds of space."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from nni_darts import DARTS_OPERATIONS, Genotype, parallel
from nni_darts._nni import DataLoader, Lightning, LightningModule, ModelSpace, RawFormatModelSpace, model_context
from nni_darts.genotypes.candidates import edge_candidates
from nni_darts.genotypes.neighbours import darts_choices
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.architecture import edge_topology
from nni_darts.strategies.engine.loaders import SearchLoaders, _shuffled
from nni_darts.strategies.trained.in_process import InProcess, SampleSpace, choices_of
from nni_darts.training import ImageClassifier
from tests.helpers import fitting
from tests.helpers.fitting import trainer
from tests.helpers.spaces import TwoLabels

SMALL = {'channels': 2, 'cells': 3, 'nodes': 2, 'in_channels': 1}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NasExperiment writes into the home directory."""
    monkeypatch.setenv('HOME', str(tmp_path))
    yield


def loaders(shape: tuple[int, ...], classes: int, train: int = 24, valid: int = 16) -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> TensorDataset:
        return TensorDataset(torch.randn(count, *shape, generator=generator), torch.randint(classes, (count,), generator=generator))

    return DataLoader(part(train), batch_size=8, shuffle=True), DataLoader(part(valid), batch_size=8)


def run(
    space: ModelSpace,
    strategy: DifferentiableStrategy | InProcess,
    module: LightningModule,
    shape: tuple[int, ...],
    classes: int,
) -> dict:
    from nni.nas.experiment import NasExperiment

    train, valid = loaders(shape, classes)
    experiment = NasExperiment(space, Lightning(module, trainer(num_sanity_val_steps=0), train, valid), strategy)
    experiment.run()
    (sample,) = experiment.export_top_models(formatter='dict')
    experiment.stop()
    return sample


@pytest.mark.parametrize('name', ['darts-1st', 'darts-2nd'])
def test_darts_space(name: str) -> None:
    strategy = create_strategy(name)
    sample = run(DartsSpace(**SMALL), strategy, ImageClassifier(10, 1), (1, 8, 8), 10)
    genotype = Genotype.from_sample(sample)
    assert genotype.nodes == 2
    assert 'none' not in {operation for operation, _ in (*genotype.normal, *genotype.reduce)}
    with model_context(sample):
        assert DartsSpace(**SMALL)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_the_hubs_nas_bench_201() -> None:
    from nni.nas.hub.pytorch import NasBench201

    strategy = create_strategy('darts-1st')
    sample = run(NasBench201(stem_out_channels=4, num_modules_per_stack=1), strategy, ImageClassifier(10, 1), (3, 8, 8), 10)
    assert len(sample) == 6
    # Nothing else can leave a connection out here, so ``none`` is a choice like any other.
    with torch.no_grad():
        strategy.architecture.alpha(next(iter(sample))).copy_(torch.eye(5)[0] * 9)
    assert strategy.select()[next(iter(sample))] == 'none'


@pytest.mark.parametrize('name', ['darts-1st', 'darts-2nd'])
def test_a_users_space_with_a_users_evaluator(name: str) -> None:
    """Their own Lightning module: it logs and counts in training_step, which the passes of the architect must not disturb."""

    class Theirs(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.accuracy = MulticlassAccuracy(2)
            self.counts: list[int] = []

        def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
            logits = self.model(batch[0])
            self.accuracy.update(logits, batch[1])
            self.log('train_accuracy', self.accuracy.compute())
            return nn.functional.cross_entropy(logits, batch[1])

        def on_train_epoch_end(self) -> None:
            self.counts.append(int(self.accuracy.tp.sum() + self.accuracy.fn.sum()))

        def validation_step(self, batch: tuple, batch_idx: int) -> None:
            self.log('valid_loss', nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    module = Theirs()
    space = TwoLabels()
    space.last = nn.Linear(8, 2)
    sample = run(space, create_strategy(name), module, (6,), 2)
    assert set(sample) == {'layer', 'features'}
    assert len(sample['features']) == 2
    assert module.counts == [24]  # each training sample once


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('random', {'samples': 3}),
        ('random', {'samples': 3, 'prior': {'proxy': 'zen', 'draw': 5, 'batch_size': 8}}),
        ('evolution', {'cells': 3, 'population': 2, 'sample': 1}),
        ('proxy', {'proxy': 'snip', 'draw': 5, 'batch_size': 8, 'cells': 3}),
    ],
)
def test_strategies_without_a_supernet_keep_the_best_of_n(name: str, settings: dict) -> None:
    strategy = create_strategy(name, seed=5, **settings)
    sample = run(DartsSpace(**SMALL), strategy, ImageClassifier(10, 1, report=True), (1, 8, 8), 10)
    metrics = [model.metric for model in strategy.trained]
    assert len(metrics) == 3 and all(metric is not None for metric in metrics)
    best = max(range(3), key=metrics.__getitem__)
    assert sample == strategy.trained[best].sample == strategy.select()
    weights = [next(model.model_space.parameters()) for model in strategy.trained]
    assert not torch.equal(weights[0], weights[1])  # each from scratch
    again = create_strategy(name, seed=5, **settings)
    run(DartsSpace(**SMALL), again, ImageClassifier(10, 1, report=True), (1, 8, 8), 10)
    assert [model.sample for model in again.trained] == [model.sample for model in strategy.trained]


@pytest.mark.parametrize(('name', 'settings'), [('proxy', {'cells': 2}), ('random', {'samples': 2})])
def test_the_largest_of_the_models_drawn_are_trained(name: str, settings: dict) -> None:
    prior = {'proxy': 'parameters', 'draw': 6, 'batch_size': 8}
    strategy = create_strategy(name, seed=5, **settings, **(prior if name == 'proxy' else {'prior': prior}))
    run(DartsSpace(**SMALL), strategy, ImageClassifier(10, 1, report=True), (1, 8, 8), 10)
    space = SampleSpace(DartsSpace(**SMALL))
    rng, sizes = random.Random(5), []
    for _ in range(6):
        with model_context(space.sample(space.random_cell(rng))):
            sizes.append(sum(parameter.numel() for parameter in DartsSpace(**SMALL).parameters()))
    trained = [sum(parameter.numel() for parameter in model.model_space.parameters()) for model in strategy.trained]
    assert trained == sorted(sizes, reverse=True)[:2] and len(set(sizes)) > 2


def test_evolution_never_trains_a_model_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three layers and three pairs of features there are nine models; the metric is made up here."""
    strategy = create_strategy('evolution', cells=20, population=3, sample=3, optimize_mode='minimize')
    strategy._model_space = RawFormatModelSpace(TwoLabels(), None)
    seen: list[tuple] = []

    def train(sample: dict) -> float:
        seen.append((int(sample['layer']), *sample['features']))
        return float(sum(seen[-1]))

    monkeypatch.setattr(strategy, 'train', train)
    strategy._run()
    assert len(seen) == len(set(seen)) == 9


def test_evolution_steps_through_the_cells_of_a_space() -> None:
    space = DartsSpace(**SMALL)
    choices = choices_of(space.simplify(), edge_topology(list(space.modules())))
    assert choices == darts_choices(edge_candidates(DARTS_OPERATIONS, 2))


def fit(strategy: DifferentiableStrategy, epochs: int = 1, before: Callable[[object], None] | None = None) -> object:
    """Runs without NasExperiment and returns the one-shot module."""
    train, valid = loaders((1, 8, 8), 10)
    model = strategy.mutate_model(DartsSpace(**SMALL))
    evaluator = strategy.mutate_evaluator(Lightning(ImageClassifier(10, epochs), trainer(epochs, num_sanity_val_steps=0), train, valid))
    if before:
        before(evaluator)
    evaluator.evaluate(model)
    return evaluator.module


def test_the_weight_optimizer_never_holds_alpha() -> None:
    strategy = create_strategy('darts-1st')
    module = fit(strategy)
    weight, arch = module.trainer.optimizers
    held = {id(parameter) for group in weight.param_groups for parameter in group['params']}
    assert not held & {id(alpha) for alpha in strategy.arch_parameters()}
    assert [id(parameter) for parameter in arch.param_groups[0]['params']] == [id(alpha) for alpha in strategy.arch_parameters()]
    defaults = arch.param_groups[0]
    assert (defaults['lr'], defaults['betas'], defaults['weight_decay']) == (3e-4, (0.5, 0.999), 1e-3)


def test_alpha_is_in_the_checkpoint() -> None:
    strategy = create_strategy('darts-1st')
    module = fit(strategy)
    names = [name for name in module.state_dict() if name.startswith('architecture._alphas.')]
    assert len(names) == len(strategy.arch_parameters()) == 10
    other = create_strategy('darts-1st')
    other.mutate_model(DartsSpace(**SMALL))
    other.architecture.load_state_dict(strategy.architecture.state_dict())
    assert other.select() == strategy.select()


def test_warm_up_leaves_alpha_alone() -> None:
    strategy = DifferentiableStrategy(warmup_epochs=1)
    seen: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            seen.append(torch.cat([alpha.detach().clone() for alpha in strategy.arch_parameters()]))

    def watch(evaluator: Lightning) -> None:
        seen.append(torch.cat([alpha.detach().clone() for alpha in strategy.arch_parameters()]))
        evaluator.trainer.callbacks.append(Watch())

    fit(strategy, epochs=2, before=watch)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_alpha_steps_see_shuffled_validation_batches() -> None:
    _, valid = loaders((1, 8, 8), 10, valid=64)
    batches = [labels for _, labels in _shuffled(valid)]
    assert not torch.equal(torch.cat(batches), valid.dataset.tensors[1])
    assert torch.equal(torch.cat(batches).sort().values, valid.dataset.tensors[1].sort().values)


@pytest.mark.parametrize(('train', 'valid', 'steps'), [(24, 8, 3), (8, 24, 1), (24, 24, 3)])
def test_an_epoch_is_one_pass_over_the_training_batches(train: int, valid: int, steps: int) -> None:
    strategy = create_strategy('darts-1st')
    pair = loaders((1, 8, 8), 10, train=train, valid=valid)
    strategy.loaders = SearchLoaders(None, lambda: pair[1])
    combined = strategy.train_dataloader(lambda: pair[0], lambda: pair[1])
    assert sum(1 for _ in combined) == steps


@pytest.mark.parametrize(
    'settings', [{'learning_rate': -1.0}, {'warmup_epochs': -1}, {'gradient_clip_val': 0.0}, {'weight_decay': float('nan')}]
)
def test_settings_outside_their_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DifferentiableStrategy(**settings)


def test_unknown_names_and_settings() -> None:
    with pytest.raises(ValueError, match='darts-1st, darts-2nd, .*random'):
        create_strategy('dart')
    with pytest.raises(ValueError, match='momentum'):
        create_strategy('darts-1st', momentum=1)
    assert create_strategy('darts-2nd', hessian='exact').architect.hessian == 'exact'


class Noting(FirstOrder):
    """Notes the gradients of α that it gives."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def gradients(self, module: Any, train: Any, valid: Any, *rest: Any) -> list[torch.Tensor]:
        found = super().gradients(module, train, valid, *rest)
        self.given += [gradient.clone() for gradient in found]
        return found


class Copying(Noting):
    """As an architect that puts its batches together anew."""

    def gradients(self, module: Any, train: Any, valid: Any, *rest: Any) -> list[torch.Tensor]:
        return super().gradients(module, [part.clone() for part in train], [part.clone() for part in valid], *rest)


def test_a_copied_batch_has_the_weight_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks whose parts of a batch differ in size weigh their losses, whatever becomes of the objects that hold the batch."""
    given = []
    for shares, architect in (([1.0, 1.0], Noting()), ([0.5, 1.5], Noting()), ([0.5, 1.5], Copying())):
        monkeypatch.setattr(parallel, 'shares', lambda *counts, shares=shares: shares)
        torch.manual_seed(0)
        strategy = DifferentiableStrategy(architect=architect, execution='plain')
        fitting.fit(strategy, DartsSpace(**SMALL), loaders((1, 8, 8), 10, train=8), classes=10, precision='32-true')
        given.append(torch.cat([gradient.flatten() for gradient in architect.given]))
    plain, weighed, copied = given
    assert plain.abs().sum() > 0 and torch.allclose(weighed, 1.5 * plain, rtol=1e-4, atol=1e-7)
    assert torch.equal(copied, weighed)
