"""Starts, stops and resumes experiments with nnictl, keeps the manager on the loopback interface, and works around faults of nnictl."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import requests

from nni_darts.errors import InputError, did_you_mean
from nni_darts.experiment.manager import LIMITED, Manager, bypass_proxy
from nni_darts.files import lock

__all__ = [
    'check_home',
    'check_known',
    'check_port',
    'create',
    'forget_dead_manager',
    'has_tuner_at_last',
    'is_manager',
    'listed',
    'resume',
    'stop',
]

_ATTEMPTS = 3
_READS = 20
_PAUSE_SECONDS = 2
"""Pause before nnictl is called again. By then nnictl has killed the manager that was late, and the port is free."""
_LATE = ('Max retries exceeded', 'timed out', 'Connection refused', 'Connection aborted', 'Connection reset')
"""Messages of nnictl's HTTP library when a manager does not answer within about five seconds."""
_TUNER_SECONDS = 14
"""NNI gives the tuner ten seconds to connect, and reports a failure a little later."""


def create(experiment: Path, port: int) -> str:
    """Starts the experiment that a file describes.

    Returns:
        The experiment's id.

    Raises:
        InputError: if nnictl did not start it.
    """
    check_home()
    with _port_to_oneself(port):
        said = _start('create', '--config', str(experiment), '--port', str(port))
        found = _identifier(said)
        if not found:
            raise InputError(f'nnictl create failed: {_complaint(said)}')
        _check_own(port, found)
    return found


def resume(identifier: str, port: int) -> None:
    """Resumes an experiment that was stopped or ended in error, or whose manager or tuner has died.

    Raises:
        InputError: if NNI does not know the experiment, it is running, the port is in use, or nnictl did not resume it.
    """
    check_known(identifier)
    running_at = forget_dead_manager(identifier)
    if running_at is not None:
        if _works(identifier, running_at):
            raise InputError(f'experiment {identifier} is already running, on port {running_at}; nni-darts stop {identifier} ends it.')
        if port != running_at:
            check_port(port)
        stop(identifier)  # a manager without a tuner starts no more trials
    with _port_to_oneself(port):
        _start('resume', identifier, '--port', str(port))
        _check_own(port, identifier)


def stop(identifier: str) -> bool:
    """Stops an experiment, which can be resumed later.

    Returns:
        Whether the experiment was running.

    Raises:
        InputError: if NNI does not know the experiment, or nnictl did not stop it.
    """
    check_known(identifier)
    if forget_dead_manager(identifier) is None:
        return False
    stopped = _nnictl('stop', identifier)
    if stopped.returncode or 'ERROR' in stopped.stdout:
        raise InputError(f'nnictl stop failed: {_complaint(stopped.stdout + stopped.stderr)}')
    return True


def check_home() -> None:
    """Raises InputError if NNI cannot write to its folder of experiments or its list of experiments is damaged.

    In either case nnictl would end with a traceback.
    """
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise InputError(
            f'cannot write into {home}, where NNI keeps its experiments: {error.strerror}; set HOME to a writable folder.'
        ) from None
    listed()


def check_port(port: int) -> None:
    """Raises InputError if a program already listens on the port."""
    with socket.socket() as probe:
        if probe.connect_ex(('127.0.0.1', port)) == 0:
            raise InputError(f'port {port} is in use; choose another one with --port.')


def check_known(identifier: str, home: Path | None = None) -> None:
    """Raises InputError if the experiment is not in NNI's list in ``home``, by default the user's ``nni-experiments``."""
    known = listed(home)
    if identifier not in known:
        hint = did_you_mean(identifier, known)
        raise InputError(f'there is no experiment {identifier!r} in {home or _home()}{hint}; nni-darts list shows all.')


def listed(home: Path | None = None) -> dict[str, dict[str, Any]]:
    """Reads NNI's list of experiments, without NNI, which is slow to import.

    Damaged entries and damaged fields of an entry are left out.

    Args:
        home: folder of the list; by default the user's ``nni-experiments``.

    Returns:
        Id of an experiment → NNI's entry for it.

    Raises:
        InputError: if the list itself is damaged. NNI would treat it as empty and overwrite it.
    """
    path = (home or _home()) / '.experiment'
    found: Any = None
    for _ in range(_READS):
        if not path.exists():
            return {}
        try:
            text = path.read_text('utf-8')
            if text.strip():
                found = json.loads(text)
                break
            found = {}  # used if the file stays empty
        except ValueError:
            found = None
        time.sleep(0.05)  # NNI empties the file before it writes it
    if not isinstance(found, dict):
        raise InputError(
            f"NNI's list of experiments, {path}, is damaged: it holds no JSON object; repair it, or move it away and NNI starts a new one."
        )
    return {identifier: _sound(entry) for identifier, entry in found.items() if isinstance(entry, dict)}


_NUMBERS = {'port': int, 'pid': int, 'startTime': (int, float)}
_FIELDS: dict[str, Any] = {**_NUMBERS, 'status': str, 'experimentName': str, 'logDir': str, 'tag': list}
"""The fields that are read from an entry in NNI's list, with their types."""


def _sound(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry of NNI's list without fields of a wrong type. It keeps None, which NNI writes."""
    return {name: value for name, value in entry.items() if value is None or isinstance(value, _FIELDS.get(name, object))}


@contextmanager
def _port_to_oneself(port: int) -> Iterator[None]:
    """Prevents other commands of this user from starting a manager on the port within the block.

    Two managers started on one port at the same moment both find it free, and nnictl then mistakes one for the other.

    Raises:
        InputError: if the port is in use, or another command is starting a manager on it.
    """
    held = lock(_home() / f'.port-{port}.lock')
    if held is None:
        raise InputError(f'another experiment is being started on port {port}; choose another one with --port.')
    try:
        check_port(port)
        yield
    finally:
        os.close(held)


def _check_own(port: int, identifier: str) -> None:
    """Raises InputError if the manager that answers on the port belongs to another experiment, such as one of another user."""
    try:
        found = str(Manager(f'localhost:{port}').experiment().get('id'))
    except (requests.RequestException, AttributeError):
        return  # a later check finds out whether the manager works
    if found != identifier:
        forget_dead_manager(identifier)
        raise InputError(f'experiment {found} was started on port {port} at the same moment; choose another port with --port.')


def _works(identifier: str, port: int) -> bool:
    """Returns whether an experiment whose manager is running also has a tuner, and the tuner has not ended it in error."""
    try:
        status = Manager(f'localhost:{port}').status()
    except requests.RequestException:
        return True  # busy, or not yet ready
    return status in LIMITED or (status != 'ERROR' and any(_tuners(identifier)))


def _home() -> Path:
    return Path.home() / 'nni-experiments'


def _note_stopped(identifier: str, home: Path | None) -> None:
    """Marks an experiment as stopped in NNI's list."""
    from nni.tools.nnictl.config_utils import Experiments

    (Experiments(str(home)) if home else Experiments()).update_experiment(identifier, 'status', 'STOPPED')


def _start(action: str, *arguments: str) -> str:
    """Runs nnictl create or nnictl resume, several times if the manager is slow to answer.

    Args:
        action: ``create`` or ``resume``.
        arguments: the remaining arguments of nnictl.

    Returns:
        The output of nnictl.

    Raises:
        InputError: if nnictl failed.
    """
    said = ''
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
            if action == 'resume':
                forget_dead_manager(arguments[0])  # NNI's list still names the manager that was late
        done = _nnictl(action, *arguments)
        said = done.stdout + done.stderr
        if not done.returncode and 'ERROR' not in done.stdout:
            return said
        if not any(text in said for text in _LATE):
            raise InputError(f'nnictl {action} failed: {_complaint(said)}')
    identifier = _identifier(said)
    log = f'; if it is not busy, {_home() / identifier / "log" / "nnictl_stderr.log"} says why' if identifier else ''
    raise InputError(
        f"NNI's manager did not answer in time, {_ATTEMPTS} times in a row: this machine is too busy; try again when it has less to do{log}"
    )


def _identifier(said: str) -> str | None:
    """Returns the id of the experiment that nnictl's output names; None if it names none."""
    found = re.search(r'Experiment ID: (?:\x1b\[\d*m)?(\w+)', said)
    return found.group(1) if found else None


def forget_dead_manager(identifier: str, home: Path | None = None) -> int | None:
    """Marks an experiment as stopped in NNI's list if its manager has died.

    nnictl only resumes experiments that are marked as stopped. It takes any process with the manager's process id for the manager: a
    zombie (in a container without an init process, it stays forever), or another process that has been given the same id.

    Args:
        identifier: id of the experiment.
        home: folder of the list; by default the user's ``nni-experiments``.

    Returns:
        The port of the manager if it is running; 0 if its port is unknown; None if it is not running.
    """
    known = listed(home).get(identifier)
    if known is None or known.get('status') == 'STOPPED':
        return None
    if is_manager(known.get('pid'), identifier):
        return known.get('port') or 0  # a damaged entry has no port
    _note_stopped(identifier, home)
    return None


def is_manager(pid: int | None, identifier: str) -> bool:
    """Returns whether a process is the manager of an experiment. Another process may have its id by now, or it may be a zombie."""
    try:
        process = psutil.Process(pid) if pid else None
        return process is not None and process.status() != psutil.STATUS_ZOMBIE and identifier in process.cmdline()
    except (psutil.Error, ValueError, OverflowError):
        return False  # the process has ended or belongs to another user, or the number cannot be a process id


def has_tuner_at_last(identifier: str, port: int, since: float) -> bool:
    """Returns whether the tuner of an experiment works, after restarting the experiment if necessary.

    On a busy machine the tuner may not connect within the ten seconds that NNI allows. A restart keeps all finished work.

    Args:
        identifier: id of the experiment.
        port: port of its manager.
        since: when the experiment was started, in seconds since the epoch.

    Raises:
        InputError: if nnictl did not restart the experiment.
    """
    for _ in range(_ATTEMPTS):
        if _has_tuner(port, since):
            return True
        _nnictl('stop', identifier)
        _end_tuner(identifier)
        since = time.time()
        resume(identifier, port)
    return False


def _nnictl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs nnictl. A manager that it starts listens on the loopback interface only."""
    bypass_proxy()  # nnictl, the manager, the tuner and the trials inherit this setting
    script = resources.files('nni_darts.experiment').joinpath('loopback.cjs')
    options = f'{os.environ.get("NODE_OPTIONS", "")} --require "{script}"'.strip()
    environment = {**os.environ, 'NODE_OPTIONS': options, 'PYTHONWARNINGS': 'ignore'}
    # The manager keeps running after this command ends, and must not keep the user's terminal open.
    return subprocess.run(['nnictl', *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _has_tuner(port: int, since: float) -> bool:
    """Returns whether the tuner of an experiment started at ``since`` has connected to the manager."""
    manager = Manager(f'localhost:{port}')
    for _ in range(_TUNER_SECONDS):
        time.sleep(1)
        try:
            if any('Tuner did not connect' in error for error in manager.errors()):
                return False
            if manager.tuner_since() >= since:
                break
        except requests.RequestException:
            pass
    return True  # without an error message within the time limit, assume that the tuner is connected


def _end_tuner(identifier: str) -> None:
    """Ends a tuner that connected too late. NNI leaves it running, and it would compete with the next tuner for the connection."""
    for process in _tuners(identifier):
        try:
            process.kill()
            process.wait(10)
        except psutil.Error:
            continue  # gone


def _tuners(identifier: str) -> Iterator[psutil.Process]:
    """Yields the processes of an experiment's tuner."""
    for process in psutil.process_iter():
        try:
            mine = '--exp_params' in process.cmdline() and f'/{identifier}/' in process.environ().get('NNI_LOG_DIRECTORY', '')
        except psutil.Error:
            continue  # the process belongs to another user or has ended
        if mine:
            yield process


def _complaint(text: str) -> str:
    """Returns the line of nnictl's output that says what is wrong."""
    lines = [line.strip() for line in re.sub(r'\x1b\[\d*m', '', text).splitlines() if line.strip()]
    own = next((line.partition('ERROR: ')[2] for line in lines if 'ERROR: ' in line), None)
    return own or next((line for line in reversed(lines) if 'error' in line.lower()), lines[-1] if lines else 'it printed nothing')
