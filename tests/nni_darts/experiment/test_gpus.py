"""Trials on a fake inventory of GPUs: real processes, real locks."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.experiment import gpus
from nni_darts.experiment.gpus import claim_gpus, visible_gpus

TRIAL = """
import os, sys
from pathlib import Path
from nni_darts.experiment.gpus import claim_gpus
names, count, share, folder = sys.argv[1:]
held = claim_gpus(names.split(',') if names else [], int(count), int(share), folder=Path(folder), poll_seconds=0.05)
assert 'torch' not in sys.modules
print('computes on', os.environ.get('CUDA_VISIBLE_DEVICES', 'anything'), flush=True)
sys.stdin.read()
"""


class Trial:
    def __init__(self, devices: str, share: int, count: int, folder: Path) -> None:
        command = [sys.executable, '-W', 'ignore', '-c', TRIAL, devices, str(count), str(share), str(folder / 'locks')]
        self.log = folder / f'{time.monotonic_ns()}.log'
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log.open('w'))

    def said(self) -> str:
        return self.log.read_text()

    @property
    def gpu(self) -> str | None:
        found = [line.removeprefix('computes on ') for line in self.said().splitlines() if line.startswith('computes on')]
        return found[0] if found else None

    def end(self, how: int) -> None:
        if how:
            self.process.send_signal(how)
        else:
            self.process.stdin.close()
        self.process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    trials = []

    def begin(devices: str, share: int = 1, count: int = 1) -> Trial:
        trials.append(Trial(devices, share, count, tmp_path))
        return trials[-1]

    yield begin
    for trial in trials:
        trial.process.kill()
        trial.process.wait()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_gpu_nothing_is_changed(start: Callable[..., Trial]) -> None:
    trial = start('')
    until(lambda: trial.gpu is not None)
    assert trial.gpu == 'anything' and 'found no NVIDIA GPU' in trial.said()


@pytest.mark.parametrize(('devices', 'share'), [('a', 1), ('a,b', 1), ('a,b', 2)])
def test_five_trials_take_turns(devices: str, share: int, start: Callable[..., Trial]) -> None:
    names = devices.split(',')
    places = share * len(names)
    trials = [start(devices, share) for _ in range(5)]
    until(lambda: all(trial.said() for trial in trials))
    for number in range(5):
        expected = min(places, 5 - number)
        until(lambda: sum(trial.gpu is not None for trial in trials) == expected)  # noqa: B023
        running = [trial for trial in trials if trial.gpu is not None]
        for name in names:
            assert sum(trial.gpu == name for trial in running) <= share
        assert number or sorted(trial.gpu for trial in running) == sorted(names * share)
        waiting = [trial for trial in trials if trial.gpu is None]
        assert all(trial.said().count('waits for a GPU') == 1 for trial in waiting)
        # However a trial ends, its place is free again.
        running[0].end((signal.SIGKILL, signal.SIGTERM, 0)[number % 3])
        trials.remove(running[0])


def test_a_trial_on_two_gpus_keeps_none_while_it_waits_for_the_other(start: Callable[..., Trial]) -> None:
    first = start('a,b,c', count=2)
    until(lambda: first.gpu == 'a,b')
    second = start('a,b,c', count=2)
    until(lambda: 'waits for 2 GPUs: 2 of 3 taken' in second.said())
    third = start('a,b,c')
    until(lambda: third.gpu == 'c')
    first.end(signal.SIGKILL)
    until(lambda: second.gpu == 'a,b')


def test_more_gpus_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='devices: 3.*only 2 GPUs here'):
        claim_gpus(['a', 'b'], 3, folder=tmp_path)


def test_the_kernels_list_is_what_counts(tmp_path: Path) -> None:
    """A lock file that a dead trial left behind means nothing."""
    (tmp_path / 'a.0').write_text('stale')
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CUDA_VISIBLE_DEVICES', '7')
        assert claim_gpus(['a'], folder=tmp_path, say=said.append)
    assert said == ['runs on GPU a']


@pytest.mark.parametrize(
    ('given', 'installed', 'expected'),
    [
        (None, 2, ['GPU-0', 'GPU-1']),
        (None, 0, []),
        ('1', 2, ['GPU-1']),
        ('GPU-1, 0', 2, ['GPU-1', 'GPU-0']),
        ('0,5,1', 2, ['GPU-0']),
        ('', 2, []),
        ('-1', 2, []),
        ('0', 0, []),
    ],
)
def test_what_a_trial_may_use(given: str | None, installed: int, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, '_installed', lambda: [f'GPU-{index}' for index in range(installed)])
    assert visible_gpus({} if given is None else {'CUDA_VISIBLE_DEVICES': given}) == expected


def test_the_machine_is_asked() -> None:
    tool = shutil.which('nvidia-smi')
    shown = '' if tool is None else subprocess.run([tool, '-L'], capture_output=True, text=True).stdout
    assert visible_gpus({}) == re.findall(r'UUID: (GPU-[-0-9a-f]+)', shown)
