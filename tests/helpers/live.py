"""Real NNI experiments for tests: started by the command line, read over REST, and always stopped at the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
import yaml

from nni_darts.experiment.manager import Manager, TrialRecord

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'},
    'PATH': f'{BIN}{os.pathsep}{os.environ["PATH"]}',
    'PYTHONWARNINGS': 'ignore',
}

_TIME = r'\[[-\d]+ [:\d]+\] '
_PRINTED = _TIME + 'PRINT '
TRIAL_LINES = {
    'connected': _TIME + r'INFO \(nni\.runtime\.trial_command_channel\S* Connect to trial command channel ',
    'gpu': _PRINTED + r'this trial (found no NVIDIA GPU|runs on GPU)',
    'headline': _PRINTED + r'recipe \w+; data ',
    'warning': _PRINTED + r'Warning: .*\.$',
    'kernels': _PRINTED + r'building compiled kernels, once per machine, about \d+ s$',
    'executor': _TIME + r'INFO \(nni_darts\.strategies\.fast\.executors\S* cells are computed by the executor ',
    'decision': _PRINTED + r'  \w+ (keeps|drops input|is decided:|is) \S.*$',
    'epoch': _PRINTED + r'epoch (\d+)/\d+  train loss [\d.]+  (train|valid) .*  [\d.]+ s$',
    'cell': _PRINTED + r'Genotype\(',
    'result': _PRINTED + r' *[a-z ]+  ([\d.,]+( %)?|planned|/.*)$',
}
"""Patterns of all kinds of lines in a trial's log; the first pattern that matches counts."""
_ORDER = r'connected gpu (headline (warning )*)(kernels )*(executor )?((decision )*epoch )+(warning )*(cell )?(result )+'
TUNER_LINES = [
    _TIME + r'INFO \(nni\.runtime\.msg_dispatcher_base\S* Dispatcher started$',
    _TIME + r'INFO \(nni\.runtime\.msg_dispatcher/.* Initial search space: ',
]
"""Lines of the tuner's log until the experiment is stopped."""


def free_port() -> int:
    """Returns a free port whose successor is also free, because NNI uses both."""
    while True:
        with socket.socket() as first:
            first.bind(('127.0.0.1', 0))
            port = first.getsockname()[1]
            with socket.socket() as second:
                if second.connect_ex(('127.0.0.1', port + 1)) and port < 60000:
                    return port


class Experiment:
    """A running experiment."""

    def __init__(self, identifier: str, port: int) -> None:
        self.id = identifier
        self.port = port
        self.manager = Manager(f'localhost:{port}')
        self.folder = Path.home() / 'nni-experiments' / identifier

    def trials(self) -> list[TrialRecord]:
        return self.manager.trials()

    def wait(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Waits for a condition; the manager may be unavailable for a moment."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except requests.RequestException:
                pass
            time.sleep(1)
        log = (self.folder / 'log' / 'dispatcher.log').read_text()[-3000:]
        raise AssertionError(f'not within {seconds} s; status {self.manager.status()}, trials {self.trials()}\n{log}')

    def pid(self, trial_id: str) -> int | None:
        """Returns the process id of a trial's Python process."""
        for process in Path('/proc').iterdir():
            if process.name.isdigit():
                try:
                    command = (process / 'cmdline').read_bytes()
                    environment = (process / 'environ').read_bytes()
                except OSError:
                    continue
                if f'NNI_TRIAL_JOB_ID={trial_id}'.encode() in environment and b'nni-darts' in command and b'python' in command:
                    return int(process.name)
        return None

    def kill(self, trial_id: str) -> bool:
        """Kills a trial with SIGKILL. Returns whether there was a process to kill."""
        pid = self.pid(trial_id)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    def manager_process(self) -> psutil.Process | None:
        """Returns the process of NNI's manager."""
        for process in psutil.process_iter(['cmdline']):
            words = process.info['cmdline'] or ['']
            if Path(words[0]).name == 'node' and self.id in words:
                return process
        return None

    def listens_on(self) -> set[str]:
        """Returns the addresses on which manager, tuner and trials listen, on any port, from the kernel's socket table."""
        manager = self.manager_process()
        assert manager is not None
        found = set()
        for process in [manager, *manager.children(recursive=True)]:
            try:
                sockets = process.net_connections('inet')
            except psutil.NoSuchProcess:
                continue  # has just ended
            found |= {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
        return found

    def stop(self) -> None:
        subprocess.run(['nnictl', 'stop', self.id], env=ENVIRONMENT, capture_output=True, timeout=120)

    def resume(self) -> None:
        """Resumes the experiment on another port, as after a restart of the machine."""
        self.port = free_port()
        self.manager = Manager(f'localhost:{self.port}')
        command = [str(BIN / 'nni-darts'), 'resume', self.id, '--port', str(self.port)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr


def write_experiment(folder: Path, **changes: object) -> Path:
    """Writes the quickstart with changed keys of the YAML; ``classArgs`` replaces the tuner's."""
    config = yaml.safe_load((ROOT / 'examples' / 'quickstart.yml').read_text())
    config['tuner']['classArgs'] = changes.pop('classArgs', config['tuner']['classArgs'])
    path = folder / 'experiment.yml'
    path.write_text(yaml.safe_dump(config | changes))
    return path


def check_logs(experiment: Experiment) -> None:
    """Checks that each line of the tuner's log and of every trial's log is of a known kind and occurs once."""
    for trial in experiment.trials():
        folder = experiment.folder / 'environments' / 'local-env' / 'trials' / trial.id
        lines = (folder / 'trial.log').read_text().splitlines()
        kinds = [next((kind for kind, pattern in TRIAL_LINES.items() if re.match(pattern, line)), line) for line in lines]
        assert re.fullmatch(_ORDER, ''.join(f'{kind} ' for kind in kinds)), (trial.key, lines)
        search = trial.parameters['stage'] == 'search'
        assert (kinds.count('executor'), kinds.count('cell')) == ((1, 1) if search else (0, 0)), (trial.key, lines)
        numbers = [int(re.match(TRIAL_LINES['epoch'], line)[1]) for kind, line in zip(kinds, lines) if kind == 'epoch']
        assert numbers == list(range(1, len((folder / 'metrics.jsonl').read_text().splitlines()) + 1)), (trial.key, lines)
        assert lines[-1].endswith(f'files  {folder}') and not (folder / 'trial.stdout').read_text()
    lines = (experiment.folder / 'log' / 'dispatcher.log').read_text().splitlines()
    assert len(lines) == len(TUNER_LINES) and all(map(re.match, TUNER_LINES, lines)), lines


@contextmanager
def launched(folder: Path, environment: Mapping[str, str] = ENVIRONMENT, **changes: object) -> Iterator[Experiment]:
    """Starts the quickstart with changes, as for :func:`write_experiment`, inaccessible from other machines."""
    path = write_experiment(folder, **changes)
    port = free_port()
    command = [str(BIN / 'nni-darts'), 'launch', str(path), '--port', str(port)]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    found = re.search(r'experiment (\w+) is running', started.stdout)
    assert started.returncode == 0 and found, started.stdout + started.stderr
    experiment = Experiment(found.group(1), port)
    try:
        yield experiment
    finally:
        experiment.stop()
