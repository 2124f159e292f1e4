"""Experiments listed, shown and opened from what lies in a home; one that runs is in test_experiments_live.py."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nni.tools.nnictl.config_utils import Experiments

from nni_darts.cli import main
from nni_darts.experiment import nnictl
from nni_darts.report.summary import write_summary
from tests.helpers.command import run
from tests.helpers.results import summary_of

VALID = {'darts-1st': {1: 0.90, 2: 0.94}, 'random': {1: 0.89, 2: 0.91}}


def add(home: Path, identifier: str, start: int, *, over: bool, status: str = 'STOPPED') -> Path:
    """An experiment in a home; its logs."""
    folder = home / 'nni-experiments'
    Experiments(str(folder)).add_experiment(identifier, 8123, start, 'local', 'my digits', pid=2**22 + 1, logDir=folder, status=status)
    log = folder / identifier / 'log'
    log.mkdir(parents=True)
    write_summary(log, summary_of(VALID, {'darts-1st': [0.95], 'random': [0.96]} if over else None, over=over))
    return log


def add_experiments(home: Path) -> None:
    """A finished experiment, one that died, and one that was stopped, which is the last."""
    add(home, 'finished1', 1_700_000_000_000, over=True)
    add(home, 'died1', 1_700_000_100_000, over=False, status='RUNNING')
    add(home, 'stopped1', 1_700_000_200_000, over=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has had experiments."""
    add_experiments(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def invoke(*words: str) -> Result:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done


def refused(*words: str) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith('Error: ') and line.endswith('.')
    return line


def test_list(home: Path) -> None:
    header, _, *rows, empty, advice = invoke('list').stdout.splitlines()
    assert header.split() == ['id', 'name', 'state', 'port', 'started', 'trials', 'best'] and not empty
    assert [row.split()[0] for row in rows] == ['finished1', 'died1', 'stopped1']
    assert re.search(r'finished1 +my digits +finished +– +2023-11-\d\d \d\d:\d\d +8/8 +darts-1st 92.00 % valid$', rows[0])
    assert re.search(r'died +– .* +6/8 +darts-1st 92.00 % valid$', rows[1])
    assert advice == 'died1 died: its manager ended without being stopped. Continue with nni-darts resume died1.'
    assert [entry['state'] for entry in json.loads(invoke('list', '--json').stdout)] == ['finished', 'died', 'stopped']


def test_nothing_to_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    assert invoke('list').stdout == 'There are no experiments yet; nni-darts demo starts one.\n'
    assert invoke('list', '--json').stdout == '[]\n'
    for command in ('status', 'open', 'table', 'stop', 'resume', 'wait'):
        assert 'here is no experiment' in refused(command)


def test_status(home: Path) -> None:
    lines = invoke('status').stdout.splitlines()
    assert lines[0] == 'experiment stopped1 (my digits): stopped; continue with nni-darts resume stopped1'
    assert '  trials        6/8 known so far are done' in lines and f'  files         {home / "nni-experiments" / "stopped1"}' in lines
    assert any(line.startswith('darts-1st    2/2') for line in lines)
    assert not any('NNI page' in line or 'running ' in line for line in lines)
    assert 'finished1 (my digits): finished' in invoke('status', 'finished1').stdout
    data = json.loads(invoke('status', 'finished1', '--json').stdout)
    assert (data['state'], data['done'], data['summary']['over']) == ('finished', 8, True)


def test_status_of_an_error(home: Path) -> None:
    (home / 'nni-experiments' / 'stopped1' / 'log' / 'error.txt').write_text("unknown recipe 'digit'")
    lines = invoke('status').stdout.splitlines()
    assert 'ended in error' in lines[0] and "  reason        unknown recipe 'digit'" in lines


def test_open_a_stopped_experiment_from_its_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = (home / 'nni-experiments' / 'stopped1' / 'log' / 'summary.html').as_uri()
    assert invoke('open', '--print').stdout == f'{address}\n'
    browser = home / 'browser'
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {shlex.quote(str(home / "opened"))}\n')
    browser.chmod(0o755)
    done = run('open', env={**os.environ, 'BROWSER': str(browser)})
    assert (done.returncode, done.stdout) == (0, f'{address}\n')
    assert (home / 'opened').read_text() == address
    none = run('open', env={**os.environ, 'BROWSER': '', 'PATH': '/nowhere', 'DISPLAY': '', 'WAYLAND_DISPLAY': ''})
    assert (none.returncode, none.stdout) == (0, f'{address}\n') and 'by hand' in none.stderr


DAMAGED = ['text', [], {}, {'status': None}, {'status': 7, 'startTime': 'N/A', 'pid': 'x', 'port': 'y', 'tag': 3, 'logDir': 5}]
DAMAGED += [{'startTime': 1e30, 'pid': -1, 'logDir': '~nobody-of-that-name', 'experimentName': []}, {'pid': 2**70}, None]


def test_damaged_entries_of_nnis_list_are_passed_over(home: Path) -> None:
    path = home / 'nni-experiments' / '.experiment'
    path.write_text(json.dumps({**json.loads(path.read_text()), **{f'wrong{number}': entry for number, entry in enumerate(DAMAGED)}}))
    listed = invoke('list').stdout
    assert 'finished1' in listed and 'stopped1' in listed and 'wrong0' not in listed and 'wrong4' in listed
    assert len(json.loads(invoke('list', '--json').stdout)) == 3 + 5
    invoke('status'), invoke('status', 'wrong3'), invoke('status', 'wrong4', '--json'), invoke('status', 'finished1')
    assert 'has no summary page' in refused('open', 'wrong2') and "no experiment 'wrong0'" in refused('status', 'wrong0')
    assert invoke('stop', 'wrong5').stdout.startswith('Experiment wrong5 was not running')
    assert 'There is no experiment that is running' in refused('stop')


@pytest.mark.parametrize('text', ['[]', '7', '{"finished1": {"id"', 'half'])
def test_a_damaged_list_is_one_sentence(text: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnictl, '_READS', 2)
    path = home / 'nni-experiments' / '.experiment'
    path.write_text(text)
    for words in (['list'], ['status'], ['open'], ['stop'], ['stop', 'finished1'], ['resume'], ['wait'], ['launch', 'first.yml']):
        assert refused(*words).startswith(f"Error: NNI's list of experiments, {path}, is damaged: it holds no JSON object; repair it")
    assert path.read_text() == text


def test_an_empty_list_is_a_list_without_experiments(home: Path) -> None:
    (home / 'nni-experiments' / '.experiment').write_text('')
    assert 'There are no experiments yet' in invoke('list').stdout


def test_what_cannot_be_opened_or_followed(home: Path) -> None:
    assert "stopped1 is not running, so NNI's page is not up" in refused('open', '--nni')
    (home / 'nni-experiments' / 'stopped1' / 'log' / 'summary.html').unlink()
    assert 'stopped1 has no summary page' in refused('open')
    assert 'There is no experiment that is running' in refused('wait')
    assert 'finished1 is not running: finished.' in refused('wait', 'finished1')
    assert 'There is no experiment that is running' in refused('stop')


def test_table_of_the_last_and_of_several(home: Path) -> None:
    row = next(csv.DictReader(io.StringIO(invoke('table', '--csv', '-').stdout)))
    assert (row['experiments'], row['strategy'], row['test_n']) == ('stopped1', 'darts-1st', '')
    row = next(csv.DictReader(io.StringIO(invoke('table', 'finished1', 'stopped1', '--csv', '-').stdout)))
    assert (row['experiments'], row['seeds'], row['test_n']) == ('finished1 stopped1', '1 2', '1')
    assert json.loads(invoke('table', 'finished1', '--json').stdout)[0]['valid']['mean'] == pytest.approx(0.92)
    assert invoke('table', '--latex').stdout.count('toprule') == invoke('table', '--markdown').stdout.count('| random |') == 1
    assert '92.00 ± 2.83' in invoke('table').stdout


def test_table_as_a_file(home: Path) -> None:
    assert invoke('table', '--csv', str(home / 'table.csv')).stdout == f'wrote {home / "table.csv"}\n'
    assert len((home / 'table.csv').read_text().splitlines()) == 3
    assert f'there is no folder {home / "none"}' in refused('table', '--csv', str(home / 'none' / 'table.csv'))
    assert 'Give either --csv or --latex' in refused('table', '--csv', '-', '--latex')


def test_no_table_without_results(home: Path) -> None:
    (home / 'nni-experiments' / 'stopped1' / 'log' / 'summary.json').unlink()
    assert 'stopped1 has no results yet' in refused('table', 'stopped1')
    assert next(csv.DictReader(io.StringIO(invoke('table', '--csv', '-').stdout)))['experiments'] == 'died1'


WRONG = [
    'status nosuch',
    'wait nosuch',
    'open nosuch',
    'table nosuch',
    'stop nosuch',
    'resume nosuch',
    'new nosuch folder',
    'new images folder --data nosuch',
    'recipes nosuch',
    'strategies nosuch',
]
REFUSED = """
import shlex, sys, time
from nni_darts.cli import main
from nni_darts.experiment import nnictl
for line in sys.argv[1:]:
    try:
        main(shlex.split(line), prog_name='nni-darts')
    except SystemExit as end:
        print(end.code, 'torch' in sys.modules, 'nni' in sys.modules, time.process_time())
"""


def test_wrong_names_are_refused_at_once(tmp_path: Path) -> None:
    """All of them one after the other in one process: the first is refused within a second of its start, without torch and NNI."""
    done = subprocess.run([sys.executable, '-c', REFUSED, *WRONG], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    results, sentences = [line.split() for line in done.stdout.splitlines()], done.stderr.splitlines()
    assert [result[:3] for result in results] == [['2', 'False', 'False']] * len(WRONG), done.stderr
    assert len(sentences) == len(WRONG)
    assert all(line.startswith('Error: ') and 'nosuch' in line and line.endswith('.') for line in sentences)
    assert float(results[0][3]) < 1


def test_the_shell_completes_names_and_ids(home: Path) -> None:
    def completed(*words: str) -> list[str]:
        environment = {
            **os.environ,
            '_NNI_DARTS_COMPLETE': 'bash_complete',
            'COMP_WORDS': ' '.join(['nni-darts', *words]),
            'COMP_CWORD': str(len(words)),
        }
        code = 'from nni_darts.cli import main; main(prog_name="nni-darts")'
        done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60)
        return [line.partition(',')[2] for line in done.stdout.splitlines()]

    assert completed('open', 'fin') == ['finished1']
    assert completed('recipes', 'cifar10') == ['cifar10', 'cifar10-small']
    assert completed('new', 'q') == ['quickstart']
    assert 'doctor' in completed('do')
