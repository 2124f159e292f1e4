"""NNI's own list of experiments, put right where the manager died."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nni.tools.nnictl.config_utils import Experiments

from nni_darts.experiment.nnictl import forget_dead_manager

SLEEP = 'import time; time.sleep(100)'


@pytest.fixture
def manager() -> Iterator[subprocess.Popen]:
    """A process that has the experiment's id among its arguments, as NNI's manager has."""
    with subprocess.Popen([sys.executable, '-c', SLEEP, '--experiment-id', 'abc']) as process:
        yield process
        process.kill()


def listed(home: Path, pid: int | None, status: str = 'INITIALIZED') -> None:
    Experiments(str(home)).add_experiment('abc', 8080, 0, 'local', 'name', pid=pid, logDir=home, status=status)


def status(home: Path) -> str:
    return Experiments(str(home)).get_all_experiments()['abc']['status']


def test_a_manager_at_work(manager: subprocess.Popen, tmp_path: Path) -> None:
    listed(tmp_path, manager.pid)
    assert forget_dead_manager('abc', tmp_path) == 8080
    assert status(tmp_path) == 'INITIALIZED'


def test_a_killed_manager_that_nobody_asked_for_its_end(manager: subprocess.Popen, tmp_path: Path) -> None:
    manager.kill()
    process = psutil.Process(manager.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert process.is_running()  # what nnictl goes by
    listed(tmp_path, manager.pid)
    assert forget_dead_manager('abc', tmp_path) is None
    assert status(tmp_path) == 'STOPPED'


def test_another_process_has_its_number(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, '-c', SLEEP]) as other:
        listed(tmp_path, other.pid)
        assert forget_dead_manager('abc', tmp_path) is None
        other.kill()
    assert status(tmp_path) == 'STOPPED'


@pytest.mark.parametrize('pid', [None, 2**22 + 1])
def test_no_such_process(pid: int | None, tmp_path: Path) -> None:
    listed(tmp_path, pid)
    assert forget_dead_manager('abc', tmp_path) is None
    assert status(tmp_path) == 'STOPPED'


def test_nothing_to_do(tmp_path: Path) -> None:
    assert forget_dead_manager('unknown', tmp_path) is None
    listed(tmp_path, 1, 'STOPPED')
    assert forget_dead_manager('abc', tmp_path) is None
