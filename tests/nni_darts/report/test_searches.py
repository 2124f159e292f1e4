"""What a search's page is made of: records, as they travel through NNI and as data."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nni_darts import Genotype, RnnGenotype
from nni_darts.experiment.arguments import unsendable
from nni_darts.genotypes import AnyGenotype, genotype_from_code
from nni_darts.genotypes.candidates import REDUCED
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.genotypes.nasbench201 import OPERATIONS
from nni_darts.genotypes.recurrent import ACTIVATIONS
from nni_darts.report.records import indicators, pack, unpack
from nni_darts.report.searches import search_data, strengths_in, write_search
from tests.helpers.browser import CHROMIUM, Browser

DARTS_PAIR = Genotype.random(random.Random(1))
CELLS: dict[str, tuple[AnyGenotype, tuple[str, ...]]] = {
    'darts': (DARTS_PAIR, DARTS_OPERATIONS),
    's4': (Genotype.random(random.Random(1), operations=REDUCED['s4']), ('noise', 'sep_conv_3x3')),
    'nasbench201': (genotype_from_code('nb201.313021'), OPERATIONS),
    'recurrent': (RnnGenotype.random(random.Random(1)), ACTIVATIONS),
}


def records_of(genotype: AnyGenotype, names: tuple[str, ...], epochs: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(0)
    records = []
    for epoch in range(1, epochs + 1):
        tables = {}
        for cell in genotype.all_edges().values():
            for label, _, _ in cell.edges:
                weights = [rng.random() ** epoch for _ in names]
                tables[label] = {name: weight / sum(weights) for name, weight in zip(names, weights)}
        decided = [
            {'stage': 'operation', 'label': 'a_op_2_0', 'candidates': ['x'], 'scores': [0.5], 'choice': 'the best of 2', 'margin': margin}
            for margin in (None, 0.0125)
        ]
        records.append(
            {
                'epoch': epoch,
                'of': epochs,
                'train_accuracy': 0.5,
                'valid_accuracy': 0.25 * epoch,
                'train_perplexity': 90.0 / epoch,
                'valid_perplexity': 100.0 / epoch,
                'train_loss': 1.0 / epoch,
                'probabilities': tables,
                'genotype': json.loads(genotype.to_json()),
                'decided': decided if epoch == 2 else [],
            }
        )
    return records


@pytest.mark.parametrize('kind', CELLS)
def test_a_record_survives_the_journey_through_nni(kind: str) -> None:
    for record in records_of(*CELLS[kind]):
        packed = pack(record)
        assert unsendable(packed) is None
        assert all(isinstance(value, (int, float, str)) for value in packed.values())
        assert sum(len(value) for value in packed.values() if isinstance(value, str)) < 900
        back = unpack(json.loads(json.dumps(packed)))
        for label, table in record['probabilities'].items():
            assert back['probabilities'][label] == pytest.approx(table, abs=1.3e-4)
        assert list(back['probabilities']) == list(record['probabilities'])
        for name in ('stage', 'label', 'choice', 'margin'):
            assert [entry[name] for entry in back['decided']] == [entry[name] for entry in record['decided']]
        assert back['genotype'] == record['genotype'] and back['valid_accuracy'] == record['valid_accuracy']


def test_a_record_of_a_training_has_numbers_only() -> None:
    record = {'epoch': 1, 'of': 2, 'train_loss': 0.5}
    assert pack(record) == record == unpack(record)


def test_tables_that_do_not_fit_the_cell_are_refused() -> None:
    packed = pack(records_of(*CELLS['recurrent'])[0])
    with pytest.raises(ValueError, match='35 tables of probabilities do not fit 36 edges'):
        unpack({**packed, 'probabilities': packed['probabilities'].partition('.')[2]})


def test_indicators() -> None:
    record = records_of(*CELLS['nasbench201'])[0]
    equal, sure = {name: 0.2 for name in OPERATIONS}, {'none': 1.0, 'skip_connect': 0.0}
    assert indicators({**record, 'probabilities': {'a': equal, 'b': equal}}) == {'entropy': 1.0, 'skips': 2}
    assert indicators({**record, 'probabilities': {'a': equal, 'b': sure}})['entropy'] == 0.5
    assert indicators({**record, 'probabilities': {}}) == {'skips': 2}


def test_candidates_may_become_fewer_and_tables_may_be_missing(tmp_path: Path) -> None:
    """As where a search drops operations on its way, or has no α."""
    fewer, none = records_of(*CELLS['darts']), records_of(*CELLS['darts'])
    for table in fewer[-1]['probabilities'].values():
        del table['none'], table['max_pool_3x3']
    for record in none:
        record['probabilities'] = {}
    about = {'strategy': 's', 'seed': 1, 'recipe': 'r', 'metric': 'accuracy', 'over': True}
    for name, records in (('fewer', fewer), ('none', none)):
        write_search(tmp_path, name, search_data([unpack(pack(record)) for record in records], **about))
        assert 'class="cell"' in (tmp_path / f'{name}.html').read_text()


def data_of(kind: str, epochs: int = 3, **changes: Any) -> dict[str, Any]:
    metric = 'perplexity' if kind == 'recurrent' else 'accuracy'
    about = {'strategy': 'darts-pt', 'seed': 1, 'recipe': 'r', 'metric': metric, 'over': False, **changes}
    return search_data(records_of(*CELLS[kind], epochs), **about)


def test_what_changed_from_epoch_to_epoch() -> None:
    records = records_of(*CELLS['darts'])
    moved = list(DARTS_PAIR.normal)
    moved[0] = ('max_pool_3x3' if moved[0][0] != 'max_pool_3x3' else 'avg_pool_3x3', moved[0][1])
    records[1]['genotype']['normal'] = [list(edge) for edge in moved]
    # In any order, and an epoch twice: a resumed trial reports again.
    about = {'strategy': 's', 'seed': 1, 'recipe': 'r', 'metric': 'accuracy', 'over': True}
    data = search_data([records[2], records[0], records[1], records[1]], **about)
    assert [entry['changed_edges'] for entry in data['epochs']] == [0, 1, 1]
    assert [entry['epoch'] for entry in data['decisions']] == [2, 2]


def test_strengths_are_those_of_the_folder_whose_search_found_the_cell(tmp_path: Path) -> None:
    write_search(tmp_path, 'search', data_of('darts'))
    (tmp_path / 'genotype.json').write_text(DARTS_PAIR.to_json())
    for place in (tmp_path, tmp_path / 'genotype.json'):
        assert len(strengths_in(place, DARTS_PAIR)) == 16
    assert strengths_in(tmp_path, Genotype.random(random.Random(2))) == {}
    assert strengths_in(tmp_path / 'absent', DARTS_PAIR) == strengths_in(Path('DARTS_V2'), DARTS_PAIR) == {}


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip('no Chromium on this machine: the pages are not looked at')
    with Browser(tmp_path_factory.mktemp('chromium')) as browser:
        yield browser


CROWDED = """[...document.querySelectorAll('svg text, .edge span, h1, h2, h3')].filter(e => e.textContent.trim()).flatMap((a, i, all) =>
    all.slice(i + 1).filter(b => {
        const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
        return p.left + 1 < q.right && q.left + 1 < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom;
    }).map(b => a.textContent + ' on ' + b.textContent))"""
"""Pairs of texts of which one covers the other."""


@pytest.mark.parametrize(('kind', 'epochs'), [('darts', 131), ('recurrent', 50), ('nasbench201', 1), ('s4', 2)])
def test_the_page(kind: str, epochs: int, browser: Browser, tmp_path: Path) -> None:
    write_search(tmp_path, 'search', data_of(kind, epochs, over=True))
    browser.errors.clear()
    browser.requests.clear()
    page = (tmp_path / 'search.html').as_uri()
    browser.open(page)
    browser.wait(f'document.readyState == "complete" && document.body.innerText.includes("epoch {epochs} of {epochs}")')
    genotype = CELLS[kind][0]
    assert genotype.to_text() in browser.text()
    assert browser.run('document.querySelectorAll(".share").length') == sum(len(cell.edges) for cell in genotype.all_edges().values())
    kept = sum(len(cell.edges) for cell in genotype.all_edges().values()) if kind == 'nasbench201' else {'recurrent': 8}.get(kind, 16)
    assert browser.run('document.querySelectorAll(".kept").length') == kept
    assert browser.run(CROWDED) == []
    assert browser.run('document.documentElement.scrollWidth <= window.innerWidth')
    assert not browser.errors and set(browser.requests) <= {page, 'data:,'}
    assert (tmp_path / 'search.html').stat().st_size < 500_000


def test_an_unfinished_page_comes_again_and_a_finished_one_stays(tmp_path: Path) -> None:
    for over in (False, True):
        write_search(tmp_path, 'search', data_of('s4', over=over))
        assert ('http-equiv="refresh"' in (tmp_path / 'search.html').read_text()) != over
    before = (tmp_path / 'search.html').stat().st_mtime_ns
    write_search(tmp_path, 'search', data_of('s4', over=True))
    assert (tmp_path / 'search.html').stat().st_mtime_ns == before
    write_search(tmp_path, 'empty', search_data([], strategy='s', seed=1, recipe='r', metric='accuracy', over=False))
    assert 'no epoch is finished yet' in (tmp_path / 'empty.html').read_text()
