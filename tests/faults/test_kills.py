"""kill -9 at random moments: what is resumed ends as the unbroken run does, bit for bit. ``make test-faults`` prints the counts."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from nni_darts import PUBLISHED, RnnGenotype
from nni_darts.cli import main
from nni_darts.runs.weights import read_state_dict
from tests.helpers import tiny
from tests.helpers.stopping import measured

pytestmark = pytest.mark.faults

KILLS = 12
CONTEXT = multiprocessing.get_context('forkserver')
"""Every run is a process of its own, forked from one that has imported everything: the time goes into computing, not into imports."""


@dataclass(frozen=True)
class Case:
    """A command of the command line, and changes to the tiny recipe of its kind."""

    name: str
    command: str
    text: bool
    changes: dict[str, object]


EVEN = {'search.evaluation_batch_size': 4, 'retrain.evaluation_batch_size': 4}
CASES = (
    Case('search of images', 'search --strategy darts-2nd', False, {'search.epochs': 4}),
    Case('selection on images', 'search --strategy darts-1st+pt', False, {'search.tuning_epochs': 2}),
    Case('retraining on images', 'retrain', False, {'retrain.epochs': 25, 'retrain.drop_path': 0.3, 'retrain.cutout': 2}),
    Case('images on two devices', 'search --strategy darts-2nd', False, {'search.epochs': 4, 'devices': 2}),
    Case('search of text', 'search --strategy darts-2nd', True, {'search.epochs': 3}),
    Case('text on two devices', 'search --strategy darts-2nd', True, {'search.epochs': 3, 'devices': 2, **EVEN}),
    Case('selection on text', 'search --strategy darts-1st+pt', True, {'search.tuning_epochs': 2}),
    Case('retraining on text', 'retrain', True, {'retrain.epochs': 40, 'retrain.learning_rate': 15.0, 'retrain.gradient_clip': 1.0}),
)


def command_of(case: Case, folder: Path, output: Path) -> list[str]:
    common = {'checkpoint_steps': 1}
    if case.text:
        recipe, settings, cell = 'pydoc', tiny.text_overrides(folder), RnnGenotype.from_code('rnn.t0r1').code()
    else:
        recipe, settings, cell = 'digits', tiny.overrides(folder / 'images.npz'), PUBLISHED['DARTS_V2'].code()
        common |= {'data.augment': 'crop', 'data.pad': 1}
    parts = [*case.command.split(), '--recipe', recipe, '--output', str(output), '--resume']
    if case.command == 'retrain':
        parts += ['--genotype', cell]
    for key, value in {**settings, **common, **case.changes}.items():
        parts += ['--set', f'{key}={json.dumps(value)}']
    return parts


def work(arguments: list[str], log: str) -> None:
    """The command line, in a process of its own."""
    with open(log, 'w') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    main(arguments, prog_name='nni-darts')


def start(command: list[str], output: Path) -> Any:
    process = CONTEXT.Process(target=work, args=(command, f'{output}.log'))
    process.start()
    return process


def run(command: list[str], output: Path) -> float:
    """To the end; returns seconds."""
    started = time.monotonic()
    process = start(command, output)
    process.join()
    assert process.exitcode == 0, Path(f'{output}.log').read_text()
    return time.monotonic() - started


def run_and_kill(command: list[str], output: Path, rng: random.Random, startup: float) -> bool:
    """kill -9 soon after the first or second new checkpoint, or while everything is still set up; whether the run was still there."""
    process = start(command, output)
    if rng.random() < 0.8:
        for _ in range(rng.randint(1, 2)):
            before = stamp(output)
            while stamp(output) == before and process.is_alive():
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
    else:
        time.sleep(rng.uniform(0, startup))
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def stamp(output: Path) -> int:
    try:
        return (output / 'last.ckpt').stat().st_mtime_ns
    except FileNotFoundError:
        return 0  # none yet, or it has just become the older one


def files(output: Path) -> dict[str, object]:
    """What two equal runs agree on."""
    found: dict[str, object] = {'metrics': measured(output)}
    for name in ('genotype.json', 'selection.jsonl', 'magnitude.json'):
        found[name] = (output / name).read_text() if (output / name).exists() else None
    result = json.loads((output / 'result.json').read_text())['result']
    found['result'] = {key: value for key, value in result.items() if key not in ('seconds', 'peak_memory_mib')}
    return found


def same_weights(one: Path, other: Path) -> bool:
    left, right = (read_state_dict(path) for path in (one, other))
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)


class Outcome(NamedTuple):
    """What was done to a case; ``computing`` counts the kills that hit after a new checkpoint."""

    name: str
    runs: int
    kills: int
    computing: int
    seconds: float


def killed_again_and_again(case: Case, folder: Path) -> Outcome:
    """Kills runs, resuming them each time, until there were enough kills; compares each with the unbroken one."""
    started = time.monotonic()
    CONTEXT.set_forkserver_preload(['nni_darts.cli', 'nni_darts.runs.run', __name__])
    rng = random.Random(case.name)
    whole = folder / case.name / 'unbroken'
    whole.parent.mkdir()
    startup = run(command_of(case, folder, whole), whole) - json.loads((whole / 'result.json').read_text())['result']['seconds']
    kills = computing = runs = 0
    while kills < KILLS:
        broken = folder / case.name / f'killed-{runs}'
        command = command_of(case, folder, broken)
        while kills < KILLS and not (broken / 'result.json').exists():
            before = stamp(broken)
            if run_and_kill(command, broken, rng, startup):
                kills += 1
                computing += stamp(broken) != before
        run(command, broken)
        runs += 1
        assert files(broken) == files(whole), case.name
        if (whole / 'weights.pt').exists():
            assert same_weights(broken / 'weights.pt', whole / 'weights.pt'), case.name
    return Outcome(case.name, runs, kills, computing, time.monotonic() - started)


def test_every_killed_run_ends_as_the_unbroken_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_images(tmp_path / 'images.npz')
    tiny.write_text(tmp_path)
    # Processes, not threads: of two threads that ask for the end of a process, one gets a wrong exit code.
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:
        rows = list(pool.map(killed_again_and_again, CASES, [tmp_path] * len(CASES)))
    with capsys.disabled():
        print(f'\n{"stage":<22} {"runs":>5} {"kills":>5} {"computing":>9} {"seconds":>7}')
        for name, runs, kills, computing, seconds in rows:
            print(f'{name:<22} {runs:>5} {kills:>5} {computing:>9} {seconds:>7.0f}')
        print(f'{sum(row.kills for row in rows)} kills; every genotype, metric and weight as in the unbroken runs')
    assert sum(row.kills for row in rows) >= 60
