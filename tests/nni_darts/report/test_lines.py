"""The lines that people read of a run, which the command line and trials share."""

from __future__ import annotations

import pytest

from nni_darts.activity import Activity
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.report.lines import activity_line, decision_line, duration, epoch_line, result_lines, trial_line, warning_line

EPOCH = {'epoch': 3, 'of': 8, 'train_loss': 2.34567, 'train_accuracy': 0.5, 'valid_accuracy': 0.25, 'entropy': 0.9, 'seconds': 12.34}


def test_the_line_of_an_epoch() -> None:
    measured = 'epoch 3/8  train loss 2.3457  train accuracy 0.5000  valid accuracy 0.2500'
    assert epoch_line(EPOCH) == f'{measured}  12.3 s'
    assert epoch_line({**EPOCH, 'decisions': 2, 'of_decisions': 14}) == f'{measured}  decisions 2/14  12.3 s'
    text = {'epoch': 1, 'of': 1, 'train_loss': 5.0, 'train_perplexity': 148.4, 'valid_perplexity': 140.0, 'seconds': 1.0}
    assert epoch_line(text) == 'epoch 1/1  train loss 5.0000  train perplexity 148.4000  valid perplexity 140.0000  1.0 s'


@pytest.mark.parametrize(
    ('stage', 'choice', 'margin', 'line'),
    [
        ('operation', 'sep_conv_3x3', 0.0125, '  normal_op_2_0 keeps sep_conv_3x3  margin 0.0125'),
        ('topology', 1, 0.0, '  normal_op_2_0 drops input 1  margin 0.0000'),
        ('edge', 'skip_connect', None, '  normal_op_2_0 is decided: skip_connect'),
        ('ranking', 'the best of 5', 0.5, '  normal_op_2_0 is the best of 5  margin 0.5000'),
    ],
)
def test_the_line_of_a_decision(stage: str, choice: object, margin: float | None, line: str) -> None:
    assert decision_line({'stage': stage, 'label': 'normal_op_2_0', 'choice': choice, 'margin': margin}) == line


def test_the_lines_of_a_result() -> None:
    measured = {'valid_accuracy': 0.5, 'largest_class': 0.1, 'test_perplexity': 61.5}
    result = {**measured, 'ended': 'patience', 'seconds': 12.5, 'parameters': 77114}
    assert list(result_lines(result, 'out/s1')) == [
        '  valid accuracy  50.00 %',
        '   largest class  10.00 %',
        ' test perplexity  61.50',
        '           ended  patience',
        '         seconds  12.5',
        '      parameters  77,114',
        '           files  out/s1',
    ]


def test_other_lines() -> None:
    assert warning_line('few steps') == 'Warning: few steps.'
    assert activity_line(Activity('loading torch')) == 'loading torch'
    assert activity_line(Activity('building', seconds=60.0)) == 'building, about 60 s'


@pytest.mark.parametrize(
    ('final', 'validated', 'line'),
    [
        (None, True, '  retrain a 1: no result'),
        ({'default': 0.5}, True, '  retrain a 1: validation 50.00 %'),
        ({'default': 0.5, 'test_accuracy': 0.25}, True, '  retrain a 1: validation 50.00 %, test 25.00 %'),
        ({'default': 0.25, 'test_accuracy': 0.25}, False, '  retrain a 1: test 25.00 %'),
    ],
)
def test_the_line_of_a_trial_that_has_ended(final: dict | None, validated: bool, line: str) -> None:
    assert trial_line('retrain a 1', ACCURACY, final, validated=validated) == line


def test_perplexity_has_its_name_as_unit() -> None:
    assert trial_line('select b 2', PERPLEXITY, {'default': 61.5}) == '  select b 2: validation 61.50 perplexity'


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.4, '0 s'),
        (40, '40 s'),
        (99.4, '99 s'),
        (99.6, '2 min'),
        (59 * 60, '59 min'),
        (125 * 60, '2 h 05'),
        (47 * 3600, '47 h 00'),
        (76 * 3600, '3 d 4 h'),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
