"""Experiments started and gone on with by nnictl, their manager on loopback only, and what nnictl leaves to others put right."""

from __future__ import annotations

import os
import re
import subprocess
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests

from nni_darts.errors import InputError
from nni_darts.experiment.manager import Manager, bypass_proxy

if TYPE_CHECKING:
    from nni.tools.nnictl.config_utils import Experiments

__all__ = ['create', 'forget_dead_manager', 'has_tuner_at_last', 'resume', 'stop']

_ATTEMPTS = 3
_PAUSE_SECONDS = 2
"""Before nnictl is called again: it has killed the manager that was late, whose port is then free."""
_LATE = ('Max retries exceeded', 'timed out', 'Connection refused', 'Connection aborted', 'Connection reset')
"""What the library that nnictl uses says of a manager that does not answer in the some five seconds that it is given."""
_TUNER_SECONDS = 14
"""NNI gives the tuner ten seconds to connect, and says so a little later."""


def create(experiment: Path, port: int) -> str:
    """Starts the experiment of a file; its id.

    Raises:
        InputError: if nnictl did not start it.
    """
    said = _start('create', '--config', str(experiment), '--port', str(port))
    found = _identifier(said)
    if not found:
        raise InputError(f'nnictl create failed: {_complaint(said)}')
    return found


def resume(identifier: str, port: int) -> None:
    """Goes on with an experiment that was stopped, or whose manager is gone.

    Raises:
        InputError: if it is running, or nnictl did not go on with it.
    """
    running_at = forget_dead_manager(identifier)
    if running_at is not None:
        raise InputError(f'experiment {identifier} is running, on port {running_at}; nni-darts stop {identifier} ends it')
    _start('resume', identifier, '--port', str(port))


def stop(identifier: str) -> bool:
    """Ends an experiment, which can be resumed; whether it was running.

    Raises:
        InputError: if NNI knows no such experiment, or nnictl did not stop it.
    """
    if identifier not in _experiments().get_all_experiments():
        raise InputError(f'no experiment {identifier!r} in {Path.home() / "nni-experiments"}')
    if forget_dead_manager(identifier) is None:
        return False
    stopped = _nnictl('stop', identifier)
    if stopped.returncode or 'ERROR' in stopped.stdout:
        raise InputError(f'nnictl stop failed: {_complaint(stopped.stdout + stopped.stderr)}')
    return True


def _experiments(home: Path | None = None) -> Experiments:
    """NNI's list of experiments."""
    from nni.tools.nnictl.config_utils import Experiments

    return Experiments(str(home)) if home else Experiments()


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
    log = f'; if it is not, {Path.home() / "nni-experiments" / identifier / "log" / "nnictl_stderr.log"} says why' if identifier else ''
    raise InputError(
        f"NNI's manager did not answer within the seconds that nnictl gives it, {_ATTEMPTS} times in a row: this machine is too busy; "
        f'try again when there is less to do{log}'
    )


def _identifier(said: str) -> str | None:
    """The experiment that nnictl names in what it printed."""
    found = re.search(r'Experiment ID: (?:\x1b\[\d*m)?(\w+)', said)
    return found.group(1) if found else None


def forget_dead_manager(identifier: str, home: Path | None = None) -> int | None:
    """Has NNI's list of experiments say that one is stopped if its manager is gone.

    nnictl goes on with no other, and takes for the manager whatever has its process number: a process that was killed and whose parent has
    not asked for its end (without an init in a container, for ever), or another that got the number since.

    Args:
        home: where the list is, if not in the user's ``nni-experiments``.

    Returns:
        The port of a manager that is at work.
    """
    known = _experiments(home).get_all_experiments().get(identifier)
    if not known or known['status'] == 'STOPPED':
        return None
    if _is_manager(known.get('pid'), identifier):
        return known.get('port')
    _experiments(home).update_experiment(identifier, 'status', 'STOPPED')
    return None


def _is_manager(pid: int | None, identifier: str) -> bool:
    try:
        process = psutil.Process(pid) if pid else None
        return process is not None and process.status() != psutil.STATUS_ZOMBIE and identifier in process.cmdline()
    except psutil.Error:
        return False  # gone, or another user's


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
    return subprocess.run(['nnictl', *arguments], env=environment, capture_output=True, text=True)


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
    for process in psutil.process_iter():
        try:
            mine = '--exp_params' in process.cmdline() and f'/{identifier}/' in process.environ().get('NNI_LOG_DIRECTORY', '')
            if mine:
                process.kill()
                process.wait(10)
        except psutil.Error:
            continue  # another user's, or gone


def _complaint(text: str) -> str:
    """The line of nnictl's output that says what is wrong."""
    lines = [line.strip() for line in re.sub(r'\x1b\[\d*m', '', text).splitlines() if line.strip()]
    own = next((line.partition('ERROR: ')[2] for line in lines if 'ERROR: ' in line), None)
    return own or next((line for line in reversed(lines) if 'error' in line.lower()), lines[-1] if lines else 'it printed nothing')
