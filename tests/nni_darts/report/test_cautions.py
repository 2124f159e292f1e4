from __future__ import annotations

from pathlib import Path

import pytest

from nni_darts.report.cautions import after_search, after_training, before_search
from nni_darts.report.searches import search_data, warnings_in, write_search
from tests.nni_darts.report.test_searches import CELLS, records_of


def test_too_few_steps_are_said_before() -> None:
    (sentence,) = before_search('darts-1st', 15, 0.001)
    assert '15 steps of α at a learning rate of 0.001 move α by about 0.015 at most' in sentence and 'photos-small' in sentence
    assert before_search('darts-1st', 96, 0.003) == [] == before_search('darts-2nd', 50 * 391, 3e-4)


def test_an_undecided_search_is_said_after() -> None:
    (sentence,) = after_search([{'entropy': 0.3}, {'entropy': 0.99991}], [])
    assert 'the entropy of α is 0.9999' in sentence and 'raise search.epochs' in sentence
    assert after_search([{'entropy': 0.9999}, {'entropy': 0.95}], []) == [] == after_search([{'loss': 1.0}], [])


def test_decisions_count_instead_of_entropy_where_there_are_any() -> None:
    def decisions(*margins: float | None) -> list[dict]:
        return [{'margin': margin} for margin in margins]

    assert after_search([{'entropy': 1.0}], decisions(0.02, 0.01, 0.0)) == []
    assert '2 of 3 decisions were ties' in after_search([{'entropy': 0.5}], decisions(0.0, None, 0.0, 0.1))[0]


@pytest.mark.parametrize(
    ('accuracy', 'images', 'better'),
    [
        (0.30, 40, False),
        (0.425, 40, False),
        (0.45, 40, True),
        (0.31, 40, False),
        (0.31, 10_000, True),
        (0.2, 10_000, False),
        (1.0, 5, True),
    ],
)
def test_no_better_than_the_largest_class(accuracy: float, images: int, better: bool) -> None:
    """Wilson's intervals of 17 and 18 of 40 begin at 0.2851 and 0.3071."""
    said = after_training({'test_accuracy': accuracy, 'valid_accuracy': 0.0, 'largest_class': 0.3, 'images': images})
    assert bool(said) != better
    if said:
        assert said[0].startswith('there is no evidence that the network does better than always predicting the largest class (30.0 % of')
        assert f'its test accuracy is {100 * accuracy:.1f} % (95 % interval on {images:,} images: ' in said[0]


def test_where_there_is_no_test_validation_counts() -> None:
    (sentence,) = after_training({'valid_accuracy': 0.5, 'largest_class': 0.5, 'images': 100})
    assert 'its validation accuracy is 50.0 % (95 % interval on 100 images: 40.4 to 59.6 %)' in sentence
    assert after_training({'test_perplexity': 100.0}) == after_training({'test_accuracy': 0.0}) == after_training({}) == []


def test_page_and_data_have_the_warning_once_the_search_is_over(tmp_path: Path) -> None:
    genotype, names = CELLS['darts']
    records = records_of(genotype, names)
    for record in records:
        record['decided'] = []
        record['probabilities'] = {label: dict.fromkeys(table, 1 / len(table)) for label, table in record['probabilities'].items()}
    about = {'strategy': 'darts-1st', 'seed': 1, 'metric': 'accuracy', 'recipe': 'digits'}
    for over in (False, True):
        write_search(tmp_path, 'search', search_data(records, **about, over=over))
        page = (tmp_path / 'search.html').read_text('utf-8')
        assert ('nothing was decided: the cell is close to chance' in page) == over == bool(warnings_in(tmp_path))
    assert warnings_in(tmp_path / 'nowhere') == []
