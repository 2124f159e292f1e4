"""What the summary page tells a user to do must work (the page in a browser: tests/nni_darts/experiment/test_live.py)."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nni_darts.cli.genotypes import read_genotype
from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.genotypes import genotype_from_code
from nni_darts.recipes import Recipe
from nni_darts.report.cost import network_cost
from nni_darts.report.summary import Observed, footnotes, format_cost_limits, format_largest_class, format_limit, summarize, write_summary


@pytest.mark.parametrize('space', ['darts', 'nasbench201'])
def test_the_cell_on_the_page_retrains_with_the_commands_on_the_page(space: str, tmp_path: Path) -> None:
    changes = {'space': {'name': space, 'channels': 4, 'cells': 3}, 'retrain.cells': 3, 'search.random_samples': 1}
    protocol = Protocol(Recipe.load('digits', changes), ('random',), (1,))
    results = {job.key: {'default': 0.5, 'arch': job.arch, 'seconds': 1.0} for job in protocol.jobs({}, ())}
    write_summary(tmp_path, summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=True))
    page = (tmp_path / 'summary.html').read_text()
    assert page.count('<svg ') == 2 and page.count('class="cell"') == 1  # beside the cell, accuracy against cost
    page = html.unescape(page)
    select, again, full = (shlex.split(line) for line in re.findall(r'nni-darts retrain .*?(?=\n|</pre>)', page))
    assert select[4:6] == ['--stage', 'select'] and '--stage' not in again + full
    cells = [genotype_from_code(result['arch']) for result in results.values()]
    for words in (select, again, full):
        options = dict(word.split('=', 1) if '=' in word else (word, following) for word, following in zip(words, words[1:]))
        assert [read_genotype(options['--genotype'])] == cells
    assert Recipe.load(str(tmp_path / again[3])) == protocol.recipe
    retrain = Recipe.load(full[3]).retrain
    assert network_cost(cells[0], channels=retrain.channels, cells=retrain.cells, num_classes=10).parameters > 0


def test_searches_are_named_and_linked(tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits'), ('darts-1st+pt', 'random'), (1, 2))
    jobs = protocol.jobs({}, ())
    pages = {'search darts-1st+pt 2': 'search-darts-1st-pt-2.html'}
    write_summary(tmp_path, summarize(protocol, jobs, Standing(), [], Observed(pages), over=False))
    page = (tmp_path / 'summary.html').read_text()
    assert page.count('href="search-darts-1st-pt-2.html"') == 2  # beside its seed, and among the jobs
    assert 'nni-darts search --recipe recipe.yml --strategy darts-1st+pt --seed 1 --output search-darts-1st-pt-1' in page
    assert 'None yet.' in page


def test_a_result_no_better_than_the_largest_class_is_no_success(tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits', ['search.random_samples=1']), ('random', 'darts-1st'), (1,))
    arch = protocol.recipe.random_cells(1, 1)[0].code()
    common = {'default': 0.9, 'arch': arch, 'seconds': 1.0, 'images': 100}
    results = {
        f'{stage} {name}': {**common, 'largest_class': 0.5} for stage, name in (('search', 'darts-1st 1'), ('select', 'darts-1st 1'))
    }
    results |= {'select random 1.1': {**common, 'largest_class': 0.5}}
    unfinished = summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=False)
    assert format_largest_class(unfinished) == 'The largest class is 50.00 % of the validation images.' and unfinished['cautions'] == []
    results |= {
        f'retrain {name} 1': {**common, 'largest_class': 0.45, 'test_accuracy': accuracy}
        for name, accuracy in (('random', 0.48), ('darts-1st', 0.9))
    }
    summary = summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=True)
    sentence = 'The largest class is 50.00 % of the validation images and 45.00 % of the test images.'
    assert format_largest_class(summary) == sentence
    (caution,) = summary['cautions']
    assert (
        caution.startswith('retrain random 1: there is no evidence') and 'test accuracy is 48.0 % (95 % interval on 100 images: ' in caution
    )
    write_summary(tmp_path, summary)
    page = (tmp_path / 'summary.html').read_text()
    assert sentence in page and page.count('Warning:') == 1 and caution in page


def test_the_summary_of_an_older_version_has_no_largest_class() -> None:
    assert format_largest_class({'strategies': []}) == ''


def test_an_experiment_that_a_limit_ended_says_so(tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits'), ('darts-1st',), (1, 2))
    results = {'search darts-1st 1': {'default': 0.5, 'arch': protocol.recipe.random_cells(1, 1)[0].code(), 'seconds': 1.0}}
    jobs = protocol.jobs(results, ())
    for over in (True, False):
        summary = summarize(protocol, jobs, Standing(results), [], over=over)
        waiting = ['search darts-1st 2', 'select darts-1st 1']
        assert sorted(summary['not_started']) == (waiting if over else [])
        assert ('was used up when 1 of 3 known jobs were done.' in format_limit(summary)) == over
        write_summary(tmp_path, summary)
        assert ('Ended early:' in (tmp_path / 'summary.html').read_text()) == over


def test_limits_on_the_cost_are_named_on_the_page_and_below_the_table(tmp_path: Path) -> None:
    limits = {'limits.parameters': '80k', 'limits.multiply_adds': '1.2M'}
    protocol = Protocol(Recipe.load('digits', {**limits, 'search.random_samples': 2}), ('random',), (1,))
    results: dict[str, dict[str, Any]] = {}
    for number, job in enumerate(protocol.jobs({}, ())):
        costs = {'parameters': 60_000 + 10_000 * number, 'multiply_adds': 900_000 + 1000 * number}
        results[job.key] = {'default': 0.5 + 0.1 * number, 'arch': job.arch, 'seconds': 1.0, **costs}
    summary = summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=False)
    sentence = 'Limits of the network to retrain: parameters 80,000; multiply-adds 1,200,000.'
    assert format_cost_limits(summary) == sentence and sentence in footnotes(summary)
    write_summary(tmp_path, summary)
    page = (tmp_path / 'summary.html').read_text()
    assert sentence in page and 'The upright line is the limit' in page
    assert page.count('class="limit"') == 2 and '>limit 80k</text>' in page and '>limit 1.2M</text>' in page


def test_without_limits_nothing_is_said_of_them(tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits'), ('darts-1st',), (1,))
    summary = summarize(protocol, protocol.jobs({}, ()), Standing(), [], over=False)
    assert format_cost_limits(summary) == format_cost_limits({'strategies': []}) == ''
    write_summary(tmp_path, summary)
    assert 'Limits of' not in (tmp_path / 'summary.html').read_text()
