"""NNI's own list of experiments, put right where the manager died."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nni.tools.nnictl.config_utils import Experiments

from nni_darts.errors import InputError
from nni_darts.experiment import nnictl
from nni_darts.experiment.nnictl import forget_dead_manager
from tests.helpers.live import BIN, free_port, write_experiment

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


def test_the_list_is_read_as_nni_writes_it(tmp_path: Path) -> None:
    assert nnictl.listed(tmp_path) == {}
    listed(tmp_path, 7)
    assert nnictl.listed(tmp_path) == Experiments(str(tmp_path)).get_all_experiments()


def test_a_list_being_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / '.experiment').write_text('{"ab')
    later = threading.Timer(0.3, lambda: (tmp_path / '.experiment').write_text('{"abc": {}}'))
    later.start()
    assert nnictl.listed(tmp_path) == {'abc': {}}
    later.join()


def test_nothing_to_do(tmp_path: Path) -> None:
    assert forget_dead_manager('unknown', tmp_path) is None
    listed(tmp_path, 1, 'STOPPED')
    assert forget_dead_manager('abc', tmp_path) is None


LATE = """
const fs = require('fs');
const path = require('path');
const starts = path.join(__dirname, 'starts');
fs.appendFileSync(starts, 'x');
if (LATE_STARTS.includes(fs.readFileSync(starts).length)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60000);
"""
"""Makes certain starts of NNI's manager late by a minute."""


def on_a_busy_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, late: list[int]) -> None:
    """From now on those starts of a manager, counted from 1, are late."""
    (folder / 'late.cjs').write_text(LATE.replace('LATE_STARTS', str(late)))
    monkeypatch.setenv('NODE_OPTIONS', f'--require "{folder / "late.cjs"}"')
    monkeypatch.setenv('PATH', f'{BIN}{os.pathsep}{os.environ["PATH"]}')


@pytest.mark.nni
def test_a_late_manager_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_busy_machine(tmp_path, monkeypatch, [1, 3])
    identifier = nnictl.create(write_experiment(tmp_path), free_port())
    try:
        assert (tmp_path / 'starts').read_text() == 'xx'
        assert nnictl.stop(identifier)
        assert not nnictl.stop(identifier)
        nnictl.resume(identifier, free_port())
        assert (tmp_path / 'starts').read_text() == 'xxxx'
    finally:
        nnictl.stop(identifier)


@pytest.mark.nni
def test_a_manager_that_is_always_late_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnictl, '_ATTEMPTS', 2)
    on_a_busy_machine(tmp_path, monkeypatch, [1, 2])
    with pytest.raises(
        InputError, match="^NNI's manager did not answer .* 2 times in a row: this machine is too busy; try again"
    ) as refused:
        nnictl.create(write_experiment(tmp_path), free_port())
    assert '\n' not in str(refused.value) and (tmp_path / 'starts').read_text() == 'xx'


def test_two_starts_on_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one is refused before nnictl is called, which would take the other's manager for its own."""
    monkeypatch.setenv('HOME', str(tmp_path))
    port = free_port()
    (tmp_path / 'nni-experiments').mkdir()
    with nnictl._port_to_oneself(port):
        with pytest.raises(InputError, match=f'^another experiment is being started on port {port}; choose another one with --port.$'):
            nnictl.create(tmp_path / 'experiment.yml', port)
        with nnictl._port_to_oneself(port + 1):
            pass
    with socket.create_server(('127.0.0.1', port)), pytest.raises(InputError, match=f'^port {port} is in use; choose another one'):
        nnictl.create(tmp_path / 'experiment.yml', port)
    assert not (tmp_path / 'nni-experiments' / '.experiment').exists()


def test_a_home_that_cannot_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'file'))
    with pytest.raises(
        InputError, match=r'^cannot write into .*file/nni-experiments, where NNI keeps its experiments: Not a directory; set'
    ):
        nnictl.create(tmp_path / 'experiment.yml', free_port())


def test_an_experiment_that_nni_does_not_know_is_not_stopped() -> None:
    for command in (nnictl.stop, lambda name: nnictl.resume(name, 8110)):
        with pytest.raises(InputError, match="^there is no experiment 'nosuch' in "):
            command('nosuch')
