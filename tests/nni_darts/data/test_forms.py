"""The forms in which people keep images and labels are the same data set."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from nni_darts.data import ImageData, load_images
from nni_darts.data.forms import from_value
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (20, 6, 6, 3), dtype=np.uint8), np.arange(20) % 4
X_TEST, Y_TEST = RNG.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8), np.arange(8) % 4
NAMES = np.array(['ant', 'bee', 'cat', 'dog'])
PLAIN = {'train_images': X, 'train_labels': Y, 'test_images': X_TEST, 'test_labels': Y_TEST}


def npz(folder: Path, arrays: dict) -> ImageData:
    np.savez(folder / 'images.npz', **arrays)
    return load_images(DataSettings(name='npz', path=str(folder / 'images.npz')))


@pytest.mark.parametrize(
    'changes',
    [
        {'train_labels': Y[:, None], 'test_labels': Y_TEST[:, None].astype(np.uint8)},
        {'train_labels': np.eye(4)[Y], 'test_labels': np.eye(4, dtype=bool)[Y_TEST]},
        {'train_labels': Y.astype(float), 'test_labels': Y_TEST},
        {'train_labels': NAMES[Y], 'test_labels': NAMES[Y_TEST].astype('S')},
        {'train_images': X / 255, 'test_images': (X_TEST / 255).astype(np.float32)},
        {'train_images': X.astype(np.int64), 'test_images': X_TEST.astype(np.float64)},
    ],
    ids=['N×1 as MedMNIST', 'one-hot', 'float labels', 'texts', 'floats from 0 to 1', 'other numbers to 255'],
)
def test_variants_of_an_npz(changes: dict, tmp_path: Path) -> None:
    plain, other = npz(tmp_path, PLAIN), npz(tmp_path, {**PLAIN, **changes})
    for part in ('train', 'test'):
        assert torch.equal(getattr(plain, part).images, getattr(other, part).images)
        assert torch.equal(getattr(plain, part).labels, getattr(other, part).labels)
    assert other.classes == (tuple(NAMES) if changes.get('train_labels', Y).dtype.kind == 'U' else ('0', '1', '2', '3'))


def test_other_names_of_arrays(tmp_path: Path) -> None:
    keras = npz(tmp_path, {'x_train': X, 'y_train': Y, 'x_test': X_TEST, 'y_test': Y_TEST})
    assert torch.equal(keras.test.images, npz(tmp_path, PLAIN).test.images)
    medical = npz(tmp_path, {**PLAIN, 'val_images': X_TEST, 'val_labels': Y_TEST[:, None]})
    assert medical.notes[0].endswith('val_images, val_labels are not used: validation images are cut from the training images')


@pytest.mark.parametrize('keys', [('train_images', 'train_labels'), ('images', 'labels'), ('x', 'y')])
def test_without_test_arrays_a_stratified_fifth_is_held_out(keys: tuple[str, str], tmp_path: Path) -> None:
    data = npz(tmp_path, dict(zip(keys, (X, Y))))
    assert (len(data.train), sorted(data.test.labels.tolist())) == (16, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ('arrays', 'sentence'),
    [
        ({'x_train': X}, r'lacks train_labels \(it holds x_train\)'),
        ({'train_images': X, 'train_labels': Y, 'test_images': X_TEST}, 'lacks test_labels'),
        ({'a': X}, 'lacks train_images, train_labels'),
        ({**PLAIN, 'train_labels': NAMES[Y], 'test_labels': np.full(8, 'eel')}, 'test images have the labels eel'),
        ({**PLAIN, 'train_images': X / 100}, 'fractions from 0 to 1; these are float64, uint8 from 0 to'),
        ({**PLAIN, 'train_labels': np.tile([1, 1, 0, 0], (20, 1))}, 'a single 1 in each row'),
    ],
)
def test_arrays_that_are_no_data_set(arrays: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        npz(tmp_path, arrays)


class Pictures(torch.utils.data.Dataset):
    """As people write one: PIL images, labels as ints."""

    classes = NAMES.tolist()

    def __init__(self, images: np.ndarray, labels: np.ndarray, odd: bool = False) -> None:
        self.images, self.numbers, self.odd = images, labels, odd

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = Image.fromarray(self.images[index])
        return image.resize((5, 5)) if self.odd and index == 3 else image, int(self.numbers[index])


def tensors(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    """As ToTensor makes them."""
    return TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(labels))


@pytest.mark.parametrize(
    'value',
    [
        lambda: ((X, Y), (X_TEST, Y_TEST)),
        lambda: (X, Y, X_TEST, Y_TEST),
        lambda: [(torch.from_numpy(X), torch.from_numpy(Y)), (X_TEST, Y_TEST.tolist())],
        lambda: (Pictures(X, Y), Pictures(X_TEST, Y_TEST)),
        lambda: (tensors(X, Y), tensors(X_TEST, Y_TEST)),
        lambda: {'train': Pictures(X, Y), 'test': Pictures(X_TEST, Y_TEST)},
        lambda: {'train': (X, Y), 'test': (X_TEST, Y_TEST)},
        lambda: PLAIN,
    ],
)
def test_what_a_function_may_return(value: Callable) -> None:
    data = from_value(value(), 'mine:load', DataSettings(name='mine:load'))
    expected = from_value(PLAIN, 'mine:load', DataSettings(name='mine:load'))
    for part in ('train', 'test'):
        assert torch.equal(getattr(data, part).images, getattr(expected, part).images)
        assert torch.equal(getattr(data, part).labels, getattr(expected, part).labels)


@pytest.mark.parametrize('value', [lambda: Pictures(X, Y), lambda: (X, Y), lambda: tensors(X, Y)])
def test_one_set_is_split(value: Callable) -> None:
    data = from_value(value(), 'mine:load', DataSettings(name='mine:load'))
    assert (len(data.train), sorted(data.test.labels.tolist())) == (16, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ('value', 'sentence'),
    [
        (lambda: Pictures(X, Y, odd=True), r'image 0 is \(6, 6, 3\) uint8, image 3 \(5, 5, 3\) uint8'),
        (lambda: [3, 4], 'must return .*it returned list of int, int'),
        (lambda: (1, 2, 3), 'it returned tuple of int, int, int'),
        (lambda: TensorDataset(torch.zeros(4, 3, 6, 6)), r'item 0 of the data set must be \(image, label\)'),
    ],
)
def test_what_a_function_may_not_return(value: Callable, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_value(value(), 'mine:load', DataSettings(name='mine:load'))


def test_a_users_fault_is_reported_with_his_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'faulty.py').write_text(
        'import numpy as np\n'
        'class Set:\n'
        '    def __len__(self): return 3\n'
        '    def __getitem__(self, index):\n'
        '        return np.zeros((4, 4)).reshape(5, 5), 0\n'
        'def load():\n'
        '    return np.stack([np.zeros(2), np.zeros(3)])\n'
        'def lazy():\n'
        '    return Set()\n'
    )
    (tmp_path / 'unready.py').write_text('import numpy as np\n\nnp.zeros(3).reshape(2)\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, place in (('faulty:load', 'faulty.py:7'), ('faulty:lazy', 'faulty.py:5'), ('unready:load', 'unready.py:3')):
        with pytest.raises(InputError, match=rf'ValueError: .*{place}\)$'):
            load_images(DataSettings(name=name))


def table(path: Path, *lines: str) -> DataSettings:
    path.write_text('\n'.join(lines), 'utf-8')
    return DataSettings(name='csv', path=str(path), image_size=6)


def test_a_table_of_paths_and_labels(tmp_path: Path) -> None:
    lines = []
    for index in range(20):
        Image.fromarray(X[index]).save(tmp_path / f'{index}.png')
        lines.append(f'{index}.png,{NAMES[Y[index]]}')
    plain = load_images(table(tmp_path / 'a.csv', *lines))
    named = load_images(table(tmp_path / 'a.csv', 'Label;Filename', *(';'.join(reversed(line.split(','))) for line in lines)))
    for data in (plain, named):
        assert data.classes == tuple(NAMES) and (len(data.train), sorted(label for _, label in data.test)) == (16, [0, 1, 2, 3])
    parted = load_images(
        table(tmp_path / 'a.csv', 'path,label,split', *(f'{line},{"val" if k < 4 else "train"}' for k, line in enumerate(lines)))
    )
    assert [Path(parted.test.path(index)).name for index in range(4)] == ['0.png', '1.png', '2.png', '3.png']
    doubled = load_images(table(tmp_path / 'a.csv', *lines, lines[0]))
    assert '1 images are listed more than once' in doubled.notes[0]
    for text, sentence in (
        (('path,label', 'absent.png,cat', '0.png,dog'), 'absent.png is not a readable image .there is no such file'),
        (('a,b', '0.png,cat'), 'must name the columns path and label'),
        (('path,label', '0.png'), 'line 2 has too few columns'),
        (('path,label', '0.png,cat', '', '1.png, ', '2.png,dog'), r'a\.csv: line 4 has no label; a table has a line "path,label"'),
        (('0.png,cat', ',dog'), 'line 2 has no path'),
        (('path,label,split', '0.png,cat,exam'), "unknown part 'exam'"),
        (('path,label', '0.png,cat', '1.png,cat'), 'two classes'),
    ):
        with pytest.raises(InputError, match=sentence):
            load_images(table(tmp_path / 'a.csv', *text))


@pytest.mark.parametrize('packed', [True, False])
def test_fashion_mnist_as_downloaded(packed: bool, tmp_path: Path) -> None:
    for part, images, labels in (('train', X[..., 0], Y), ('t10k', X_TEST[..., 0], Y_TEST)):
        for kind, array in (('images-idx3', images), ('labels-idx1', labels)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes() + array.astype(np.uint8).tobytes()
            name = f'{part}-{kind}-ubyte'
            (tmp_path / (name + '.gz' if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    data = load_images(DataSettings(name='fashion-mnist', path=str(tmp_path)))
    assert np.array_equal(data.train.images[:, 0].numpy(), X[..., 0]) and data.test.labels.tolist() == Y_TEST.tolist()
    spoilt = next(tmp_path.glob('t10k-images*'))
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    with pytest.raises(InputError, match='t10k-images.* is damaged'):
        load_images(DataSettings(name='fashion-mnist', path=str(tmp_path)))
