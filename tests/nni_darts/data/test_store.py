"""Decoded pictures on the disk are the pictures, bit for bit, or are decoded again."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nni_darts.data import ImageDataModule, load_images, store
from nni_darts.data.store import Store, StoredPictures
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings
from nni_darts.runs.tasks import ImageTask


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (('ant', 7), ('Bär 2', 6), ('cat', 5)):
        (tmp_path / 'photos' / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(5, 40, 2)
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            image.save(tmp_path / 'photos' / name / f'{index}.{"jpg" if index % 2 else "png"}')
    return tmp_path / 'photos'


def settings(root: Path, **changes: object) -> DataSettings:
    return DataSettings(**{'name': 'folder', 'path': str(root), 'image_size': 12, 'augment': 'crop-flip', 'pad': 2, **changes})


def batches(chosen: DataSettings) -> list[torch.Tensor]:
    """Everything that three epochs of a search, and a test, get to see."""
    module = ImageDataModule(load_images(chosen), chosen, train_portion=0.5, batch_size=4, seed=1, cutout=3)
    seen = []
    for name in ('train', 'architecture', 'val', 'test'):
        loader = getattr(module, f'{name}_dataloader')()
        for epoch in range(3):
            if hasattr(loader.batch_sampler.sampler, 'set_epoch'):
                loader.batch_sampler.sampler.set_epoch(epoch)
            seen += [part for batch in loader for part in batch]
    return seen


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob('pictures-*.bin'))


@pytest.mark.parametrize('changes', [{}, {'fit': 'letterbox'}, {'image_size': [9, 14]}, {'augment': 'none'}, {'workers': 2}], ids=str)
def test_kept_pictures_are_the_decoded_ones_bit_for_bit(changes: dict, photos: Path, cache: Path) -> None:
    plain = batches(settings(photos, cache=False, **{**changes, 'workers': 0}))
    assert not files(cache)
    first, again = (batches(settings(photos, **changes)) for _ in range(2))
    assert len(files(cache)) == 1
    assert same(first, plain) and same(again, plain)


def test_the_first_line_says_how_much_is_kept(photos: Path, cache: Path) -> None:
    from nni_darts.recipes import Recipe

    recipe = Recipe.load('photos-small', {'data.path': str(photos), 'data.image_size': 256})
    said = ImageTask().describe(recipe, load_images(recipe.data))
    assert said.endswith(f', decoded pictures kept in {cache} (3.4 MiB)')
    assert files(cache)[0].stat().st_size == 18 * 3 * 256 * 256 + 4096


def test_one_file_serves_all_splits_and_another_belongs_to_other_pixels(photos: Path, cache: Path) -> None:
    for changes in ({}, {'split_seed': 3}, {'test_portion': 0.4}, {'split': 'random'}, {'augment': 'none'}):
        data = load_images(settings(photos, **changes))
        assert isinstance(data.train, StoredPictures) and len(files(cache)) == 1
    for number, changes in enumerate(({'image_size': 13}, {'fit': 'letterbox'}), start=2):
        load_images(settings(photos, **changes))
        assert len(files(cache)) == number
    Image.new('RGB', (20, 20), 'red').save(photos / 'cat' / '0.png')
    fresh = batches(settings(photos))
    assert len(files(cache)) == 4 and same(fresh, batches(settings(photos, cache=False)))


def test_random_crops_of_the_picture_itself_are_not_kept(photos: Path, cache: Path) -> None:
    data = load_images(settings(photos, augment='imagenet'))
    assert not isinstance(data.train, StoredPictures) and not files(cache)


@pytest.mark.parametrize('damage', ['cut', 'empty', 'header', 'a bit', 'zeros', 'no json'])
def test_a_damaged_file_is_written_anew(damage: str, photos: Path, cache: Path) -> None:
    plain = batches(settings(photos, cache=False))
    load_images(settings(photos))
    (path,) = files(cache)
    whole = path.read_bytes()
    spoilt = {
        'cut': whole[:-1],
        'empty': b'',
        'header': json.dumps({'shape': [1, 3, 12, 12], 'crc32': 0}).encode().ljust(4096) + whole[4096:],
        'a bit': whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        'zeros': whole[:4096] + bytes(len(whole) - 4096),
        'no json': b'\xff' * 4096 + whole[4096:],
    }[damage]
    path.write_bytes(spoilt)
    assert same(batches(settings(photos)), plain)
    assert path.read_bytes() == whole


def test_where_nothing_can_be_kept_a_sentence_says_so(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batches(settings(photos, cache=False))
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    data = load_images(settings(photos))
    assert 'decoded pictures cannot be kept' in data.notes[0] and data.notes[0].endswith('data.cache: false turns this warning off')
    assert same(batches(settings(photos)), plain)


def test_a_disk_with_too_little_room_is_left_alone(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = 18 * 3 * 12 * 12
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=2 * need))
    data = load_images(settings(photos))
    assert f'decoded pictures would take 8 KiB of the 15 KiB that are free at {cache}' in data.notes[0] and not files(cache)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=2 * (need + 4096)))
    assert not load_images(settings(photos)).notes and len(files(cache)) == 1


def load_with_small_files(root: str, results: object) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    results.put(load_images(settings(Path(root), image_size=24)).notes)


def test_a_disk_that_fills_up_meanwhile(photos: Path, cache: Path) -> None:
    """A limit on the size of files ends the writing as a full disk does."""
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    trial = context.Process(target=load_with_small_files, args=(str(photos), results))
    trial.start()
    (note,) = results.get(timeout=60)
    trial.join()
    assert note.startswith(f'decoded pictures cannot be kept in {cache} (File too large)')
    assert not files(cache) and not list(cache.glob('*.tmp'))


def test_a_file_that_was_not_used_for_long_is_removed_when_another_is_written(photos: Path, cache: Path) -> None:
    load_images(settings(photos))
    (old,) = files(cache)
    long_ago = time.time() - 61 * 86_400
    os.utime(old, (long_ago, long_ago))
    load_images(settings(photos))
    assert time.time() - old.stat().st_mtime < 100  # it was used just now
    load_images(settings(photos, image_size=6))
    assert len(files(cache)) == 2
    os.utime(old, (long_ago, long_ago))
    load_images(settings(photos, image_size=7))
    assert len(files(cache)) == 2 and not old.exists()


def test_a_worker_maps_the_file_instead_of_copying_it(photos: Path) -> None:
    data = load_images(settings(photos))
    packed = pickle.dumps(data.train.store)
    assert len(packed) < 1000
    copy: Store = pickle.loads(packed)
    assert torch.equal(copy[3], data.train.store[3])


def load(root: str, go: object, results: object) -> None:
    go.wait()
    results.put([int(image.long().sum()) for image, _ in load_images(settings(Path(root))).train])


def test_several_trials_at_a_time_write_one_file(photos: Path, cache: Path) -> None:
    context = multiprocessing.get_context('fork')
    go, results = context.Event(), context.Queue()
    trials = [context.Process(target=load, args=(str(photos), go, results)) for _ in range(4)]
    for trial in trials:
        trial.start()
    go.set()
    found = [results.get(timeout=60) for _ in trials]
    for trial in trials:
        trial.join()
    assert all(sums == found[0] for sums in found) and len(files(cache)) == 1
    assert not list(cache.glob('*.tmp'))


def test_a_trial_waits_for_the_one_that_writes(photos: Path, cache: Path) -> None:
    load_images(settings(photos))
    (path,) = files(cache)
    path.rename(cache / 'aside')
    context = multiprocessing.get_context('fork')
    go, results = context.Event(), context.Queue()
    trial = context.Process(target=load, args=(str(photos), go, results))
    trial.start()
    held = store.lock(path.with_suffix('.lock'))
    go.set()
    time.sleep(1)
    assert results.empty() and not path.exists()
    before = (cache / 'aside').stat().st_ino
    (cache / 'aside').rename(path)
    os.close(held)
    assert results.get(timeout=60)
    trial.join()
    assert path.stat().st_ino == before  # what was written meanwhile is taken


def test_a_picture_that_cannot_be_decoded_leaves_nothing(photos: Path, cache: Path) -> None:
    data = load_images(settings(photos, cache=False))
    Path(data.train.path(0)).write_bytes(b'damaged meanwhile')
    with pytest.raises(InputError, match='is not a readable image'):
        store.stored(data)
    assert not files(cache) and not list(cache.glob('*.tmp'))
