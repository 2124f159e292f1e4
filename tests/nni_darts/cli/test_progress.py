"""The display of a command at work: on real pseudo-terminals of 80 and 40 columns, on a dumb one, without colours, in a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nni_darts.activity import Activity, announce
from nni_darts.cli.progress import Pace, Progress, aligned
from tests.helpers.terminal import Session, on_terminal
from tests.helpers.tiny import overrides, write_images

COMMAND = [sys.executable, '-W', 'ignore', '-m', 'nni_darts']

PLAY = """
import logging, sys, time
from pathlib import Path
from nni_darts.activity import announce, under_way
from nni_darts.cli.output import interruptible
from nni_darts.cli.progress import Progress

def record(epoch):
    return {'epoch': epoch, 'of': 3, 'train_loss': 2.5, 'train_accuracy': 0.25, 'valid_accuracy': 0.5, 'seconds': 1.0}

with interruptible(Path('out')), Progress() as progress:
    with under_way('loading torch'):
        time.sleep(0.3)
    progress.start('recipe digits; data digits', ['few steps of α'])
    announce('epochs', 0, 3, lasting=True)
    with under_way('building compiled kernels, once per machine', seconds=60):
        time.sleep(0.5)
    for epoch in range(3):
        announce('epochs', epoch, 3, lasting=True)
        for batch in range(4):
            time.sleep(0.1)
            announce('training', batch + 1, 4)
        if epoch:
            announce('decisions', epoch - 1, 2, lasting=True)
            for batch in range(3):
                time.sleep(0.1)
                announce('scoring reduce_op_5_4', batch + 1, 3)
            progress.decision({'stage': 'operation', 'label': 'reduce_op_5_4', 'choice': 'sep_conv_3x3', 'margin': 0.125})
            announce('decisions', epoch, 2, lasting=True)
        progress.epoch(record(epoch + 1))
        print('stray', epoch)
        logging.warning('stray warning %d', epoch)
print('the result')
"""

EPOCH = 'epoch {}/3  train loss 2.5000  train accuracy 0.2500  valid accuracy 0.5000  1.0 s'
DECISION = '  reduce_op_5_4 keeps sep_conv_3x3  margin 0.1250'
SAID = ['recipe digits; data digits', 'Warning: few steps of α.', EPOCH.format(1), DECISION, EPOCH.format(2), DECISION, EPOCH.format(3)]
KERNELS = 'building compiled kernels, once per machine, about 60 s'


def words(lines: list[str]) -> str:
    """The lines as one text: where a terminal broke them does not matter."""
    return ' '.join(' '.join(lines).split())


def played(columns: int, **environment: str) -> Session:
    return on_terminal([sys.executable, '-c', PLAY], columns=columns, environment=environment)


@pytest.mark.parametrize('columns', [80, 40])
def test_bars_are_drawn_below_what_is_said_and_vanish(columns: int) -> None:
    session = played(columns)
    assert session.returncode == 0 and session.cursor
    stray = [part for epoch in range(3) for part in (f'stray {epoch}', f'WARNING:root:stray warning {epoch}')]
    expected = [*SAID[:3], *stray[:2], *SAID[3:5], *stray[2:4], *SAID[5:], *stray[4:], 'the result']
    assert words(session.lines) == words(expected)
    drawn = session.ever('━')
    assert all(len(line) <= columns for line in drawn)
    assert [line for line in drawn if re.fullmatch(r'epochs +━.*━ +1/3 +\d+ s left', line)]
    assert [line for line in drawn if re.fullmatch(r'training +━.* 2/4( .*)?', line)]
    assert [line for line in drawn if re.match(r'decisions +━.* 1/2', line)]
    assert [line for line in drawn if re.match(r'scoring[ \w]*…?_5_4 .* 2/3', line)]
    assert session.ever('loading torch  0 s')
    views = [words(view) for view in session.views]
    assert any(re.search(f'recipe digits; .* epochs .* 0/3 . {KERNELS} ', view) for view in views)
    assert {30 <= colour <= 38 or 90 <= colour <= 97 for colour in session.colours} >= {True}


def test_the_bars_of_a_terminal_without_colours(columns: int = 80) -> None:
    session = played(columns, NO_COLOR='1')
    assert session.ever('epochs +━.* 1/3') and session.cursor
    assert not {colour for colour in session.colours if 30 <= colour <= 49 or colour >= 90}


def test_a_dumb_terminal_gets_lines() -> None:
    session = played(80, TERM='dumb')
    assert session.returncode == 0 and not session.colours
    stray = {f'stray {epoch}' for epoch in range(3)} | {f'WARNING:root:stray warning {epoch}' for epoch in range(3)}
    assert [line for line in session.lines if line not in stray] == words_broken([*SAID[:2], KERNELS, *SAID[2:], 'the result'], 80)


def words_broken(lines: list[str], columns: int) -> list[str]:
    """Lines as a terminal breaks them that is only written to."""
    return [line[start : start + columns].rstrip() for line in lines for start in range(0, len(line), columns)]


@pytest.mark.parametrize('environment', [{}, {'FORCE_COLOR': '1'}, {'NO_COLOR': '1'}])
def test_a_pipe_gets_lines(environment: dict[str, str]) -> None:
    base = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'TERM': 'xterm-256color'}
    done = subprocess.run([sys.executable, '-c', PLAY], capture_output=True, text=True, env=base | environment, timeout=60)
    assert done.stdout.splitlines() == ['stray 0', 'stray 1', 'stray 2', 'the result']
    lines = [line for line in done.stderr.split('\n') if not line.startswith('WARNING:root')]
    assert lines == [*SAID[:2], KERNELS, *SAID[2:], '']
    assert '\x1b' not in done.stderr and '\r' not in done.stderr


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    session = on_terminal([sys.executable, '-c', PLAY], interrupt=lambda lines: any('decisions' in line for line in lines))
    assert session.returncode == 130 and session.cursor
    assert session.ever('decisions') and not [line for line in session.lines if '━' in line]
    assert session.lines[-1].startswith('interrupted; ') or '--resume' in words(session.lines[-2:])


def test_a_search_shows_at_once_that_torch_is_loaded_and_ctrl_c_ends_that(tmp_path: Path) -> None:
    command = [*COMMAND, 'search', '--output', str(tmp_path / 'out')]
    session = on_terminal(command, interrupt=lambda lines: any('loading torch' in line for line in lines))
    assert session.returncode == 130 and session.cursor
    assert '--resume' in words(session.lines) and 'loading torch' not in words(session.lines)
    assert not (tmp_path / 'out').exists()


def test_a_search_on_a_narrow_terminal_keeps_stdout_for_results(tmp_path: Path) -> None:
    images = write_images(tmp_path / 'images.npz')
    sets = [part for key, value in overrides(images).items() for part in ('--set', f'{key}={json.dumps(value)}')]
    command = [*COMMAND, 'search', *sets, '--strategy', 'darts-pt', '--set', 'space.nodes=1', '--output', str(tmp_path / 'out')]
    with tempfile.TemporaryFile() as stdout:
        session = on_terminal(command, columns=40, stdout=stdout)
    assert session.returncode == 0 and session.cursor, session.lines
    results = session.stdout.splitlines()
    assert results[0].startswith('Genotype(') and results[-1].split() == ['files', str(tmp_path / 'out')]
    assert re.fullmatch(r' +valid accuracy  \d+\.\d\d %', results[1]) and '\x1b' not in session.stdout
    for pattern in ('epochs +━', 'decisions +━'):
        assert session.ever(pattern), pattern
    assert 'Genotype' not in words(session.lines) and not [line for line in session.lines if '━' in line]
    said = words(session.lines)
    epochs = [json.loads(line) for line in (tmp_path / 'out' / 'metrics.jsonl').read_text().splitlines()]
    assert said.count('epoch ') == len(epochs) and f'epoch {len(epochs)}/{len(epochs)} train loss' in said
    assert said.count(' keeps ') == 4


def test_cells_that_are_trained_one_by_one_are_numbered(capsys: pytest.CaptureFixture) -> None:
    with Progress() as progress:
        announce('cells', 1, 6, lasting=True)
        progress.epoch({'epoch': 1, 'of': 3, 'train_loss': 2.5, 'train_accuracy': 0.25, 'valid_accuracy': 0.5, 'seconds': 1.0})
    assert capsys.readouterr().err == f'cell 2/6  {EPOCH.format(1)}\n'


# how long it takes ------------------------------------------------------------------------------------------------------------------


def test_the_pace_of_work() -> None:
    pace = Pace(2, 100.0)  # two were done before a resume
    assert pace.left(10, 100.5) is None
    assert pace.left(10, 105.0, fraction=0.5) == pytest.approx(8 * 10 - 5)  # half a part in five seconds
    pace.note(3, 110.0)
    assert pace.left(10, 110.0) == pytest.approx(70)
    assert pace.left(10, 113.0) == pytest.approx(67)
    assert pace.left(10, 200.0) == pytest.approx(60)  # a part that takes longer than the others is not finished before its time
    pace.pause(90.0)
    assert pace.left(10, 200.0) == pytest.approx(70)
    for done, now in ((4, 220.0), (5, 240.0), (6, 260.0), (7, 280.0)):
        pace.note(done, now)
    assert pace.left(10, 280.0) == pytest.approx(60)  # the last three count


def test_the_time_left_of_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that happens only once does not count, and no work ends before the work inside it."""
    clock, progress, console = [0.0], Progress(), Console(width=60, force_terminal=True, no_color=True)
    monkeypatch.setattr('nni_darts.cli.progress.time.monotonic', lambda: clock[0])

    def after(seconds: float, *arguments: object, lasting: bool = False) -> None:
        clock[0] += seconds
        progress.show(Activity(*arguments, lasting=lasting))

    def left() -> list[str]:
        with console.capture() as captured:
            console.print(*progress._lines(60, 24))
        return re.findall(r'^(\w+) .* (\d+ s|\d+ min) left', captured.get(), re.MULTILINE)

    after(0, 'epochs', 0, 4, lasting=True)
    after(10, 'building compiled kernels')
    after(60, 'building compiled kernels', 1, 1)
    after(5, 'training', 5, 10)
    assert left() == [('epochs', '2 min')]  # half an epoch in 15 s
    after(5, 'epochs', 1, 4, lasting=True)
    assert left() == [('epochs', '60 s')]  # 20 s each
    after(0, 'decisions', 0, 10, lasting=True)
    after(15, 'decisions', 1, 10, lasting=True)
    assert left() == [('epochs', '2 min'), ('decisions', '2 min')]  # nine times 15 s, more than three epochs
    for done in (2, 4, 10):
        after(1, 'decisions', done, 10, lasting=True)
    assert [name for name, _ in left()] == ['epochs']


@given(
    width=st.integers(20, 120),
    names=st.lists(st.text('abc_', min_size=1, max_size=40), min_size=1, max_size=4),
    done=st.integers(0, 100_000),
    longest=st.integers(10, 60),
)
def test_a_table_is_never_wider_than_the_terminal(width: int, names: list[str], done: int, longest: int) -> None:
    console = Console(width=width, force_terminal=True, no_color=True)
    rows = [(name, 0.3, (f'{done}/100000', '92.14 %', '12 min left')) for name in names]
    with console.capture() as captured:
        console.print(aligned(width, rows, ('', '', ''), longest))
    lines = captured.get().splitlines()
    assert len(lines) == len(names) and all(len(line) <= width for line in lines)
    for line, name in zip(lines, names):
        assert line.startswith(name[:3]) and f'{done}/100000' in line
