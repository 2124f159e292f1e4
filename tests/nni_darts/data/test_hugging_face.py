"""Data sets that the real package ``datasets`` wrote on this disk; nothing is downloaded."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nni_darts.cli.options import to_run
from nni_darts.data import ImageDataModule, image_shape, load_images
from nni_darts.data.images import LISTINGS
from nni_darts.data.store import StoredPictures
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings, Recipe

os.environ['HF_HUB_OFFLINE'] = '1'
datasets = pytest.importorskip('datasets', reason='pip install datasets')

RNG = np.random.default_rng(0)
NAMES = ['cat', 'Hund', 'ox']


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'hf')


def images(count: int, sizes: tuple[tuple[int, int], ...] = ((10, 8),), mode: str = 'RGB') -> list[Image.Image]:
    return [Image.fromarray(RNG.integers(0, 256, (*sizes[index % len(sizes)], 3), dtype=np.uint8)).convert(mode) for index in range(count)]


def made(count: int = 12, labels: list[Any] | None = None, kind: Any = None, column: str = 'label', **options: Any) -> Any:
    features = datasets.Features({'image': datasets.Image(), column: kind or datasets.ClassLabel(names=NAMES)})
    rows = {'image': images(count, **options), column: labels or [index % 3 for index in range(count)]}
    return datasets.Dataset.from_dict(rows, features=features)


def settings(path: Path | str, **changes: Any) -> DataSettings:
    return DataSettings(**{'name': 'hf', 'path': str(path), 'image_size': 6, **changes})


MANY = ((10, 8), (9, 20), (30, 7))


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    train, test = made(12, sizes=MANY), made(6, sizes=MANY)
    datasets.DatasetDict(train=train, test=test).save_to_disk(str(tmp_path / 'set'))
    data = load_images(settings(tmp_path / 'set'))
    assert (len(data.train), len(data.test), data.classes, data.size) == (12, 6, tuple(NAMES), (6, 6))
    assert data.train.labels.tolist() == train['label'][:] and isinstance(data.train, StoredPictures)
    plain = load_images(settings(tmp_path / 'set', cache=False))
    assert np.array_equal(np.asarray(plain.train[4][0]), np.asarray(train[4]['image']))
    loaders = [ImageDataModule(each, settings('x'), train_portion=0.5, batch_size=4, seed=1) for each in (data, plain)]
    for one, other in zip(*(loader.test_dataloader() for loader in loaders)):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_one_table_is_split(tmp_path: Path) -> None:
    made(15).save_to_disk(str(tmp_path / 'set'))
    data = load_images(settings(tmp_path / 'set'))
    assert (len(data.train), sorted(data.test.labels.tolist())) == (12, [0, 1, 2])


def test_parquet_files_and_folders_of_images(tmp_path: Path) -> None:
    folder = tmp_path / 'parquet'
    folder.mkdir()
    made(12).to_parquet(str(folder / 'train.parquet'))
    made(6).to_parquet(str(folder / 'test.parquet'))
    assert [len(part) for part in (load_images(settings(folder)).train, load_images(settings(folder)).test)] == [12, 6]
    alone = load_images(settings(folder / 'train.parquet'))
    assert len(alone.train) + len(alone.test) == 12
    for part, count in (('train', 4), ('test', 2)):
        for name in NAMES:
            (tmp_path / 'folder' / part / name).mkdir(parents=True)
            for index, image in enumerate(images(count)):
                image.save(tmp_path / 'folder' / part / name / f'{index}.png')
    data = load_images(settings(tmp_path / 'folder'))
    assert (len(data.train), len(data.test)) == (12, 6) and Path(data.test.path(0)).is_file()


def test_without_a_size_images_stay_as_they_are(tmp_path: Path) -> None:
    """Of one size: grey ones keep one channel, and mean and deviation are measured."""
    for mode, channels in (('RGB', 3), ('L', 1)):
        table = made(12, mode=mode)
        datasets.DatasetDict(train=table, test=made(6, mode=mode)).save_to_disk(str(tmp_path / mode))
        given = settings(tmp_path / mode, image_size=None)
        data = load_images(given)
        assert (data.channels, data.size, data.classes) == (channels, (10, 8), tuple(NAMES)) and len(data.test) == 6
        assert np.array_equal(data.train[3][0].permute(1, 2, 0).squeeze(), np.asarray(table[3]['image']))
        assert 0.4 < data.mean[0] < 0.6 and image_shape(given).channels == channels
    made(12, sizes=MANY).save_to_disk(str(tmp_path / 'many'))
    with pytest.raises(InputError, match='images have different sizes, such as 8×10 and 20×9 pixels; set data.image_size'):
        load_images(settings(tmp_path / 'many', image_size=None))


def test_labels_of_other_kinds(tmp_path: Path) -> None:
    texts = made(12, [NAMES[index % 3] for index in range(12)], datasets.Value('string'))
    texts.save_to_disk(str(tmp_path / 'texts'))
    assert load_images(settings(tmp_path / 'texts')).classes == ('Hund', 'cat', 'ox')
    numbers = made(12, [3 + 2 * (index % 2) for index in range(12)], datasets.Value('int64'), 'target')
    numbers.save_to_disk(str(tmp_path / 'numbers'))
    data = load_images(settings(tmp_path / 'numbers'))
    assert data.classes == ('3', '5') and set(data.train.labels.tolist()) == {0, 1}


def test_a_part_of_the_classes_and_hidden_test_labels(tmp_path: Path) -> None:
    few = made(12, [0, 2] * 6)
    hidden = made(4, [-1] * 4, datasets.ClassLabel(names=NAMES))
    datasets.DatasetDict(train=few, test=hidden, validation=made(4, [2, 0] * 2)).save_to_disk(str(tmp_path / 'set'))
    data = load_images(settings(tmp_path / 'set'))
    assert data.classes == ('cat', 'ox') and data.test.labels.tolist() == [1, 0, 1, 0]
    assert data.notes[0].endswith('there is no training image of Hund, so the network will not know these classes')
    assert data.notes[1].endswith('the splits test are not used: validation images are cut from the training images')
    datasets.DatasetDict(train=few, test=made(6)).save_to_disk(str(tmp_path / 'more'))
    with pytest.raises(InputError, match='test images have the labels Hund, which no training image has'):
        load_images(settings(tmp_path / 'more'))


def test_two_columns_of_classes_are_chosen_between(tmp_path: Path) -> None:
    table = made(12, column='fine').add_column('coarse', [0, 1] * 6).cast_column('coarse', datasets.ClassLabel(names=['a', 'b']))
    table.save_to_disk(str(tmp_path / 'set'))
    with pytest.raises(InputError, match=r'columns are image \(Image\), fine \(ClassLabel\), coarse .*; choose one with data.label_column'):
        load_images(settings(tmp_path / 'set'))
    assert load_images(settings(tmp_path / 'set', label_column='coarse')).classes == ('a', 'b')
    with pytest.raises(InputError, match="has no column 'other'"):
        load_images(settings(tmp_path / 'set', label_column='other'))


def test_unreadable_images_are_listed_or_left_out(tmp_path: Path) -> None:
    content = io.BytesIO()
    images(1)[0].save(content, 'PNG')
    good = content.getvalue()
    rows = [{'bytes': good, 'path': None}] * 12
    rows[3], rows[7] = {'bytes': good[:40], 'path': None}, {'bytes': b'<html>', 'path': None}
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.ClassLabel(names=NAMES)})
    datasets.Dataset.from_dict({'image': rows, 'label': [0, 1, 2] * 4}, features=features).save_to_disk(str(tmp_path / 'set'))
    with pytest.raises(InputError, match=r'2 of 12 images cannot be used: .*set, split train, row 3 is not .*row 7 .*skip_unreadable'):
        load_images(settings(tmp_path / 'set'))
    for size in (6, None):
        data = load_images(settings(tmp_path / 'set', skip_unreadable=True, image_size=size))
        assert len(data.train) + len(data.test) == 10 and data.facts[0] == '2 unreadable left out'


def test_a_readable_split_is_looked_at_once(tmp_path: Path, cache: Path) -> None:
    made(12).save_to_disk(str(tmp_path / 'set'))
    pictures = LISTINGS['hf'](settings(tmp_path / 'set')).train
    assert pictures.faults() == {}
    pictures.content = None  # is not asked for again
    assert pictures.faults() == {} and len(list(cache.glob('images-*.json'))) == 1


@pytest.mark.parametrize('path', ['nobody/nothing-of-this-name', 'absent', './absent'])
def test_what_is_not_there_is_one_sentence(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f'data.path: {path} is neither a file or folder here nor a data set') as error:
        load_images(settings(path))
    assert '\n' not in str(error.value)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='cannot be read as a data set'):
        load_images(settings(tmp_path / 'empty'))
    (tmp_path / 'bad.parquet').write_bytes(b'PAR1 no')
    with pytest.raises(InputError, match='cannot be read as a data set'):
        load_images(settings(tmp_path / 'bad.parquet'))
    datasets.Dataset.from_dict({'text': ['a', 'b'], 'label': [0, 1]}).save_to_disk(str(tmp_path / 'text'))
    with pytest.raises(InputError, match='needs a single column of images'):
        load_images(settings(tmp_path / 'text'))
    datasets.DatasetDict(test=made(3)).save_to_disk(str(tmp_path / 'test'))
    with pytest.raises(InputError, match='has no split train, only test'):
        load_images(settings(tmp_path / 'test'))


def test_a_name_is_no_path_that_must_be_there() -> None:
    assert to_run(Recipe.load('photos-small', {'data.name': 'hf', 'data.path': 'owner/name'})).data.path == 'owner/name'
    with pytest.raises(InputError, match='data.label_column is for data set hf'):
        Recipe.load('photos-small', ['data.label_column=label'])


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(InputError, match='data set hf needs the package datasets: pip install datasets'):
        load_images(settings('owner/name'))
    monkeypatch.setitem(sys.modules, 'datasets', types.SimpleNamespace(__version__='3.6.0'))
    with pytest.raises(InputError, match="runs no code of a data set; the installed version is 3.6.0: pip install 'datasets>=4'"):
        load_images(settings('owner/name'))
