"""Facts about data that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nni_darts.data.report import DataReport, Spread, findings, inspect, suggest
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

RNG = np.random.default_rng(0)


def picture(path: Path, height: int, width: int, grey: bool = False, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width, 1 if grey else 3), dtype=np.uint8)
    Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy()).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes on two sides, of 20, 8, 6 and 4 pictures; every oddity once."""
    root = tmp_path / 'photos'
    for name, count in (('Äpfel', 20), ('[b]ee', 8), ('cat', 6), ('d og', 4)):
        for index in range(count):
            picture(root / 'train' / name / f'{index}.png', 20 + index, 40)
        picture(root / 'test' / name / 'x.png', 30, 30)
    train = root / 'train'
    shutil.copy(train / 'cat' / '0.png', train / 'cat' / 'copy.png')
    shutil.copy(train / 'cat' / '1.png', train / 'd og' / 'cat.png')
    Image.open(train / 'cat' / '2.png').save(root / 'test' / 'cat' / 'leak.bmp')  # the pixels, in another file
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(train / 'cat' / 'turned.jpg', 10, 90, exif=exif)
    (train / 'cat' / 'empty.jpg').touch()
    (train / 'cat' / 'page.png').write_text('<html>')
    (train / 'cat' / 'x.HEIC').touch()
    (train / 'cat' / '._x.png').touch()
    return root


def folder(root: Path) -> DataReport:
    return inspect(DataSettings(name='folder', path=str(root), image_size=32))


def test_a_folder_with_every_oddity(root: Path) -> None:
    report = folder(root)
    assert report.classes == ('[b]ee', 'cat', 'd og', 'Äpfel')
    assert (report.train, report.test) == ((8, 8, 5, 20), (1, 2, 1, 1)) and report.images == report.looked_at - 2 == 46
    assert (report.height.least, report.height.most, report.width.least, report.width.most) == (20, 90, 10, 40)  # upright
    assert (report.short_side.least, report.aspect.most) == (10, 9) and not report.one_size and not report.grey
    assert report.modes == {'RGB': 46} and report.left_out == {'.heic': 1}
    assert [sentence.partition(' is not')[0].rpartition('/')[2] for sentence in report.unreadable] == ['empty.jpg', 'page.png']
    assert report.largest_class == 20 / 41 and report.imbalance == 4
    names = {tuple(name.rpartition('/')[2] for name in entry.names): entry for entry in report.repeated}
    assert set(names) == {('0.png', 'copy.png'), ('1.png', 'cat.png'), ('2.png', 'leak.bmp')}
    assert report.contradictions == (names['1.png', 'cat.png'],) and report.leaks == (names['2.png', 'leak.bmp'],)


def test_what_is_found_is_said(root: Path) -> None:
    said = findings(folder(root))
    beginnings = [
        '1 file is left out (1 .heic)',
        '1 picture belongs to several classes: ',
        '1 picture is in both the training and the test data: ',
        '1 picture occurs more than once: ',
    ]
    assert [sentence[: len(beginning)] for sentence, beginning in zip(said, beginnings, strict=True)] == beginnings
    assert said[1].endswith('/train/cat/1.png (cat) = ' + str(root / 'train' / 'd og' / 'cat.png') + ' (d og)')
    assert said[2].endswith('/train/cat/2.png (train) = ' + str(root / 'test' / 'cat' / 'leak.bmp') + ' (test)')


def test_without_a_test_side_copies_may_come_to_be_on_both(root: Path) -> None:
    for name in ('Äpfel', '[b]ee', 'cat', 'd og'):
        for file in (root / 'train' / name).glob('[3-9]*.png'):
            file.unlink()
    report = folder(root / 'train')
    assert report.test is None and not report.leaks
    said = findings(report)
    assert said[-2].startswith('test images will be held out of these, and copies of an image may end up on both sides')
    assert said[-1].startswith('classes with fewer than 5 training images: [b]ee (3), d og (4)')


def test_a_report_is_plain_data(root: Path) -> None:
    report = folder(root)
    values = json.loads(json.dumps(report.to_dict()))
    assert values['train'] == [8, 8, 5, 20] and values['short_side']['median'] == report.short_side.median
    assert {'images', 'one_size', 'largest_class', 'imbalance', 'repeated', 'unreadable', 'left_out'} <= set(values)


def test_large_pictures_are_compared_by_their_files(tmp_path: Path) -> None:
    for name in 'ab':
        picture(tmp_path / name / '0.jpg', 2100, 2000, grey=True)
        picture(tmp_path / name / '1.jpg', 30, 30, grey=True)
    shutil.copy(tmp_path / 'a' / '0.jpg', tmp_path / 'a' / '2.jpg')
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(tmp_path / 'b' / '2.jpg', 2100, 2000, grey=True, exif=exif)
    report = folder(tmp_path)
    assert [len(entry.names) for entry in report.repeated] == [2]
    assert (report.height.most, report.width.most) == (2100, 2100) and report.grey


@pytest.mark.parametrize('grey', [True, False])
def test_images_in_arrays(grey: bool, tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (20, 10, 8, 1 if grey else 3), dtype=np.uint8)
    images[3] = images[4]
    tests = RNG.integers(0, 256, (4, 10, 8, 1 if grey else 3), dtype=np.uint8)
    tests[0] = images[7]
    labels = np.arange(20) % 2
    np.savez(tmp_path / 'a.npz', train_images=images, train_labels=labels, test_images=tests, test_labels=[0, 1, 0, 1])
    report = inspect(DataSettings(name='npz', path=str(tmp_path / 'a.npz')))
    assert (report.train, report.test, report.one_size, report.grey, report.files) == ((10, 10), (2, 2), True, grey, False)
    assert (report.height.median, report.width.median) == (10, 8) and report.modes == {f'uint8 × {1 if grey else 3}': 24}
    assert len(report.contradictions) == 2 and len(report.leaks) == 1  # neighbours have other labels


def test_tables_are_listed_as_folders_are(tmp_path: Path) -> None:
    lines = ['path,label']
    for index in range(12):
        picture(tmp_path / f'{index}.png', 9, 9, grey=True)
        lines.append(f'{index}.png,{"ab"[index % 2]}')
    (tmp_path / 'a.csv').write_text('\n'.join([*lines, 'absent.png,a']))
    report = inspect(DataSettings(name='csv', path=str(tmp_path / 'a.csv'), image_size=8))
    assert report.train == (6, 6) and report.one_size and report.grey
    assert 'absent.png is not a readable image (there is no such file)' in report.unreadable[0]


def test_quantiles() -> None:
    assert Spread.of(range(101)) == Spread(0, 5, 50, 95, 100)
    assert Spread.of([]) == Spread(0, 0, 0, 0, 0) and Spread.of([3]).low == 3


def report_of(count: int, height: int, width: int, **changes: object) -> DataReport:
    side, aspect = min(height, width), max(height, width) / min(height, width)
    spreads = {name: Spread.of([value]) for name, value in (('height', height), ('width', width), ('short_side', side), ('aspect', aspect))}
    values = {
        'source': 'x',
        'files': True,
        'classes': ('a', 'b'),
        'train': (count // 2, count - count // 2),
        'test': None,
        'looked_at': count,
        **spreads,
        'modes': {'RGB': count},
        'grey': False,
        'unreadable': (),
        'left_out': {},
        'repeated': (),
        'notes': (),
    }
    return DataReport(**{**values, **changes})


@pytest.mark.parametrize(
    ('report', 'recipe', 'changes'),
    [
        (report_of(400, 300, 400), 'photos-small', {'data.image_size': 64}),
        (report_of(400, 30, 40), 'photos-small', {'data.image_size': 24}),
        (report_of(160, 8, 8), 'photos-small', {'data.image_size': 8, 'data.pad': 1, 'retrain.cutout': 2}),
        (report_of(400, 64, 400), 'photos-small', {'data.image_size': 64, 'data.fit': 'letterbox'}),
        (report_of(20_000, 64, 64), 'cifar10-small', {'data.image_size': 64}),
        (report_of(100_000, 300, 300), 'imagenet', {}),
        (report_of(2000, 8, 8, files=False), 'digits', {}),
        (report_of(2000, 28, 28, files=False), 'cifar10-small', {}),
        (
            report_of(100, 32, 32, train=(90, 10), unreadable=('x is not',)),
            'photos-small',
            {
                'data.image_size': 32,
                'data.class_weights': 'balanced',
                'metric': 'balanced_accuracy',
                'data.skip_unreadable': True,
            },
        ),
    ],
)
def test_what_to_start_from(report: DataReport, recipe: str, changes: dict) -> None:
    suggestion = suggest(report)
    assert (suggestion.recipe, suggestion.changes) == (recipe, changes) and len(suggestion.why) >= 1


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no folder'):
        folder(tmp_path / 'absent')
    with pytest.raises(InputError, match='is not a folder of class folders'):
        folder(tmp_path)
    picture(tmp_path / 'only' / '0.png', 5, 5)
    with pytest.raises(InputError, match='at least two classes are needed, found 1'):
        folder(tmp_path)
