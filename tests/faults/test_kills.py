"""kill -9 at random moments: what is resumed ends as the unbroken run does, bit for bit. ``make test-faults`` prints the counts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nni_darts import PUBLISHED, RnnGenotype
from tests.nni_darts import tiny
from tests.nni_darts.test_stages import measured

pytestmark = pytest.mark.faults

KILLS = 12
COMMAND = [sys.executable, '-W', 'ignore', '-c', 'from nni_darts.cli import main; main(prog_name="nni-darts")']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


@dataclass(frozen=True)
class Case:
    """A command of the command line, and changes to the tiny recipe of its kind."""

    name: str
    command: str
    text: bool
    changes: dict[str, object]


CASES = (
    Case('search of images', 'search --strategy darts-2nd', False, {'search.epochs': 4}),
    Case('selection on images', 'search --strategy darts-1st+pt', False, {'search.tuning_epochs': 2}),
    Case('retraining on images', 'retrain', False, {'retrain.epochs': 25, 'retrain.drop_path': 0.3, 'retrain.cutout': 2}),
    Case('search of text', 'search --strategy darts-2nd', True, {'search.epochs': 3}),
    Case('selection on text', 'search --strategy darts-1st+pt', True, {'search.tuning_epochs': 2}),
    Case('retraining on text', 'retrain', True, {'retrain.epochs': 40, 'retrain.learning_rate': 15.0, 'retrain.gradient_clip': 1.0}),
)


def command_of(case: Case, folder: Path, output: Path) -> list[str]:
    common = {'checkpoint_steps': 2}
    if case.text:
        recipe, settings, cell = 'pydoc', tiny.text_overrides(folder), RnnGenotype.from_code('rnn.t0r1').code()
    else:
        recipe, settings, cell = 'digits', tiny.overrides(folder / 'images.npz'), PUBLISHED['DARTS_V2'].code()
        common |= {'data.augment': 'crop', 'data.pad': 1}
    parts = [*COMMAND, *case.command.split(), '--recipe', recipe, '--output', str(output), '--resume']
    if case.command == 'retrain':
        parts += ['--genotype', cell]
    for key, value in {**settings, **common, **case.changes}.items():
        parts += ['--set', f'{key}={json.dumps(value)}']
    return parts


def run(command: Sequence[str]) -> float:
    """To the end; returns seconds."""
    started = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


def run_and_kill(command: Sequence[str], output: Path, rng: random.Random, seconds: float) -> bool:
    """kill -9 anywhere from the start of Python to soon after the first new checkpoint; whether the run was still there."""
    before = stamp(output)
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if rng.random() < 0.8:
            while stamp(output) == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, seconds / KILLS))
        else:
            time.sleep(rng.uniform(0, seconds))
        alive = process.poll() is None
        process.kill()
    return alive


def stamp(output: Path) -> int:
    path = output / 'last.ckpt'
    return path.stat().st_mtime_ns if path.exists() else 0


def files(output: Path) -> dict[str, object]:
    """What two equal runs agree on."""
    found: dict[str, object] = {'metrics': measured(output)}
    for name in ('genotype.json', 'selection.jsonl', 'magnitude.json'):
        found[name] = (output / name).read_text() if (output / name).exists() else None
    result = json.loads((output / 'result.json').read_text())['result']
    found['result'] = {key: value for key, value in result.items() if key not in ('seconds', 'peak_memory_mib')}
    return found


def same_weights(one: Path, other: Path) -> bool:
    left, right = (torch.load(path, weights_only=True) for path in (one, other))
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)


def killed_again_and_again(case: Case, folder: Path) -> tuple[str, int, int, float]:
    """Kills a run until it has been killed often enough, and compares. Returns name, kills, those that hit while it computed, seconds."""
    started = time.monotonic()
    rng = random.Random(case.name)
    whole, broken = folder / case.name / 'unbroken', folder / case.name / 'killed'
    unbroken = command_of(case, folder, whole)
    total = run(unbroken)
    training = json.loads((whole / 'result.json').read_text())['result']['seconds']
    kills = computing = 0
    command = command_of(case, folder, broken)
    while kills < KILLS and not (broken / 'result.json').exists():
        before = stamp(broken)
        if run_and_kill(command, broken, rng, training if kills % 5 else total):
            kills += 1
            computing += stamp(broken) != before
    run(command)
    assert files(broken) == files(whole), case.name
    if (whole / 'weights.pt').exists():
        assert same_weights(broken / 'weights.pt', whole / 'weights.pt'), case.name
    return case.name, kills, computing, time.monotonic() - started


def test_every_killed_run_ends_as_the_unbroken_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_images(tmp_path / 'images.npz')
    tiny.write_text(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda case: killed_again_and_again(case, tmp_path), CASES))
    with capsys.disabled():
        print(f'\n{"stage":<22} {"kills":>5} {"while computing":>15} {"seconds":>8}')
        for name, kills, computing, seconds in rows:
            print(f'{name:<22} {kills:>5} {computing:>15} {seconds:>8.0f}')
        print(f'{sum(row[1] for row in rows)} kills; every genotype, metric and weight as in the unbroken runs')
    assert sum(row[1] for row in rows) >= 60
