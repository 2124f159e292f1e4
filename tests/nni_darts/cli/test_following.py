"""The board of a running experiment, at the widths of terminals (live: tests/nni_darts/experiment/test_limits.py)."""

from __future__ import annotations

import re
import time

import pytest
from rich.console import Console

from nni_darts.cli.following import _Board, _status
from nni_darts.experiment.outlook import Outlook, RunningTrial
from nni_darts.recipes.metric import ACCURACY

OUTLOOK = Outlook(
    at=0.0,
    running=(
        RunningTrial('search darts-2nd 1', ACCURACY, 40.0, 3, 8, 0.9214, True, 25.0),
        RunningTrial('retrain sdarts-adv+pt 1', ACCURACY, 900.0, 12, 20, 0.97, False, 601.0),
        RunningTrial('select random 2.1', ACCURACY, 4.0),
    ),
    done=3,
    given_up=1,
    expected=10,
    left=250.0,
)


def drawn(outlook: Outlook | None, width: int, height: int = 24) -> list[str]:
    board = _Board()
    board.outlook = outlook
    console = Console(width=width, force_terminal=True, no_color=True)
    with console.capture() as captured:
        for renderable in board.lines(width, height):
            console.print(renderable)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.fixture
def outlook() -> Outlook:
    return Outlook(**{**vars(OUTLOOK), 'at': time.monotonic()})


def test_a_wide_terminal_has_bars_and_times(outlook: Outlook) -> None:
    search, retrain, select, total = drawn(outlook, 80)
    assert search.startswith('search darts-2nd 1      ━━━━━') and search.endswith('  3/8 valid 92.14 %   25 s left')
    assert retrain.startswith('retrain sdarts-adv+pt 1 ━━━━━━') and retrain.endswith(' 12/20 train 97.00 % 10 min left')
    assert select.startswith('select random 2.1') and select.endswith('starting                       4 s')
    assert total.startswith('3 of 10 trials done (1 given up) ━━━') and total.endswith(' about 4 min left')


@pytest.mark.parametrize('width', [37, 40])
def test_a_narrow_terminal_keeps_names_epochs_and_metrics(width: int, outlook: Outlook) -> None:
    search, retrain, select, total = drawn(outlook, width)
    assert search.split() == ['search', 'darts-2nd', '1', '3/8', '92.14', '%']
    assert re.fullmatch(r'retrain sd[\w-]*…pt 1    12/20 97.00 %', retrain)
    assert select.split() == ['select', 'random', '2.1', 'starting']
    assert all(len(line) <= width for line in (search, retrain, select))
    assert total == '3 of 10 done (1 given up), 4 min left'


def test_before_anything_is_known(outlook: Outlook) -> None:
    assert drawn(None, 80) == ['asking for the state of the experiment']
    assert drawn(Outlook(at=time.monotonic()), 80) == ['0 trials done']
    assert drawn(Outlook(at=time.monotonic(), expected=10), 40) == ['0 of 10 done']


def test_the_total_is_seen_on_a_low_terminal(outlook: Outlook) -> None:
    lines = drawn(outlook, 80, height=5)
    assert lines[2] == '… and 1 more' and lines[3].startswith('3 of 10 trials done') and len(lines) == 4


BUILDING = 'building compiled kernels, once per machine, about 60 s'


def test_long_work_before_the_first_epoch_is_said_once_for_all_trials() -> None:
    running = tuple(RunningTrial(f'search darts-2nd {seed}', ACCURACY, 20.0, activity=BUILDING) for seed in (1, 2))
    lines = drawn(Outlook(at=time.monotonic(), running=running, expected=10), 80)
    assert [line.split()[0] for line in lines] == ['search', 'search', 'building', '0'] and lines[2] == BUILDING
    assert max(map(len, drawn(Outlook(at=time.monotonic(), running=running), 40))) <= 40
    assert _status(Outlook(at=0.0, running=running[:1])) == f'0 trials done; search darts-2nd 1: {BUILDING}'


def test_the_line_of_status() -> None:
    assert _status(OUTLOOK) == (
        '3 of 10 trials done (1 given up), about 4 min left; search darts-2nd 1: epoch 3/8, valid 92.14 %; '
        'retrain sdarts-adv+pt 1: epoch 12/20, train 97.00 %; select random 2.1: starting, 4 s'
    )
