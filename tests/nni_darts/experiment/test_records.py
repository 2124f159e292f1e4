"""Records of experiments, read from NNI's list and the experiments' folders."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nni.tools.nnictl.config_utils import Experiments

from nni_darts.errors import InputError
from nni_darts.experiment.records import chosen, experiments, named
from nni_darts.report.summary import write_summary
from tests.helpers.results import summary_of


@pytest.fixture
def process() -> Iterator[subprocess.Popen]:
    """A process that has the experiment's id among its arguments, as NNI's manager has."""
    with subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)', '--experiment-id', 'abc']) as running:
        yield running
        running.kill()


def listed(home: Path, identifier: str = 'abc', status: str = 'RUNNING', pid: int | None = None, **changes: Any) -> Path:
    """Enters an experiment into NNI's list; its logs."""
    values = {'startTime': 1_700_000_000_000, 'platform': 'local', 'experiment_name': 'my name', 'logDir': home, **changes}
    Experiments(str(home)).add_experiment(identifier, 8123, pid=pid, status=status, **values)
    log = Path(values['logDir']) / identifier / 'log'
    log.mkdir(parents=True)
    return log


def with_summary(log: Path, *, over: bool) -> None:
    write_summary(log, summary_of({'random': {1: 0.5}}, over=over))


def state(home: Path) -> str:
    (record,) = experiments(home)
    return record.state


def test_nothing_was_ever_started(tmp_path: Path) -> None:
    assert experiments(tmp_path / 'none') == []


def test_a_running_experiment(process: subprocess.Popen, tmp_path: Path) -> None:
    listed(tmp_path, pid=process.pid)
    (record,) = experiments(tmp_path)
    assert (record.id, record.name, record.state, record.port) == ('abc', 'my name', 'running', 8123)
    assert record.summary_address == 'http://localhost:8123/logs/summary.html'
    assert record.started.year == 2023 and record.folder == tmp_path / 'abc' and not record.resumable


def test_a_finished_experiment_whose_page_is_up(process: subprocess.Popen, tmp_path: Path) -> None:
    with_summary(listed(tmp_path, pid=process.pid, status='DONE'), over=True)
    (record,) = experiments(tmp_path)
    assert (record.state, record.port) == ('finished', 8123)


@pytest.mark.parametrize(
    ('status', 'over', 'expected'), [('STOPPED', True, 'finished'), ('STOPPED', False, 'stopped'), ('RUNNING', False, 'died')]
)
def test_an_experiment_without_a_manager(status: str, over: bool, expected: str, tmp_path: Path) -> None:
    log = listed(tmp_path, pid=2**22 + 1, status=status)
    with_summary(log, over=over)
    (record,) = experiments(tmp_path)
    assert (record.state, record.port, record.resumable) == (expected, None, expected != 'finished')
    assert record.summary_address == (log / 'summary.html').as_uri()
    assert record.summary()['over'] == over


def test_another_process_has_the_number_of_the_manager(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']) as other:
        listed(tmp_path, pid=other.pid)
        assert state(tmp_path) == 'died'
        other.kill()


def test_an_error_that_the_tuner_wrote_down(tmp_path: Path) -> None:
    log = listed(tmp_path, status='STOPPED')
    (log / 'error.txt').write_text('unknown recipe')
    assert state(tmp_path) == 'error'


def test_an_experiment_in_error_is_resumable_though_its_page_is_up(process: subprocess.Popen, tmp_path: Path) -> None:
    listed(tmp_path, pid=process.pid, status='ERROR')
    (record,) = experiments(tmp_path)
    assert (record.state, record.port, record.resumable) == ('error', 8123, True)


def test_another_working_directory(tmp_path: Path) -> None:
    listed(tmp_path, logDir=tmp_path / 'elsewhere')
    assert experiments(tmp_path)[0].folder == tmp_path / 'elsewhere' / 'abc'


def test_searches_in_python_are_no_experiments_with_a_page(tmp_path: Path) -> None:
    listed(tmp_path, tag=['retiarii'])
    assert experiments(tmp_path) == []


def test_in_the_order_of_their_start(tmp_path: Path) -> None:
    for number, identifier in enumerate(['late', 'early', 'middle']):
        listed(tmp_path, identifier, startTime=1000 * [3, 1, 2][number])
    assert [record.id for record in experiments(tmp_path)] == ['early', 'middle', 'late']


@pytest.mark.parametrize('written', [0, 0.5])
def test_a_list_that_nni_is_writing_is_read_again(tmp_path: Path, written: float) -> None:
    listed(tmp_path)
    path = tmp_path / '.experiment'
    text = path.read_text()
    path.write_text(text[: int(written * len(text))])
    threading.Timer(0.2, lambda: path.write_text(text)).start()
    assert [record.id for record in experiments(tmp_path)] == ['abc']


def test_a_damaged_summary_is_none(tmp_path: Path) -> None:
    log = listed(tmp_path, status='STOPPED')
    for text in ('{', '[]', json.dumps({'other': 1})):
        (log / 'summary.json').write_text(text)
        assert experiments(tmp_path)[0].summary() is None


def test_which_experiment_is_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='^There is no experiment; nni-darts list shows all experiments.$'):
        chosen(None, home=tmp_path)
    listed(tmp_path, 'first', startTime=1000)
    listed(tmp_path, 'second', startTime=2000, status='STOPPED')
    assert chosen(None, home=tmp_path).id == 'second' and chosen('first', home=tmp_path).id == named('first', tmp_path).id == 'first'
    assert chosen(None, lambda record: record.state == 'died', home=tmp_path, alone=True).id == 'first'
    with pytest.raises(InputError, match='^There are 2 experiments to choose from: first, second. Name one of them.$'):
        chosen(None, alone=True, home=tmp_path)
    with pytest.raises(InputError, match="^there is no experiment 'third' in .*; nni-darts list shows all.$"):
        chosen('third', home=tmp_path)
