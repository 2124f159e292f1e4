"""P-DARTS: what each stage keeps, what is dropped behind skips, how many skips stay, and the whole of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nni_darts import Genotype
from nni_darts._nni import DataLoader, Lightning
from nni_darts.errors import InputError
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import S1, DartsSpace
from nni_darts.strategies import DifferentiableStrategy, ProgressiveDepth, create_strategy
from nni_darts.strategies.progressive_depth import most_probable
from nni_darts.strategies.relaxations import SkipDropout
from nni_darts.strategies.selections import Magnitude
from nni_darts.training import ImageClassifier
from tests.helpers import running
from tests.helpers.fitting import trainer
from tests.helpers.stopping import Stop, measured, stop_at
from tests.helpers.tiny import overrides, write_images
from tests.reference.skips import limited


def skips(genotype: Genotype, kind: str) -> int:
    return sum(name == 'skip_connect' for name, _ in genotype.cell(kind)[0])


@pytest.mark.parametrize('most', [0, 1, 2, 3])
def test_skips_against_the_reference(most: int) -> None:
    strategy = DifferentiableStrategy(selection=Magnitude(most))
    strategy.mutate_model(DartsSpace(channels=1, cells=3))
    for seed in range(10):
        torch.manual_seed(seed)
        for alpha in strategy.arch_parameters():
            nn.init.normal_(alpha)
            alpha.data[DARTS_OPERATIONS.index('skip_connect')] += 3  # skips win most edges
        plain = Genotype.from_sample(Magnitude().select(strategy.architecture, strategy.relaxation))
        found = Genotype.from_sample(strategy.select())
        tables = strategy.probabilities()
        expected = limited([[tables[f'normal_op_{state}_{source}'] for source in range(state)] for state in range(2, 6)], most)
        assert [sorted(edges, key=lambda edge: edge[1]) for edges in found.node_edges('normal')] == expected
        assert skips(found, 'normal') == most < skips(plain, 'normal')
        assert found.node_edges('reduce') == plain.node_edges('reduce')


def test_a_skip_that_nothing_can_replace_stays() -> None:
    strategy = DifferentiableStrategy(selection=Magnitude(0))
    strategy.mutate_model(DartsSpace(channels=1, cells=3, nodes=1, operations=['none', 'skip_connect']))
    assert skips(Genotype.from_sample(strategy.select()), 'normal') == 2


@pytest.mark.parametrize('keep', [2, 3, 5, 8, 9])
def test_a_stage_keeps_the_most_probable_operations(keep: int) -> None:
    torch.manual_seed(keep)
    strategy = DifferentiableStrategy()
    space = strategy.mutate_model(DartsSpace(channels=1, cells=3, nodes=3))
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    kept = most_probable(space.candidates, strategy.probabilities(), keep)
    for kind in ('normal', 'reduce'):
        edges = [(state, source) for state in range(2, 5) for source in range(state)]
        for (state, source), names in zip(edges, kept[kind], strict=True):
            alpha = strategy.architecture.alpha(f'{kind}_op_{state}_{source}')
            best = alpha.topk(min(keep, 8)).indices.sort().values.tolist()
            assert names == tuple(DARTS_OPERATIONS[index] for index in best)


def test_a_space_of_any_candidates_can_be_made_deeper() -> None:
    space = S1(channels=2, cells=3, num_classes=4, in_channels=1)
    deeper = space.with_depth(5, space.candidates)
    assert len(deeper.cells) == 5 and deeper.candidates == space.candidates
    assert deeper(torch.randn(2, 1, 8, 8)).shape == (2, 4)


def test_dropout_behind_skips() -> None:
    relaxation = SkipDropout(0.6)
    strategy = DifferentiableStrategy(relaxation)
    model = strategy.mutate_model(DartsSpace(2, 3, nodes=1))
    for progress, epoch in ((0.0, 0), (9 / 24, 9), (10 / 24, 10), (1.0, 24)):
        relaxation.begin_step(progress)
        expected = 0.6 * (24 - epoch) / 25 if epoch < 10 else 0.6 * math.exp(-0.2 * (epoch - 10))
        assert relaxation.current == pytest.approx(expected)
    relaxation.current = 0.6
    skip = dict(model.cells[0].nodes[0].edges[0].named_children())['skip_connect']
    images = torch.ones(4, 2, 50, 50)
    assert float((skip(images) == 0).float().mean()) == pytest.approx(0.6, abs=0.02)
    assert torch.equal(skip.eval()(images), images)
    # Nothing but a skip, and nothing at all at rate 0.
    assert all(type(edge).__name__ != '_Dropped' for name, edge in model.named_modules() if not name.endswith('skip_connect'))
    assert SkipDropout(0.0).candidate(nn.Identity(), 'skip_connect').__class__ is nn.Identity


@pytest.mark.parametrize(('behind', 'dropped'), [('identity', False), ('all', True)])
def test_dropout_behind_skips_of_stride_2_is_the_papers(behind: str, dropped: bool) -> None:
    """The authors' code drops only behind identities, the paper behind every skip connection; names of weights do not differ."""
    relaxation = SkipDropout(0.9, behind)
    model = DifferentiableStrategy(relaxation).mutate_model(DartsSpace(2, 3, nodes=1))
    relaxation.current = 0.9
    images = torch.randn(4, 4, 16, 16)
    skip = dict(model.cells[1].nodes[0].edges[0].named_children())['skip_connect']
    output = skip(images)
    assert output.shape == (4, 4, 8, 8)
    assert (float((output == 0).float().mean()) > 0.5) == dropped
    straight = dict(model.cells[0].nodes[0].edges[0].named_children())['skip_connect']
    assert float((straight(images) == 0).float().mean()) > 0.5
    assert all(name.startswith('skip.') for name in skip.state_dict())


def test_where_skips_are_dropped_is_a_setting_of_p_darts() -> None:
    def behind(**settings: str) -> set[str]:
        return {part.relaxation.behind for part in create_strategy('p-darts', **settings).parts}

    assert behind() == {'identity'} and behind(dropout_behind='all') == {'all'}
    with pytest.raises(ValueError, match='dropout_behind must be identity or all'):
        behind(dropout_behind='some')


def staged(tmp_path: Path, **changes: object) -> Recipe:
    small = {'search.epochs': 3, 'search.settings': {'p-darts': {'cells': [3, 4, 5], 'dropout': [0.1, 0.4, 0.7], **changes}}}
    return Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **small})


def test_three_stages_and_a_resumed_search_is_the_unbroken_one(tmp_path: Path) -> None:
    recipe = staged(tmp_path)
    epochs: list[dict] = []
    genotype, result = running.search(recipe, 'p-darts', 1, tmp_path / 'unbroken', on_epoch=epochs.append)
    assert [(epoch['epoch'], epoch['of']) for epoch in epochs] == [(number, 6) for number in range(1, 7)]  # half of three, rounded up
    lines = [json.loads(line) for line in (tmp_path / 'unbroken' / 'metrics.jsonl').read_text().splitlines()]
    for before, after, keep in ((1, 2, 5), (3, 4, 3)):  # the last epoch of a stage, the first of the next
        for label, table in lines[before]['probabilities'].items():
            assert list(lines[after]['probabilities'][label]) == [
                name for name in table if name in sorted(table, key=table.__getitem__, reverse=True)[:keep]
            ]
    assert genotype == Genotype.from_json(json.dumps(lines[-1]['genotype']))
    assert skips(genotype, 'normal') <= 2
    assert result['valid_accuracy'] == lines[-1]['valid_accuracy']
    for number, cells in enumerate((3, 4, 5), start=1):
        names = torch.load(tmp_path / 'unbroken' / f'stage-{number}' / 'last.ckpt', weights_only=True)['state_dict']
        assert {int(name.split('cells.')[1].split('.')[0]) for name in names if 'cells.' in name} == set(range(cells))
    folder = tmp_path / 'broken'
    for epoch in (3, 4):  # at the beginning of the second stage, and within it
        with pytest.raises(Stop):
            running.search(recipe, 'p-darts', 1, folder, on_epoch=stop_at(epoch), resume=epoch > 3)
        torch.manual_seed(999)
    resumed, after = running.search(recipe, 'p-darts', 1, folder, resume=True)
    assert resumed == genotype and measured(folder) == measured(tmp_path / 'unbroken')
    assert after['valid_accuracy'] == result['valid_accuracy']
    (folder / 'result.json').unlink()
    for checkpoint in (folder / 'stage-2').glob('*.ckpt'):
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(InputError, match='stage-2 is damaged'):
        running.search(recipe, 'p-darts', 1, folder, resume=True)


def test_through_nnis_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni.nas.experiment import NasExperiment

    monkeypatch.setenv('HOME', str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 1, 8, 8, generator=generator), torch.randint(4, (16,), generator=generator))
    loaders = DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=8)
    space = DartsSpace(channels=2, cells=3, num_classes=4, in_channels=1, nodes=1)
    strategy = create_strategy('p-darts', cells=[3, 4], keep=[2], dropout=[0.0, 0.5], warmup_epochs=0)
    evaluator = Lightning(ImageClassifier(4, 1), trainer(num_sanity_val_steps=0), *loaders)
    experiment = NasExperiment(space, evaluator, strategy)
    experiment.run()
    (sample,) = experiment.export_top_models(formatter='dict')
    experiment.stop()
    assert sample == strategy.select() and Genotype.from_sample(sample).nodes == 1
    assert all(len(table) == 2 for table in strategy.parts[1].probabilities().values())


@pytest.mark.parametrize(
    ('settings', 'names'),
    [
        ({'cells': [5, 11]}, 'a number for each stage'),
        ({'cells': 5}, 'cells must be a list'),
        ({'cells': [5, 11, 2]}, 'cells must be a list of whole numbers from 3'),
        ({'keep': [5, 1]}, 'keep must be a list of whole numbers from 2'),
        ({'keep': [5]}, 'a number for each stage'),
        ({'dropout': [0.0, 0.4, 1.0]}, 'dropout must be a list of numbers from 0 to below 1'),
        ({'dropout': 0.1}, 'dropout must be a list of numbers'),
        ({'max_skips': -1}, 'max_skips'),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
        ({'early_stopping': True}, "no setting 'early_stopping'"),
    ],
)
def test_wrong_settings(settings: dict, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        create_strategy('p-darts', **settings)


def test_what_does_not_fit_is_one_sentence_before_a_search(tmp_path: Path) -> None:
    recipe = staged(tmp_path)
    with pytest.raises(InputError, match='warmup_epochs is 2, which leaves none of the 2 epochs of a stage'):
        running.search(Recipe.load('digits', {**recipe.to_dict(), 'search.warmup_epochs': 2}), 'p-darts', 1, tmp_path / 'a')
    for space in ({'name': 'nasbench201', 'channels': 2, 'cells': 3},):
        other = Recipe.load('digits', {**overrides(tmp_path / 'images.npz'), 'space': space})
        with pytest.raises(InputError, match='p-darts in the space nasbench201: .* cannot be made deeper'):
            running.search(other, 'p-darts', 1, tmp_path / 'b')
    text = Recipe.load('pydoc')
    with pytest.raises(InputError, match='p-darts in the space recurrent: .* cannot be made deeper'):
        running.search(text, 'p-darts', 1, tmp_path / 'c')
    with pytest.raises(ValueError, match='unknown strategy'):
        create_strategy('p-darts+pt')
    assert isinstance(create_strategy('p-darts'), ProgressiveDepth)
