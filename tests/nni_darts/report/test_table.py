"""Paired tests against values worked out by hand; the table in all its formats."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from nni_darts.errors import InputError
from nni_darts.report.table import compare, rows_of
from nni_darts.report.table_formats import FORMATS
from tests.helpers.results import summary_of


def test_the_paired_t_test() -> None:
    found = compare({1: 2.0, 2: 4.0, 3: 6.0, 9: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0, 4: 100.0})
    assert found.seeds == (1, 2, 3)
    assert (found.difference.mean, found.difference.sd) == (2.0, 1.0)
    # t = 2 / (1 / √3) = 3.4641 with 2 degrees of freedom: p = 1 − t / √(2 + t²)
    assert found.t_p == pytest.approx(1 - 3.4641016 / math.sqrt(2 + 12), abs=1e-6)
    assert found.wilcoxon_p is None


@pytest.mark.parametrize(('smallest', 'p'), [(1, 2 / 64), (-1, 4 / 64)])
def test_the_signed_rank_test_of_six_pairs(smallest: int, p: float) -> None:
    """Of the 2⁶ signs one has no negative rank, and one more only the smallest; both sides count."""
    values = {seed: difference for seed, difference in enumerate([smallest, 2, 3, 4, 5, 6.5], start=1)}
    assert compare(values, dict.fromkeys(values, 0.0)).wilcoxon_p == pytest.approx(p)


def test_pairs_that_are_equal_do_not_count_in_the_signed_rank_test() -> None:
    values = {seed: float(difference) for seed, difference in enumerate([0, 2, 3, 4, 5, 6], start=1)}
    found = compare(values, dict.fromkeys(values, 0.0))
    assert found.wilcoxon_p is None and found.t_p is not None


@pytest.mark.parametrize('differences', [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.02]])
def test_differences_without_a_spread_prove_nothing(differences: list[float]) -> None:
    """0.9 − 0.8 and 0.5 − 0.4 are not the same number to a computer: a t-test of them would give p = 0."""
    baseline = {seed: 0.1 * seed for seed in range(1, len(differences) + 1)}
    found = compare({seed: baseline[seed] + difference for seed, difference in zip(baseline, differences)}, baseline)
    assert (found.t_p, found.wilcoxon_p) == (None, None)
    assert found.difference.mean == pytest.approx(differences[0])


def test_no_seed_in_common_is_no_comparison() -> None:
    assert compare({1: 0.5}, {2: 0.5}) is None


VALID = {'darts-1st': {1: 0.90, 2: 0.94, 3: 0.92}, 'random': {1: 0.89, 2: 0.91, 3: 0.87}}


def test_rows_of_an_experiment() -> None:
    darts, random = rows_of({'abc': summary_of(VALID, {'darts-1st': [0.95, 0.97], 'random': [0.96, 0.94]})})
    assert (darts.strategy, random.strategy, darts.experiments, darts.recipe) == ('darts-1st', 'random', ('abc',), 'digits')
    assert darts.seeds == VALID['darts-1st']
    assert (darts.valid.mean, darts.valid.sd) == (pytest.approx(0.92), pytest.approx(0.02))
    assert (darts.test.n, darts.test.mean) == (2, pytest.approx(0.96))
    assert (darts.parameters, darts.multiply_adds) == (1234, 56789)
    assert darts.search_seconds == pytest.approx(25)  # searches of 10, 20 and 30 s, and 5 s of short training each
    assert random.search_seconds == pytest.approx(5)
    assert darts.against_baseline.difference.mean == pytest.approx((0.01 + 0.03 + 0.05) / 3)
    assert random.against_baseline is None


def test_experiments_with_the_same_recipe_are_put_together() -> None:
    first = summary_of({'darts-1st': {1: 0.90}, 'random': {1: 0.80}})
    second = summary_of({'darts-1st': {1: 0.10, 2: 0.92}, 'random': {2: 0.90}})
    darts, random = rows_of({'abc': first, 'def': second})
    assert darts.seeds == {1: 0.90, 2: 0.92}  # of a seed that both have, the first one's
    assert random.seeds == {1: 0.80, 2: 0.90} and darts.experiments == ('abc', 'def')
    assert darts.against_baseline.seeds == (1, 2)


def test_other_recipes_are_not_compared() -> None:
    rows = rows_of({'abc': summary_of(VALID), 'def': summary_of({'darts-1st': {1: 0.5}}, **{'search.epochs': 3})})
    assert [(row.strategy, row.experiments) for row in rows] == [('darts-1st', ('abc',)), ('random', ('abc',)), ('darts-1st', ('def',))]
    assert rows[2].against_baseline is None
    assert 'def' in FORMATS['text'](rows)


def test_perplexity_and_accuracy_make_no_table() -> None:
    text = summary_of({'darts-1st': {1: 200.0}}, recipe='pydoc')
    with pytest.raises(InputError, match='accuracy and perplexity: make a table for each.'):
        rows_of({'abc': summary_of(VALID), 'def': text})
    (row,) = rows_of({'def': text})
    assert row.valid.mean == 200 and 'smaller is better' in FORMATS['text']([row])


def test_a_table_before_anything_is_known() -> None:
    rows = rows_of({'abc': summary_of({'darts-1st': {}, 'random': {}} | {'darts-2nd': {1: 0.5}})})
    assert rows[0].valid is None and rows[0].search_seconds is None
    for write in FORMATS.values():
        assert 'darts-1st' in write(rows)


def test_formats() -> None:
    rows = rows_of({'abc': summary_of(VALID, {'darts-1st': [0.95, 0.97], 'random': [0.96]})})
    text = FORMATS['text'](rows).splitlines()
    # ± t(0.975, 2) · 0.02 / √3 = 4.30265 · 0.0115470 = 0.0496827
    assert '92.00 ± 2.00' in text[2] and '[87.03, 96.97]' in text[2] and '96.00 ± 1.41' in text[2] and '1,234' in text[2]
    assert '+3.00' in text[2] and text[2].split()[-2:] == ['0.122', '–']  # t = 2.59808, 2 degrees of freedom; three pairs only
    assert '*' not in FORMATS['text'](rows)
    markdown = FORMATS['markdown'](rows).splitlines()
    assert markdown[0].startswith('| strategy | seeds | valid % |') and markdown[1].startswith('| --- | ---: |')
    assert markdown[2].count('|') == markdown[0].count('|')
    latex = FORMATS['latex'](rows)
    assert r'92.00 $\pm$ 2.00' in latex and r'95 \% interval' in latex and r'\begin{tabular}{lrrrrrrrrrrrr}' in latex
    body = [line for line in latex.splitlines() if line.endswith(r'\\')]
    assert {line.count('&') for line in body} == {12}
    (darts, random) = csv.DictReader(io.StringIO(FORMATS['csv'](rows)))
    assert float(darts['valid_mean']) == pytest.approx(0.92) and darts['common_seeds'] == '1 2 3'
    assert float(darts['t_p']) == pytest.approx(0.12169, abs=1e-5) and darts['wilcoxon_p'] == random['t_p'] == ''
    assert json.loads(FORMATS['json'](rows))[0]['against_baseline']['difference']['n'] == 3


def test_a_further_cost_has_a_column_if_a_network_has_it() -> None:
    summary = summary_of(VALID, {'darts-1st': [0.95], 'random': [0.96]})
    assert 'parameters | multiply-adds | search' in FORMATS['markdown'](rows_of({'abc': summary}))
    summary['strategies'][0]['latency_ms'] = 12.345678
    rows = rows_of({'abc': summary})
    header, _, darts, random = (line.split(' | ') for line in FORMATS['markdown'](rows).splitlines()[:4])
    at = header.index('latency, ms')
    assert (darts[at], random[at]) == ('12.35', '–')
    assert next(csv.DictReader(io.StringIO(FORMATS['csv'](rows))))['latency_ms'] == '12.345678'
