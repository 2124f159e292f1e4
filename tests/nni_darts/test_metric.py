"""Perplexity is better where it is lower: everywhere that results are compared or shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.trial import final_metric
from nni_darts.experiment.tuner import SearchAndRetrain
from nni_darts.experiment.validate import check_experiment
from nni_darts.metric import ACCURACY, METRICS, PERPLEXITY
from nni_darts.recipe import Recipe
from nni_darts.report.summary import format_table, summarize, write_summary

ROOT = Path(__file__).parents[2]
RECIPE = Recipe.load('pydoc', {'search.random_samples': 3})


def test_directions() -> None:
    assert ACCURACY.best([0.1, 0.3, 0.2], float) == 0.3 and PERPLEXITY.best([30.0, 10.0, 20.0], float) == 10.0
    assert PERPLEXITY.best([], float) is None and PERPLEXITY.best([(1, 'a'), (1, 'b')], lambda entry: entry[0]) == (1, 'a')
    assert (ACCURACY.shown(0.5), ACCURACY.unit) == ('50.00', '%') and (PERPLEXITY.shown(55.7), PERPLEXITY.unit) == ('55.70', 'perplexity')
    assert {name: metric.optimize_mode for name, metric in METRICS.items()} == {'accuracy': 'maximize', 'perplexity': 'minimize'}


def finished() -> tuple[Protocol, dict]:
    protocol = Protocol(RECIPE, ('random',), (1, 2))
    results: dict = {}
    while ready := [job for job in protocol.jobs(results, ()) if job.key not in results]:
        for job in ready:
            extra = {'test_perplexity': 61.5} if job.stage == 'retrain' else {}
            results[job.key] = {'default': 90.0 - 10 * job.cell - job.seed, 'arch': job.arch, 'seconds': 1.0, 'parameters': 5, **extra}
    return protocol, results


def test_the_cell_with_the_lowest_perplexity_is_retrained() -> None:
    protocol, results = finished()
    assert results['retrain random 1']['arch'] == results['select random 2.3']['arch']


def test_the_summary_shows_each_seeds_best(tmp_path: Path) -> None:
    protocol, results = finished()
    summary = summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=True)
    (row,) = summary['strategies']
    assert row['select']['mean'] == pytest.approx((59 + 58) / 2) and row['test']['mean'] == 61.5
    assert json.loads(json.dumps(summary)) == summary
    table = format_table(summary)
    assert 'select valid perplexity' in table and '58.50 ± 0.71' in table and '61.50' in table and '%' not in table
    write_summary(tmp_path, summary)
    page = (tmp_path / 'summary.html').read_text()
    shown = re.sub('<[^>]*>', ' ', page.partition('<h2>Strategies')[2])
    assert 'validation perplexity' in shown and ' 61.50 ' in shown and '%' not in shown
    assert '--recipe ptb ' in page


def test_what_a_trial_reports() -> None:
    result = {'valid_perplexity': 70.0, 'train_perplexity': 50.0, 'test_perplexity': 71.0, 'seconds': 3.0}
    assert final_metric(result, PERPLEXITY, 'k', 'a') == {
        'default': 70.0,
        'arch': 'a',
        'key': 'k',
        'test_perplexity': 71.0,
        'seconds': 3.0,
    }


@pytest.mark.parametrize(
    ('recipe', 'mode', 'wanted'),
    [
        ('pydoc', None, 'minimize'),
        ('pydoc', 'maximize', 'minimize'),
        ('pydoc', 'minimize', None),
        ('digits', None, None),
        ('digits', 'maximize', None),
        ('digits', 'minimize', 'maximize'),
    ],
)
def test_the_tuner_takes_no_wrong_direction(recipe: str, mode: str | None, wanted: str | None) -> None:
    """NNI's page reads its direction from classArgs.optimize_mode."""
    error = SearchAndRetrain(recipe=recipe, optimize_mode=mode).error
    assert (error is None) if wanted is None else f'optimize_mode must be {wanted}' in error


def test_the_example_says_its_direction(tmp_path: Path) -> None:
    example = ROOT / 'examples' / 'recurrent.yml'
    assert not check_experiment(example).errors
    config = yaml.safe_load(example.read_text())
    assert config['tuner']['classArgs'].pop('optimize_mode') == 'minimize'
    (tmp_path / 'example.yml').write_text(yaml.safe_dump(config))
    assert any('optimize_mode must be minimize' in error for error in check_experiment(tmp_path / 'example.yml').errors)
