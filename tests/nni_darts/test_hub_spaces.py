"""Spaces of NNI's hub by name in a recipe, from search to export, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from tests.helpers.hub import HUB, write_pictures


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small pictures of ten classes."""
    write_pictures(tmp_path / 'images.npz')
    monkeypatch.chdir(tmp_path)
    return tmp_path


LARGE = ('DARTS', 'NASNet', 'AmoebaNet', 'ENAS', 'PNAS', 'ProxylessNAS', 'ShuffleNetSpace')
"""Spaces whose supernets take longer, because their cells have many edges or their networks many layers."""


def call(name: str, *words: str, **changes: object) -> Result:
    given = {key: value for key, value in HUB[name].items() if key not in ('num_labels', 'img_size')}  # facts of the data
    settings = {
        'space.name': f'nni.nas.hub.pytorch:{name}',
        'space.settings': json.dumps(given | dict(changes)),
        'data.name': 'npz',
        'data.path': 'images.npz',
        'data.augment': 'none',
        'search.epochs': 1,
        'search.batch_size': 10,
        'search.random_samples': 2,
        'search.settings': '{evolution: {cells: 3, population: 2, sample: 2}, enas: {samples: 2, finalists: 1}}',
        'select.epochs': 1,
        'retrain.epochs': 1,
    }
    return CliRunner().invoke(main, [*words, *(word for key, value in settings.items() for word in ('--set', f'{key}={value}'))])


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in HUB])
def test_a_space_of_the_hub_goes_from_search_to_export(name: str, folder: Path) -> None:
    done(call(name, 'search', '--recipe', 'digits', '--strategy', 'darts-1st', '--output', 'found'))
    assert name in (folder / 'found' / 'search.html').read_text()
    cost = json.loads(done(CliRunner().invoke(main, ['cost', 'found', '--json'])).splitlines()[-1])
    done(call(name, 'retrain', '--recipe', 'digits', '--genotype', 'found', '--output', 'trained'))
    assert json.loads((folder / 'trained' / 'result.json').read_text())['result']['parameters'] == cost['parameters'] > 0
    done(CliRunner().invoke(main, ['export', 'trained', '--pt2', 'model.pt2']))
    done(CliRunner().invoke(main, ['draw', 'found', '--output', 'found.svg']))


@pytest.mark.parametrize('strategy', ['random', 'evolution', 'enas', 'gdas', 'sgas'])
def test_every_kind_of_strategy_searches_a_space_of_the_hub(strategy: str, folder: Path) -> None:
    done(call('MobileNetV3Space', 'search', '--recipe', 'digits', '--strategy', strategy, '--output', 'found'))
    sample = json.loads((folder / 'found' / 'genotype.json').read_text())['sample']
    assert sample['s1_depth'] in (1, 2) and sample['s0_width_mult'] in (0.5, 1.0)


@pytest.mark.parametrize('strategy', ['darts-1st', 'sgas', 'enas', 'evolution', pytest.param('darts-1st+pt', marks=pytest.mark.slow)])
def test_every_kind_of_strategy_keeps_limits_where_layers_share_choices(strategy: str, folder: Path) -> None:
    limits = {'limits.parameters': 3000, 'limits.multiply_adds': '250k', 'search.penalty.parameters': '{target: 2000, weight: 0.1}'}
    words = [word for key, value in limits.items() for word in ('--set', f'{key}={value}')]
    done(call('MobileNetV3Space', 'search', *words, '--recipe', 'digits', '--strategy', strategy, '--output', 'found'))
    cost = json.loads(done(CliRunner().invoke(main, ['cost', 'found', '--json'])).splitlines()[-1])
    assert cost['parameters'] <= 3000 and cost['multiply_adds'] <= 250_000
    if strategy == 'darts-1st':
        done(CliRunner().invoke(main, ['derive', 'found', '--limit', 'parameters=1800', '--output', 'smaller']))
        assert json.loads(done(CliRunner().invoke(main, ['cost', 'smaller', '--json'])).splitlines()[-1])['parameters'] <= 1800
        assert 'parameters' in done(CliRunner().invoke(main, ['derive', 'found', '--pareto', 'parameters']))


def test_what_no_supernet_can_hold_is_one_sentence_before_the_first_epoch(folder: Path) -> None:
    result = call('DARTS', 'search', '--recipe', 'digits', '--strategy', 'darts-1st', '--output', 'found', num_cells=[3, 6])
    assert result.exit_code != 0 and 'Traceback' not in result.output
    assert 'at least 6 cells' in result.output and 'epoch 1' not in result.output


@pytest.mark.parametrize('strategy', ['random', 'darts-1st'])
def test_nasbench101_is_refused_in_a_sentence(strategy: str, folder: Path) -> None:
    small = {'stem_out_channels': 4, 'num_stacks': 1, 'num_modules_per_stack': 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HUB, 'NasBench101', small)
        result = call('NasBench101', 'search', '--recipe', 'digits', '--strategy', strategy, '--output', 'found')
    assert result.exit_code == 2 and 'no strategy of this package searches this space' in result.output


def test_a_network_has_what_the_constructor_set_after_it_made_the_layers() -> None:
    from torch import nn

    from nni_darts.genotypes.sample import SampleGenotype
    from nni_darts.search_spaces.own import own_network, own_space

    path, settings = 'nni.nas.hub.pytorch:MobileNetV3Space', HUB['MobileNetV3Space']
    sample = own_space(path, settings, {}).simplify()
    values = {str(label): mutable.default() for label, mutable in sample.items()}
    network = own_network(SampleGenotype.of(path, values), path, settings)
    assert {layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}  # NNI's freeze gives 1e-5
