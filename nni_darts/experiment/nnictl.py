"""Experiments started and gone on with by nnictl, their manager on loopback only, and what nnictl leaves to others put right."""

from __future__ import annotations

import os
import re
import subprocess
import time
from importlib import resources
from pathlib import Path

import psutil
import requests

from nni_darts.errors import InputError
from nni_darts.experiment.manager import Manager, bypass_proxy

__all__ = ['create', 'forget_dead_manager', 'has_tuner_at_last', 'resume']

_ATTEMPTS = 3
_TUNER_SECONDS = 14
"""NNI gives the tuner ten seconds to connect, and says so a little later."""


def create(experiment: Path, port: int) -> str:
    """Starts the experiment of a file; its id.

    Raises:
        InputError: if nnictl did not start it.
    """
    started = _nnictl('create', '--config', str(experiment), '--port', str(port))
    found = re.search(r'Experiment ID: (?:\x1b\[\d*m)?(\w+)', started.stdout + started.stderr)
    if started.returncode or not found:
        raise InputError(f'nnictl create failed: {_complaint(started.stdout + started.stderr)}')
    return found.group(1)


def resume(identifier: str, port: int) -> None:
    """Goes on with an experiment that was stopped, or whose manager is gone.

    Raises:
        InputError: if it is running, or nnictl did not go on with it.
    """
    running_at = forget_dead_manager(identifier)
    if running_at is not None:
        raise InputError(f'experiment {identifier} is running, on port {running_at}; nnictl stop {identifier} ends it')
    resumed = _nnictl('resume', identifier, '--port', str(port))
    if resumed.returncode or 'ERROR' in resumed.stdout:
        raise InputError(f'nnictl resume failed: {_complaint(resumed.stdout + resumed.stderr)}')


def forget_dead_manager(identifier: str, home: Path | None = None) -> int | None:
    """Has NNI's list of experiments say that one is stopped if its manager is gone.

    nnictl goes on with no other, and takes for the manager whatever has its process number: a process that was killed and whose parent has
    not asked for its end (without an init in a container, for ever), or another that got the number since.

    Args:
        home: where the list is, if not in the user's ``nni-experiments``.

    Returns:
        The port of a manager that is at work.
    """
    from nni.tools.nnictl.config_utils import Experiments

    experiments = Experiments(str(home)) if home else Experiments()
    known = experiments.get_all_experiments().get(identifier)
    if not known or known['status'] == 'STOPPED':
        return None
    if _is_manager(known.get('pid'), identifier):
        return known.get('port')
    experiments.update_experiment(identifier, 'status', 'STOPPED')
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
