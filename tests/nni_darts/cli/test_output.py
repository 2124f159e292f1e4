"""Sentences on a terminal break between words."""

from __future__ import annotations

import pytest

from nni_darts.cli.output import wrapped

SENTENCE = '  retrain darts-2nd 1: validation 100.00 %, test 98.89 %'


@pytest.mark.parametrize('columns', range(12, 60))
def test_a_line_breaks_between_words_and_keeps_its_units(columns: int) -> None:
    lines = wrapped(SENTENCE, columns).split('\n')
    assert ' '.join(' '.join(lines).split()) == SENTENCE.strip()
    assert all(line.startswith('    ') for line in lines[1:]) and not any(line.lstrip().startswith('%') for line in lines)
    assert max(map(len, lines)) <= max(columns, len('    validation'))


def test_a_line_that_fits_is_left_alone() -> None:
    assert wrapped(SENTENCE, 80) == SENTENCE
    assert wrapped('see /a/very/long-path/that-has/no-spaces', 20).split('\n') == ['see', '  /a/very/long-path/that-has/no-spaces']
