"""Starts, stops and resumes experiments with nnictl, with the manager on loopback only, and corrects nnictl's shortcomings."""

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
"""Before nnictl is called again: it has killed the manager that was late, whose port is then free."""
_LATE = ('Max retries exceeded', 'timed out', 'Connection refused', 'Connection aborted', 'Connection reset')
"""The message of nnictl's HTTP library about a manager that does not answer within about five seconds."""
_TUNER_SECONDS = 14
"""NNI gives the tuner ten seconds to connect, and says so a little later."""


def create(experiment: Path, port: int) -> str:
    """Starts the experiment of a file; its id.

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
    """Goes on with an experiment that was stopped or ended in error, or whose manager or tuner is gone.

    Raises:
        InputError: if NNI knows no such experiment, it is running, the port is in use, or nnictl did not resume it.
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
    """Ends an experiment, which can be resumed; whether it was running.

    Raises:
        InputError: if NNI knows no such experiment, or nnictl did not stop it.
    """
    check_known(identifier)
    if forget_dead_manager(identifier) is None:
        return False
    stopped = _nnictl('stop', identifier)
    if stopped.returncode or 'ERROR' in stopped.stdout:
        raise InputError(f'nnictl stop failed: {_complaint(stopped.stdout + stopped.stderr)}')
    return True


def check_home() -> None:
    """Raises InputError where NNI cannot keep its experiments, or its list of them is damaged; nnictl would end with a traceback."""
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise InputError(
            f'cannot write into {home}, where NNI keeps its experiments: {error.strerror}; set HOME to a folder that can be written into.'
        ) from None
    listed()


def check_port(port: int) -> None:
    """Raises InputError if a program already listens on the port."""
    with socket.socket() as probe:
        if probe.connect_ex(('127.0.0.1', port)) == 0:
            raise InputError(f'port {port} is in use; choose another one with --port.')


def check_known(identifier: str, home: Path | None = None) -> None:
    """Raises InputError unless the experiment is in NNI's list, which is in ``home`` or the user's ``nni-experiments``."""
    known = listed(home)
    if identifier not in known:
        hint = did_you_mean(identifier, known)
        raise InputError(f'there is no experiment {identifier!r} in {home or _home()}{hint}; nni-darts list shows all.')


def listed(home: Path | None = None) -> dict[str, dict[str, Any]]:
    """NNI's list of experiments: id → what NNI keeps of it. Read without NNI, which takes longer to import than a refusal may.

    Entries that are damaged are left out, and so is what is damaged in an entry.

    Args:
        home: the folder of the list, if not the user's ``nni-experiments``.

    Raises:
        InputError: if the list itself is damaged. NNI would take it for an empty one, and overwrite it.
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
            found = {}  # if it stays empty
        except ValueError:
            found = None
        time.sleep(0.05)  # NNI empties the file before it writes it
    if not isinstance(found, dict):
        raise InputError(
            f"NNI's list of experiments, {path}, is damaged: it holds no JSON object; repair it, or move it away, and NNI begins a new one."
        )
    return {identifier: _sound(entry) for identifier, entry in found.items() if isinstance(entry, dict)}


_NUMBERS = {'port': int, 'pid': int, 'startTime': (int, float)}
_FIELDS: dict[str, Any] = {**_NUMBERS, 'status': str, 'experimentName': str, 'logDir': str, 'tag': list}
"""Fields of an entry in NNI's list that are read, and their types."""


def _sound(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry of NNI's list without fields of a wrong type. None, which NNI writes, stays."""
    return {name: value for name, value in entry.items() if value is None or isinstance(value, _FIELDS.get(name, object))}


@contextmanager
def _port_to_oneself(port: int) -> Iterator[None]:
    """Keeps other commands of this user from starting a manager on the port meanwhile.

    Two managers that are started on one port at the same moment find it free, and nnictl takes the one that got it for the other.

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
    """Raises InputError if the manager that answers on the port is that of another experiment, such as one of another user."""
    try:
        found = str(Manager(f'localhost:{port}').experiment().get('id'))
    except (requests.RequestException, AttributeError):
        return  # whether it works is seen later
    if found != identifier:
        forget_dead_manager(identifier)
        raise InputError(f'experiment {found} was started on port {port} at the same moment; choose another port with --port.')


def _works(identifier: str, port: int) -> bool:
    """Whether the tuner of an experiment whose manager is at work is there, too, and has not ended it in error."""
    try:
        status = Manager(f'localhost:{port}').status()
    except requests.RequestException:
        return True  # busy, or not yet ready
    return status in LIMITED or (status != 'ERROR' and any(_tuners(identifier)))


def _home() -> Path:
    return Path.home() / 'nni-experiments'


def _note_stopped(identifier: str, home: Path | None) -> None:
    """Writes into NNI's list that an experiment is stopped."""
    from nni.tools.nnictl.config_utils import Experiments

    (Experiments(str(home)) if home else Experiments()).update_experiment(identifier, 'status', 'STOPPED')


def _start(action: str, *arguments: str) -> str:
    """Has nnictl create or resume an experiment, again where the manager was late; what it printed.

    Raises:
        InputError: if it failed.
    """
    said = ''
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
            if action == 'resume':
                forget_dead_manager(arguments[0])  # the late one stands in NNI's list
        done = _nnictl(action, *arguments)
        said = done.stdout + done.stderr
        if not done.returncode and 'ERROR' not in done.stdout:
            return said
        if not any(text in said for text in _LATE):
            raise InputError(f'nnictl {action} failed: {_complaint(said)}')
    identifier = _identifier(said)
    log = f'; if it is not, {_home() / identifier / "log" / "nnictl_stderr.log"} says why' if identifier else ''
    raise InputError(
        f"NNI's manager did not answer in time, {_ATTEMPTS} times in a row: this machine is too busy; try again when it has less to do{log}"
    )


def _identifier(said: str) -> str | None:
    """The experiment that nnictl names in what it printed."""
    found = re.search(r'Experiment ID: (?:\x1b\[\d*m)?(\w+)', said)
    return found.group(1) if found else None


def forget_dead_manager(identifier: str, home: Path | None = None) -> int | None:
    """Has NNI's list of experiments say that one is stopped if its manager is gone.

    nnictl resumes no other, and takes for the manager whatever has its process number: a process that was killed and whose parent has
    not asked for its end (without an init in a container, for ever), or another that got the number since.

    Args:
        home: where the list is, if not in the user's ``nni-experiments``.

    Returns:
        The port of a manager that is at work.
    """
    known = listed(home).get(identifier)
    if known is None or known.get('status') == 'STOPPED':
        return None
    if is_manager(known.get('pid'), identifier):
        return known.get('port') or 0  # a damaged entry does not say it
    _note_stopped(identifier, home)
    return None


def is_manager(pid: int | None, identifier: str) -> bool:
    """Whether a process is the manager of an experiment: another process may have its number by now, or a dead one still have it."""
    try:
        process = psutil.Process(pid) if pid else None
        return process is not None and process.status() != psutil.STATUS_ZOMBIE and identifier in process.cmdline()
    except (psutil.Error, ValueError, OverflowError):
        return False  # gone, or another user's, or no number that a process can have


def has_tuner_at_last(identifier: str, port: int, since: float) -> bool:
    """Whether the tuner of an experiment that was started at that time works, if need be after further starts.

    On a busy machine the tuner can miss the ten seconds that NNI gives it. What was done is kept.

    Raises:
        InputError: if nnictl did not start it again.
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
    """Runs nnictl; a manager that it starts listens on loopback only."""
    bypass_proxy()  # NNI's own parts inherit it: nnictl, the manager, the tuner, the trials
    script = resources.files('nni_darts.experiment').joinpath('loopback.cjs')
    options = f'{os.environ.get("NODE_OPTIONS", "")} --require "{script}"'.strip()
    environment = {**os.environ, 'NODE_OPTIONS': options, 'PYTHONWARNINGS': 'ignore'}
    # The manager stays when this command is over, and must not keep the user's terminal open.
    return subprocess.run(['nnictl', *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _has_tuner(port: int, since: float) -> bool:
    """Whether the tuner of an experiment that was started then has connected to the manager."""
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
    return True  # where it has not said so within the time, nothing has gone wrong either


def _end_tuner(identifier: str) -> None:
    """Ends a tuner that came too late. NNI leaves it behind, and it would fight with the next one for the connection to the manager."""
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
            continue  # another user's, or gone
        if mine:
            yield process


def _complaint(text: str) -> str:
    """The line of nnictl's output that says what is wrong."""
    lines = [line.strip() for line in re.sub(r'\x1b\[\d*m', '', text).splitlines() if line.strip()]
    own = next((line.partition('ERROR: ')[2] for line in lines if 'ERROR: ' in line), None)
    return own or next((line for line in reversed(lines) if 'error' in line.lower()), lines[-1] if lines else 'it printed nothing')
