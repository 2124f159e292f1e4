"""A disk that is full ends a command with one sentence, and once there is room the run continues: on a small file system of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from nni_darts.experiment.failures import reason
from nni_darts.files import replacing
from tests.helpers.stopping import measured
from tests.helpers.tiny import overrides, write_images

KIB = 1024
SENTENCE = r'Error: \S*/(\S+) cannot be written: the disk is full\. Make room, then run the same command with --resume to continue\.'
COMMANDS = {'search': ('--strategy', 'darts-1st'), 'retrain': ('--genotype', 'DARTS_V2')}


class Disk:
    """A small file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def room(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def leave(self, kib: int) -> None:
        """Fills it up to a rest."""
        with (self.path / 'other files').open('ab') as file:
            file.write(b'x' * max(0, self.room - kib * KIB))

    def make_room(self) -> None:
        """Takes away what filled it."""
        (self.path / 'other files').unlink()


@pytest.fixture(scope='module')
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    path = tmp_path_factory.mktemp('disk')
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(path)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f'no file system can be mounted here, which takes root: {mounted.stderr.strip()}')
    yield Disk(path)
    subprocess.run(['umount', str(path)], check=True)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    images = write_images(tmp_path_factory.mktemp('data') / 'images.npz')
    return [part for key, value in overrides(images).items() for part in ('--set', f'{key}={value}')]


def run(command: str, tiny: list[str], output: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [command, *tiny, *COMMANDS[command], '--output', str(output), *more])


@pytest.fixture(scope='module')
def unbroken(tiny: list[str], disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Command → the folder of a run with enough room, and the KiB that its files take."""
    found = {}
    for command in COMMANDS:
        before, output = disk.room, disk.path / f'unbroken {command}'
        assert run(command, tiny, output).exit_code == 0
        found[command] = output, (before - disk.room) // KIB
    return found


@pytest.fixture
def output(disk: Disk) -> Iterator[Path]:
    """A folder on the disk that is away afterwards, as is what filled the disk."""
    yield disk.path / 'run'
    shutil.rmtree(disk.path / 'run', ignore_errors=True)
    (disk.path / 'other files').unlink(missing_ok=True)


@pytest.mark.parametrize(
    ('command', 'room', 'files'),
    [
        ('search', 0, {'run.json'}),
        ('search', 12, {'metrics.jsonl', 'search.json', 'search.html'}),
        ('retrain', -56, {'weights.pt'}),
        ('retrain', -4, {'evaluation.json', 'answers.npz', 'training.html', 'training.json', 'result.json'}),
    ],
    ids=['run.json', 'metrics.jsonl', 'weights.pt', 'the last files'],
)
def test_a_run_on_a_full_disk_is_one_sentence_and_continues(
    command: str, room: int, files: set[str], tiny: list[str], output: Path, disk: Disk, unbroken: dict[str, tuple[Path, int]]
) -> None:
    """The disk has ``room`` KiB or, for a negative ``room``, that many KiB less than all files of the run need."""
    whole, needed = unbroken[command]
    disk.leave(room if room >= 0 else needed + room)
    ended = run(command, tiny, output)
    last = ended.output.splitlines()[-1]
    found = re.fullmatch(SENTENCE, last)
    assert ended.exit_code == 1 and found, ended.output
    assert found[1] in files and 'Traceback' not in ended.output and 'enforce fail' not in ended.output
    assert not list(output.rglob('*.tmp'))
    assert reason('FAILED', ended.output) == last.removeprefix('Error: ')  # as the summary of an experiment has it
    disk.make_room()
    resumed = run(command, tiny, output, '--resume')
    assert resumed.exit_code == 0, resumed.output
    assert (output / 'genotype.json').read_bytes() == (whole / 'genotype.json').read_bytes()
    assert measured(output) == measured(whole)
    results = [json.loads((folder / 'result.json').read_text())['result'] for folder in (output, whole)]
    for result in results:
        del result['seconds'], result['peak_memory_mib']
    assert results[0] == results[1]


@pytest.mark.parametrize('size', [10, 100_000, 10_000_000])
def test_torchs_writer_is_asked_for_the_systems_reason(size: int, disk: Disk) -> None:
    import torch

    disk.leave(8)
    try:
        path = disk.path / 'tensors.pt'
        path.write_bytes(b'before')
        with pytest.raises(OSError, match='No space left on device.*tensors.pt') if size > 10 else contextlib.nullcontext():
            with replacing(path) as file:
                torch.save(torch.zeros(size // 4), file)
        assert (path.read_bytes() == b'before') == (size > 10)
        path.unlink()
        assert not list(disk.path.glob('*.tmp'))
    finally:
        disk.make_room()


def test_a_limit_of_the_size_of_files_is_said(tmp_path: Path) -> None:
    """The same everywhere, without a file system of its own."""
    command = [sys.executable, '-m', 'nni_darts', 'draw', 'DARTS_V2', '--output', str(tmp_path / 'cell.svg')]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=limited)
    assert ended.returncode == 1
    assert ended.stderr == (
        f'Error: {tmp_path / "cell.svg"} cannot be written: it would be larger than this process or file system may write (ulimit -f). '
        'Make room, then run the same command again.\n'
    )
