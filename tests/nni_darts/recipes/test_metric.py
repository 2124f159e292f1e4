"""Perplexity is better where it is lower: everywhere that results are compared or shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from nni_darts.errors import InputError
from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.trial import final_metric
from nni_darts.experiment.tuner import SearchAndRetrain
from nni_darts.experiment.validate import check_experiment
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import ACCURACY, METRICS, PERPLEXITY
from nni_darts.report.summary import format_table, summarize, write_summary

ROOT = Path(__file__).parents[3]
RECIPE = Recipe.load('pydoc', {'search.random_samples': 3})


def test_directions() -> None:
    assert ACCURACY.best([0.1, 0.3, 0.2], float) == 0.3 and PERPLEXITY.best([30.0, 10.0, 20.0], float) == 10.0
    assert PERPLEXITY.best([], float) is None and PERPLEXITY.best([(1, 'a'), (1, 'b')], lambda entry: entry[0]) == (1, 'a')
    assert (ACCURACY.shown(0.5), ACCURACY.unit) == ('50.00', '%') and (PERPLEXITY.shown(55.7), PERPLEXITY.unit) == ('55.70', 'perplexity')
    assert [name for name, metric in METRICS.items() if metric.optimize_mode == 'minimize'] == ['perplexity']
    assert [METRICS[name].unit for name in METRICS] == ['%', '% balanced accuracy', '% AUROC', '% F1', 'perplexity']


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
    assert 'validation perplexity' in shown and ' 61.50 ' in shown and '%' not in shown.replace('95 % interval', '')
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


def test_a_trial_reports_accuracy_beside_another_metric() -> None:
    result = {'valid_auroc': 0.9, 'valid_accuracy': 0.7, 'test_auroc': 0.8, 'test_accuracy': 0.6, 'train_accuracy': 0.9}
    reported = final_metric(result, METRICS['auroc'], 'k', 'a')
    assert reported == {'default': 0.9, 'arch': 'a', 'key': 'k', 'test_auroc': 0.8, 'valid_accuracy': 0.7, 'test_accuracy': 0.6}


@pytest.mark.parametrize(('name', 'columns'), [('auroc', ['test % AUROC', 'test %']), ('accuracy', ['test %'])])
def test_table_and_page_have_accuracy_beside_another_metric(name: str, columns: list[str], tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits', {'search.random_samples': 1, 'metric': name}), ('random',), (1,))
    results: dict = {}
    while ready := [job for job in protocol.jobs(results, ()) if job.key not in results]:
        for job in ready:
            extra = {f'test_{name}': 0.875, 'test_accuracy': 0.75 if name == 'auroc' else 0.875} if job.stage == 'retrain' else {}
            results[job.key] = {'default': 0.5, 'arch': job.arch, 'seconds': 1.0, **extra}
    summary = summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=True)
    header, _, row = format_table(summary).splitlines()
    assert re.findall(r'test %(?: AUROC)?', header) == columns
    assert re.findall(r'87\.50|75\.00', row) == (['87.50', '75.00'] if name == 'auroc' else ['87.50'])
    write_summary(tmp_path, summary)
    table = (tmp_path / 'summary.html').read_text().partition('id="strategies-table"')[2].partition('</table>')[0]
    assert ('test accuracy, %' in table, '>75.00<' in table) == ((True, True) if name == 'auroc' else (False, False))


@pytest.mark.parametrize(('width', 'last'), [(200, 'cell'), (80, 'search s'), (40, 'test %')])
def test_the_table_fits_into_the_terminal(width: int, last: str) -> None:
    (row,) = summarize(protocol := finished()[0], protocol.jobs({}, ()), Standing({}), [], over=True)['strategies']
    row |= {'strategy': 'darts-2nd', 'code': 'RpqZKoJJKJKo', 'parameters': 109_050, 'multiply_adds': 1_307_520}
    spread = {'mean': 0.9861, 'sd': 0.0033, 'count': 2}
    row |= {'select': spread, 'test': {**spread, 'count': 1}}
    table, _, note = format_table({'metric': 'accuracy', 'seeds': [1, 2], 'strategies': [row]}, width).partition('\n\n')
    assert table.splitlines()[0].endswith(last) and max(map(len, table.splitlines())) <= width
    assert note.startswith('Columns that did not fit: ') == (width < 200) and note.endswith('' if width == 200 else 'cell.')


def test_a_recipe_names_its_metric() -> None:
    recipe = Recipe.load('digits', ['metric=auroc'])
    assert recipe.metric is METRICS['auroc'] and Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.load('digits').metric is ACCURACY and RECIPE.to_dict()['metric'] == 'perplexity'
    for name, change, sentence in (
        ('digits', 'metric=mcc', "metric: unknown metric 'mcc'; known here: accuracy, balanced_accuracy, auroc, f1"),
        ('digits', 'metric=perplexity', "unknown metric 'perplexity'; known here: accuracy"),
        ('pydoc', 'metric=auroc', "unknown metric 'auroc'; known here: perplexity"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            Recipe.load(name, [change])


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


@pytest.mark.parametrize(
    ('name', 'value', 'possible'),
    [('accuracy', 1.02, 1), ('f1', -0.01, 0), ('auroc', 0.5, 0.5), ('perplexity', 61, 61), ('perplexity', -3, 0)],
)
def test_bounds_of_intervals_are_values_that_the_metric_can_take(name: str, value: float, possible: float) -> None:
    assert METRICS[name].within(value) == possible
