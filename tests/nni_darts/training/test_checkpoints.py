"""Runs that are broken off anywhere, also in the middle of an epoch, and resumed: the end is that of the unbroken run, bit for bit."""

from __future__ import annotations

import io
import json
import resource
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts import RnnGenotype
from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, PREVIOUS, replacing, write_text
from nni_darts.recipes import Recipe
from nni_darts.runs.weights import read_state_dict
from nni_darts.training.checkpoints import Checkpoints
from nni_darts.training.run import last_checkpoint
from tests.helpers import running, tiny
from tests.helpers.stopping import Stop, measured, stop_at

Run = Callable[[Path, bool], Any]


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    busy = {'data.augment': 'crop', 'data.pad': 1, 'space.nodes': 1, 'search.train_portion': 0.7, 'checkpoint_steps': 1}
    return {**tiny.overrides(tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')), **busy}


@pytest.fixture(scope='module')
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return {**tiny.text_overrides(tiny.write_text(tmp_path_factory.mktemp('text'))), 'checkpoint_steps': 1}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts training steps; the one whose number is in the list's first place is not taken."""
    counts = [0, 0]
    written = Checkpoints.on_train_batch_start

    def on_train_batch_start(self: Checkpoints, *args: Any) -> None:
        written(self, *args)
        if counts[1] + 1 == counts[0]:
            counts[0] = 0
            raise Stop
        counts[1] += 1

    monkeypatch.setattr(Checkpoints, 'on_train_batch_start', on_train_batch_start)
    yield counts


def same_after_stops(run: Run, folder: Path, steps: list[int], stops: list[int]) -> None:
    """Stops a run after so many steps, again and again, resumes it each time, and compares with the unbroken one."""
    expected = run(folder / 'unbroken', False)
    needed, steps[1] = steps[1], 0
    for count in stops:
        steps[0] = steps[1] + count + 1
        with pytest.raises(Stop):
            run(folder / 'broken', True)
        torch.manual_seed(count)
    result = run(folder / 'broken', True)
    assert steps[1] == needed  # no step was taken twice
    assert measured(folder / 'broken') == measured(folder / 'unbroken')
    assert _bare(result) == _bare(expected)
    weights = [folder / name / 'weights.pt' for name in ('broken', 'unbroken')]
    if weights[1].exists():
        one, other = (read_state_dict(path) for path in weights)
        assert all(torch.equal(one[key], other[key]) for key in other)


def _bare(result: Any) -> Any:
    """A result without what two equal runs differ in."""
    if isinstance(result, tuple):
        return tuple(map(_bare, result))
    return {k: v for k, v in result.items() if k not in ('seconds', 'peak_memory_mib')} if isinstance(result, dict) else result


# Ten batches of training data and four of validation data in two epochs, so that the latter come round within an epoch.
@pytest.mark.parametrize(
    ('strategy', 'stops'),
    [
        ('darts-1st+pt', [3, 7, 3]),
        pytest.param('darts-2nd', [2, 1, 3], marks=pytest.mark.slow),
        pytest.param('gdas', [4, 3], marks=pytest.mark.slow),
        pytest.param('sgas', [4, 3], marks=pytest.mark.slow),
        pytest.param('enas', [4, 3], marks=pytest.mark.slow),
        pytest.param('darts-joint', [4, 3], marks=pytest.mark.slow),
        pytest.param('p-darts', [3, 4, 4], marks=pytest.mark.slow),
    ],
)
def test_a_search_of_images_goes_on_from_any_step(
    strategy: str, stops: list[int], images: dict[str, object], tmp_path: Path, steps: list[int]
) -> None:
    recipe = Recipe.load('digits', {**images, **tiny.SMALL})
    same_after_stops(lambda folder, resume: running.search(recipe, strategy, 1, folder, resume=resume), tmp_path, steps, stops)


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_retraining_on_images_goes_on_from_any_step(workers: int, images: dict[str, object], tmp_path: Path, steps: list[int]) -> None:
    changes = {'retrain.cutout': 2, 'retrain.drop_path': 0.3, 'retrain.auxiliary_weight': 0.4, 'data.workers': workers}
    recipe = Recipe.load('digits', {**images, **changes})
    cell = recipe.random_cells(1)[0]
    stops = [1, 3, 2] if workers == 0 else [8]
    same_after_stops(lambda folder, resume: running.train_cell(recipe, 'retrain', cell, 1, folder, resume=resume), tmp_path, steps, stops)


def test_the_number_of_workers_changes_nothing(images: dict[str, object], tmp_path: Path) -> None:
    cell = Recipe.load('digits', images).random_cells(1)[0]
    for workers in (0, 2):
        recipe = Recipe.load('digits', {**images, 'data.workers': workers, 'retrain.epochs': 1, 'checkpoint_steps': 100})
        running.train_cell(recipe, 'retrain', cell, 1, tmp_path / str(workers))
    assert measured(tmp_path / '0') == measured(tmp_path / '2')


# A cell of one node has no topology to decide, and so nothing to tune.
@pytest.mark.parametrize(
    ('strategy', 'nodes', 'stops'), [('darts-2nd', 1, [2, 20]), pytest.param('darts-1st+pt', 2, [30, 20], marks=pytest.mark.slow)]
)
def test_a_search_of_text_goes_on_from_any_step(
    strategy: str, nodes: int, stops: list[int], text: dict[str, object], tmp_path: Path, steps: list[int]
) -> None:
    recipe = Recipe.load('pydoc', {**text, 'space.nodes': nodes})
    same_after_stops(lambda folder, resume: running.search(recipe, strategy, 1, folder, resume=resume), tmp_path, steps, stops)


def test_a_retraining_on_text_goes_on_from_any_step(text: dict[str, object], tmp_path: Path, steps: list[int]) -> None:
    """Before and while weights are averaged."""
    recipe = Recipe.load('pydoc', {**text, 'retrain.epochs': 5, 'retrain.learning_rate': 15.0, 'retrain.gradient_clip': 1.0})
    cell = RnnGenotype.from_code('rnn.t0r1')
    same_after_stops(
        lambda folder, resume: running.train_cell(recipe, 'retrain', cell, 1, folder, resume=resume), tmp_path, steps, [3, 31, 27]
    )


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One bit in the middle of the largest tensor is another one."""
    largest = max(zipfile.ZipFile(io.BytesIO(data)).infolist(), key=lambda entry: entry.file_size)
    name, extra = struct.unpack_from('<HH', data, largest.header_offset + 26)
    place = largest.header_offset + 30 + name + extra + largest.file_size // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_damaged_checkpoint_is_found_and_the_older_one_used(images: dict[str, object], tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**images, 'search.batch_size': 32, 'checkpoint_steps': 2})
    expected = running.search(recipe, 'darts-1st', 1, tmp_path / 'unbroken')
    with pytest.raises(Stop):
        running.search(recipe, 'darts-1st', 1, tmp_path / 'broken', on_epoch=stop_at(2))
    last, previous = tmp_path / 'broken' / CHECKPOINT, tmp_path / 'broken' / PREVIOUS
    good = last.read_bytes()
    for damage in (torn, flipped, lambda data: b''):
        last.write_bytes(damage(good))
        previous.write_bytes(good)
        assert last_checkpoint(tmp_path / 'broken') == previous
        assert not last.exists()
    last.write_bytes(torn(good))
    assert _bare(running.search(recipe, 'darts-1st', 1, tmp_path / 'broken', resume=True)) == _bare(expected)
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    (tmp_path / 'broken' / 'result.json').unlink()
    last.write_bytes(flipped(good))
    previous.write_bytes(torn(good))
    with pytest.raises(InputError, match=r'the checkpoint in .* is damaged \(last.ckpt: .*; previous.ckpt: ') as error:
        running.search(recipe, 'darts-1st', 1, tmp_path / 'broken', resume=True)
    assert '\n' not in str(error.value)


def test_a_kill_between_the_two_renames_leaves_the_older_one(images: dict[str, object], tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**images, 'retrain.epochs': 1})
    cell = recipe.random_cells(1)[0]
    expected = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'unbroken')
    with pytest.raises(Stop):
        running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'broken', on_epoch=stop_at(1))
    (tmp_path / 'broken' / CHECKPOINT).unlink()
    assert _bare(running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'broken', resume=True)) == _bare(expected)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path, kept = tmp_path / 'file', tmp_path / 'kept'
    write_text(path, 'one')
    with replacing(path, keep=kept) as file:
        file.write(b'two')
    assert (path.read_text(), kept.read_text()) == ('two', 'one')
    with pytest.raises(Stop), replacing(path, keep=kept) as file:
        file.write(b'half of thr')
        raise Stop
    assert (path.read_text(), kept.read_text()) == ('two', 'one')
    assert sorted(file.name for file in tmp_path.iterdir()) == ['file', 'kept']


SMALL_DISK = """
import json, sys
from tests.helpers import running
from nni_darts.recipes import Recipe
from tests.helpers import running
recipe = Recipe.from_dict(json.loads(sys.argv[1]))
genotype, result = running.search(recipe, 'darts-1st', 1, sys.argv[2])
print(genotype.code())
"""


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(images: dict[str, object], tmp_path: Path) -> None:
    """No file may be larger than 40 kB: the checkpoint is, everything else is not."""
    recipe = Recipe.load('digits', {**images, 'search.epochs': 1})
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SMALL_DISK, json.dumps(recipe.to_dict()), str(tmp_path / 'small')],
        preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'could not be written, and the run continues without it' in done.stderr and 'Traceback' not in done.stderr
    assert not list((tmp_path / 'small').glob('*.ckpt*'))
    genotype, _ = running.search(recipe, 'darts-1st', 1, tmp_path / 'large')
    assert done.stdout.strip() == genotype.code()
