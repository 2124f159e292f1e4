"""The processes of a run on several devices: real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nni_darts import parallel
from nni_darts.data import ImageDataModule, TextDataModule, load_images, load_text
from nni_darts.errors import InputError, RankLost
from nni_darts.genotypes import genotype_from_sample
from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.parallel.launch import join
from nni_darts.recipes import Recipe
from nni_darts.runs.search import train_supernet
from nni_darts.runs.spec import RunSpec, Work
from nni_darts.runs.weights import read_state_dict
from tests.helpers import running
from tests.helpers.ranks import on_ranks
from tests.helpers.stopping import measured
from tests.helpers.tiny import overrides, text_overrides, write_images, write_text

EVEN = {'search.evaluation_batch_size': 4, 'retrain.evaluation_batch_size': 4}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_text(tmp_path_factory.mktemp('data'))
    write_images(made / 'images.npz')
    return made


def image_recipe(folder: Path, **changes: object) -> Recipe:
    return Recipe.load('digits', {**overrides(folder / 'images.npz'), 'devices': 2, 'checkpoint_steps': 1, **changes})


def text_recipe(folder: Path, **changes: object) -> Recipe:
    return Recipe.load('pydoc', {**text_overrides(folder), **EVEN, 'devices': 2, 'checkpoint_steps': 1, **changes})


def children_of(pid: int) -> list[int]:
    """The ranks from 1 of a process."""
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((entry / 'stat').read_text().rpartition(')')[2].split()[1])
            if parent == pid and b'-m\0nni_darts.parallel.launch' in (entry / 'cmdline').read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found


def kill_a_child_after(epoch: int, deaths: list[int]):
    def on_epoch(record: dict) -> None:
        if record['epoch'] == epoch and not deaths:
            deaths.extend(children_of(os.getpid()))
            os.kill(deaths[0], signal.SIGKILL)

    return on_epoch


# what ranks share ---------------------------------------------------------------------------------------------------------------------


class Ranks:
    """Pretends to be one rank after the other."""

    def __init__(self, patch: pytest.MonkeyPatch, size: int) -> None:
        self.patch, self.size = patch, size

    def each(self, make):
        patched = []
        for rank in range(self.size):
            self.patch.setattr(parallel, 'world_size', lambda: self.size)
            self.patch.setattr(parallel, 'rank', lambda rank=rank: rank)
            patched.append(make())
        self.patch.undo()
        return patched


def images_of(folder: Path, size: int = 16, train_portion: float = 0.5) -> ImageDataModule:
    settings = image_recipe(folder, **{'data.augment': 'crop', 'data.pad': 1}).data
    return ImageDataModule(load_images(settings), settings, train_portion=train_portion, batch_size=size, seed=1)


@pytest.mark.parametrize('size', [2, 3])
def test_parts_of_image_batches_make_the_whole(size: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """48 images in batches of 14: a last one of six, which leaves two for each of three."""
    for name in ('train', 'architecture', 'val', 'test'):
        whole = list(getattr(images_of(folder, 14), f'{name}_dataloader')())
        parts = Ranks(monkeypatch, size).each(lambda: list(getattr(images_of(folder, 14), f'{name}_dataloader')()))  # noqa: B023
        assert [len(part) for part in parts] == [len(whole)] * size
        for batch, *of_ranks in zip(whole, *parts):
            for rank, (images, labels) in enumerate(of_ranks):
                assert torch.equal(images, batch[0][rank::size]) and torch.equal(labels, batch[1][rank::size])
    whole, *ranks = (
        list(images_of(folder).scoring_dataloader()),
        *Ranks(monkeypatch, size).each(lambda: list(images_of(folder).scoring_dataloader())),
    )
    for batches in ranks:
        assert all(torch.equal(one[0], other[0]) for one, other in zip(batches, whole, strict=True))


@pytest.mark.parametrize(('size', 'count'), [(1, 3), (2, 5), (3, 7), (4, 4)])
def test_the_whole_is_put_together_from_its_parts(size: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(2 * count).view(count, 2)
    assert torch.equal(parallel.whole(Ranks(monkeypatch, size).each(lambda: parallel.part(values))), values)


def test_a_last_batch_that_is_too_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 and 51 images, 40 to test: with four ranks no training batch leaves one without two, and all images are evaluated on."""

    def counts() -> dict[str, list[int]]:
        data = images_of(folder, 8, 45 / 96)
        return {name: [len(batch[1]) for batch in getattr(data, f'{name}_dataloader')()] for name in ('train', 'architecture', 'val')}

    ranks = Ranks(monkeypatch, 4).each(counts)
    assert all(rank['train'] == [2] * 5 and rank['architecture'] == [2] * 6 for rank in ranks)
    assert sum(sum(rank['val']) for rank in ranks) == 51 and min(min(rank['val']) for rank in ranks) >= 1
    with pytest.raises(InputError, match='too few for 30 processes'):
        Ranks(monkeypatch, 30).each(counts)


def test_parts_of_text_are_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = load_text(text_recipe(folder).data)

    def batches(name: str) -> list:
        data = TextDataModule(text, batch_size=6, evaluation_batch_size=4, bptt=5, deviation=2.0, seed=3)
        return list(getattr(data, f'{name}_dataloader')())

    for name in ('train', 'architecture', 'val', 'test'):
        for whole, *parts in zip(batches(name), *Ranks(monkeypatch, 2).each(lambda: batches(name)), strict=True):  # noqa: B023
            for rank, part in enumerate(parts):
                assert torch.equal(part.tokens, whole.tokens[:, rank::2]) and part.place == whole.place
                assert torch.equal(part.targets, whole.targets.view(whole.tokens.shape)[:, rank::2].flatten())


@pytest.mark.parametrize(
    ('recipe', 'changes', 'message'),
    [
        ('digits', {'devices': 0}, 'devices = 0 is wrong'),
        ('digits', {'devices': 'two'}, "devices = 'two' is wrong"),
        ('digits', {'devices': 3}, 'search.batch_size is the total over all devices: .* a multiple of 3 from 6, not 64'),
        ('digits', {'devices': 2, 'retrain.batch_size': 2}, 'retrain.batch_size .* a multiple of 2 from 4, not 2'),
        ('digits', {'devices': 2, 'accelerator': 'mps'}, 'accelerator mps has one'),
        ('pydoc', {'devices': 4}, 'retrain.evaluation_batch_size .* a multiple of 4 from 8, not 10'),
    ],
)
def test_wrong_values(recipe: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load(recipe, changes)


def test_more_devices_than_gpus(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    with pytest.raises(InputError, match=r'devices is 2, but this machine has fewer GPUs \(1\)'):
        running.search(image_recipe(folder), 'darts-1st', 1, tmp_path)


def test_processes_on_the_cpu_leave_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with one, which a second process could not have."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    join(0, 1, tmp_path)
    try:
        assert torch.distributed.get_backend() == 'gloo'
    finally:
        torch.distributed.destroy_process_group()


# processes ----------------------------------------------------------------------------------------------------------------------------


def test_a_killed_process_and_a_resumed_search(folder: Path, tmp_path: Path) -> None:
    """One sentence at once; what is resumed, in the middle of an epoch, ends as the unbroken search."""
    recipe = image_recipe(folder)
    expected, _ = running.search(recipe, 'darts-2nd', 1, tmp_path / 'unbroken')
    deaths: list[int] = []
    threads = torch.get_num_threads()
    with pytest.raises(RankLost, match='process 1 of this run was killed by signal 9; a resumed run continues'):
        running.search(recipe, 'darts-2nd', 1, tmp_path / 'broken', on_epoch=kill_a_child_after(1, deaths))
    assert len(deaths) == 1 and not children_of(os.getpid()) and torch.get_num_threads() == threads
    found, _ = running.search(recipe, 'darts-2nd', 1, tmp_path / 'broken', resume=True)
    assert found == expected and not children_of(os.getpid())
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


SLOW = {
    'selection of images': ('darts-1st+pt', False),
    'stages': ('p-darts', False),
    'paths': ('enas', False),
    'cells one by one': ('random', False),
    'text': ('darts-2nd', True),
    'selection of text': ('darts-1st+pt', True),
    'retraining of images': ('', False),
    'retraining of text': ('', True),
}


@pytest.mark.slow
@pytest.mark.parametrize('case', SLOW)
def test_every_kind_of_run_goes_on_after_a_kill(case: str, folder: Path, tmp_path: Path) -> None:
    strategy, text = SLOW[case]
    busy = {'retrain.epochs': 4} if text else {'retrain.drop_path': 0.3, 'search.tuning_epochs': 1, 'data.augment': 'crop', 'data.pad': 1}
    small = {} if text else {'search.settings.p-darts': {'cells': [3, 3, 4]}, 'search.settings.enas': {'samples': 4, 'finalists': 2}}
    recipe = (text_recipe if text else image_recipe)(folder, **busy, **small)
    cell = RnnGenotype.from_code('rnn.t0r1') if text else recipe.random_cells(1)[0]

    def run(output: Path, **calls: object) -> None:
        if strategy:
            running.search(recipe, strategy, 1, output, **calls)
        else:
            running.train_cell(recipe, 'retrain', cell, 1, output, **calls)

    run(tmp_path / 'unbroken')
    with pytest.raises(RankLost):
        run(tmp_path / 'broken', on_epoch=kill_a_child_after(1, []))
    run(tmp_path / 'broken', resume=True)
    results = [json.loads((tmp_path / name / 'result.json').read_text())['result'] for name in ('broken', 'unbroken')]
    for result in results:
        del result['seconds'], result['peak_memory_mib']
    assert results[0] == results[1]
    if strategy != 'random':
        assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    for name in ('weights.pt',) if not strategy else ():
        broken, unbroken = (read_state_dict(tmp_path / run / name) for run in ('broken', 'unbroken'))
        assert all(torch.equal(broken[key], unbroken[key]) for key in unbroken)


TWENTY = ('darts-1st', 'darts-2nd', 'fixed-alpha', 'sdarts-rs', 'sdarts-adv', 'gdas', 'pc-darts', 'sgas', 'enas', 'darts-pt')


def cell_of_this_rank(strategy: str, seed: int, output: Path) -> dict[str, object]:
    recipe = Recipe.load('digits', {'search.epochs': 2, 'space.channels': 4, 'space.nodes': 2, 'search.settings.enas': {'samples': 10}})
    output.mkdir(exist_ok=True)
    data = load_images(recipe.data)
    _, searched = train_supernet(Work(RunSpec.search(recipe, strategy, seed), recipe, output, data))
    return {'cell': genotype_from_sample(searched.select()).code(), 'alpha': [alpha.detach() for alpha in searched.arch_parameters()]}


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize('strategy', TWENTY)
def test_ranks_find_the_same_cell_on_digits(strategy: str, seed: int, tmp_path: Path) -> None:
    """Twenty searches, with batches (of 64, and one of 15) that two ranks do not always halve."""
    one, other = on_ranks(2, tmp_path / 'ranks', cell_of_this_rank, strategy, seed, tmp_path / 'out')
    assert one['cell'] == other['cell']
    assert all(torch.equal(a, b) for a, b in zip(one['alpha'], other['alpha'], strict=True))


def command(folder: Path, output: Path, **changes: object) -> list[str]:
    settings = {**overrides(folder / 'images.npz'), 'devices': 2, 'checkpoint_steps': 1, 'search.epochs': 50, **changes}
    sets = [part for key, value in settings.items() for part in ('--set', f'{key}={json.dumps(value)}')]
    return [str(Path(sys.executable).with_name('nni-darts')), 'search', '--strategy', 'darts-1st', *sets, '--output', str(output)]


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_over(how: signal.Signals, folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'tmp').mkdir()
    environment = {**os.environ, 'TMPDIR': str(tmp_path / 'tmp')}
    process = subprocess.Popen(command(folder, tmp_path / 'out'), stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert 'epoch 1/' in process.stderr.readline()
        (child,) = children_of(process.pid)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        deadline = time.monotonic() + 10
        while Path(f'/proc/{child}').exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f'/proc/{child}').exists() and not list((tmp_path / 'tmp').glob('nni-darts-*'))
        if how == signal.SIGINT:
            assert process.returncode == 130 and 'run the same command with --resume to continue.' in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_command_line_says_which_process_died(folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(folder, tmp_path / 'out'), stderr=subprocess.PIPE, text=True)
    try:
        assert 'epoch 1/' in process.stderr.readline()
        (child,) = children_of(process.pid)
        os.kill(child, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert said.splitlines()[-1].startswith('Error: process 1 of this run was killed by signal 9')
        assert 'Traceback' not in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_training_that_diverges_on_two_devices(folder: Path, tmp_path: Path) -> None:
    recipe = image_recipe(folder, **{'retrain.learning_rate': 900.0, 'retrain.gradient_clip': None, 'retrain.epochs': 10})
    with pytest.raises(ArithmeticError, match='the training has diverged'):
        running.train_cell(recipe, 'retrain', recipe.random_cells(1)[0], 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('action', 'error', 'message'),
    [
        ('raise OSError("the drive is gone")', InputError, 'the drive is gone'),
        ('import os; os._exit(7)', RankLost, 'process 1 of this run ended with exit code 7'),
    ],
)
def test_what_goes_wrong_in_another_process_is_said(
    action: str, error: type[Exception], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import sys
import numpy as np
def images():
    if sys.argv[0].endswith('launch.py'):
        {action}
    return dict(np.load({str(folder / 'images.npz')!r}))
"""
    (tmp_path / 'fragile.py').write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        running.search(image_recipe(folder, **{'data.name': 'fragile:images', 'data.path': None}), 'darts-1st', 1, tmp_path / 'out')
