from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nni_darts.data import ImageDataModule, image_shape, load_images
from nni_darts.data.arrays import statistics
from nni_darts.data.module import EpochSampler
from nni_darts.data.splits import split
from nni_darts.data.transforms import Cutout, evaluation_transform, training_transform
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings, Recipe

DIGITS = DataSettings(name='digits')


def arrays(**changes: object) -> dict:
    rng = np.random.default_rng(0)
    made = {
        'train_images': rng.integers(0, 256, (20, 6, 6, 3), dtype=np.uint8),
        'train_labels': np.arange(20) % 4,
        'test_images': rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8),
        'test_labels': np.arange(8) % 4,
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def npz(folder: Path, **changes: object) -> DataSettings:
    np.savez(folder / 'images.npz', **arrays(**changes))
    return DataSettings(name='npz', path=str(folder / 'images.npz'))


def folders(root: Path, names: tuple[str, ...] = ('cat', 'dog'), size: tuple[int, int] = (10, 8), count: int = 5) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new('RGB', size, (index * 40, 0, 0)).save(root / name / f'{index}.png')


def test_digits_are_real_stratified_and_split_by_seed() -> None:
    data = load_images(DIGITS)
    assert (len(data.train), len(data.test), data.num_classes, data.channels, data.size) == (1437, 360, 10, 1, (8, 8))
    assert all(34 <= count <= 37 for count in torch.bincount(data.test.labels))
    assert torch.equal(load_images(DIGITS).test.images, data.test.images)
    other = load_images(DataSettings(name='digits', split_seed=1))
    assert not torch.equal(other.test.images, data.test.images)


@pytest.mark.parametrize('name', ['digits'])
def test_known_shapes_are_true(name: str) -> None:
    data, shape = load_images(DataSettings(name=name)), image_shape(DataSettings(name=name))
    assert (shape.num_classes, shape.channels, shape.size) == (data.num_classes, data.channels, data.size)


def test_npz_in_any_layout(tmp_path: Path) -> None:
    last = load_images(npz(tmp_path))
    assert last.train.images.shape == (20, 3, 6, 6)
    first = load_images(npz(tmp_path, **{key: arrays()[key].transpose(0, 3, 1, 2) for key in ('train_images', 'test_images')}))
    assert torch.equal(first.train.images, last.train.images)
    grey = load_images(npz(tmp_path, **{key: arrays()[key][..., 0] for key in ('train_images', 'test_images')}))
    assert grey.train.images.shape == (20, 1, 6, 6)


def test_statistics_are_those_of_the_pixels() -> None:
    images = torch.randint(0, 256, (50, 3, 7, 7), dtype=torch.uint8)
    mean, std = statistics(images)
    pixels = images.double().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(torch.tensor(mean).double(), pixels.mean(1), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.tensor(std).double(), pixels.std(1, unbiased=False), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        ({'test_labels': None}, 'lacks test_labels'),
        ({'train_images': np.full((20, 6, 6, 3), -0.5)}, 'uint8.*from -0.5 to 255; do not normalise them'),
        ({'train_images': np.full((20, 6, 6, 3), 'x')}, 'must be numbers'),
        ({'train_labels': np.full((20, 4), 1)}, 'a single 1 in each row'),
        ({'train_labels': np.full(20, 'cat')}, 'one part are strings'),
        ({'train_images': np.zeros((20, 6), np.uint8)}, r'\(20, 6\)'),
        ({'train_labels': np.zeros(3, int)}, '20 whole numbers'),
        ({'train_labels': np.linspace(0, 1, 20)}, 'whole numbers'),
        ({'train_labels': np.zeros(20, int)}, 'two classes'),
        ({'train_labels': -np.ones(20, int)}, '0 or more'),
        ({'test_labels': np.arange(8)}, 'up to 7'),
        ({'train_labels': np.arange(20) % 4 * 5}, 'no training image has label 1'),
        ({'train_images': np.zeros((0, 6, 6, 3), np.uint8)}, 'no images'),
        ({'test_images': np.zeros((8, 5, 5, 3), np.uint8)}, 'test images'),
    ],
)
def test_wrong_arrays(changes: dict, names: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=names):
        load_images(npz(tmp_path, **changes))


def test_npz_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / 'owned',))

    with pytest.raises(InputError):
        load_images(npz(tmp_path, train_images=np.array([Evil()], dtype=object)))
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04broken', b'text', None])
def test_damaged_and_missing_files(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / 'x.npz'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match='x.npz'):
        load_images(DataSettings(name='npz', path=str(path)))


@pytest.mark.parametrize('name', ['cifar10', 'cifar100', 'svhn', 'fashion-mnist'])
def test_missing_data_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='download it once') as error:
        load_images(DataSettings(name=name, path=str(tmp_path)))
    assert str(tmp_path) in str(error.value) and '\n' not in str(error.value)


def folder(path: Path, size: int = 8) -> DataSettings:
    return DataSettings(name='folder', path=str(path), image_size=size)


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / '.ipynb_checkpoints').mkdir()
    data = load_images(folder(tmp_path))
    assert (len(data.train), len(data.test), data.num_classes, data.size) == (8, 2, 2, (8, 8))
    image = evaluation_transform(data.description)(data.train[0][0])
    assert image.shape == (3, 8, 8)


def test_a_train_folder_alone_is_the_data(tmp_path: Path) -> None:
    folders(tmp_path / 'train')
    assert load_images(folder(tmp_path)).num_classes == 2
    folders(tmp_path / 'evaluation')
    with pytest.raises(InputError, match='none called test, val, valid, validation'):
        load_images(folder(tmp_path))


def test_sixteen_bit_grey_levels_are_scaled(tmp_path: Path) -> None:
    folders(tmp_path)
    ramp = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / 'cat' / '0.png')
    data = load_images(folder(tmp_path).model_copy(update={'cache': False}))
    (pixels,) = (np.asarray(image) for part in (data.train, data.test) for image, _ in part if image.size == (8, 8))
    assert np.array_equal(pixels[..., 0], (ramp >> 8).astype(np.uint8))


@pytest.mark.parametrize('position', [0, 3])
@pytest.mark.parametrize('content', [b'', b'garbage', b'\x89PNG\r\n\x1a\n\x00\x00'])
def test_a_damaged_image_is_named(content: bytes, position: int, tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / 'cat' / f'{position}.png').write_bytes(content)
    with pytest.raises(InputError, match=rf'{position}\.png is not a readable image'):
        load_images(folder(tmp_path))


def test_layouts_of_arrays() -> None:
    from nni_darts.data.arrays import _channels_last

    assert _channels_last((9, 32, 32, 3)) and _channels_last((9, 8, 8, 5)) and not _channels_last((9, 5, 8, 8))
    assert not _channels_last((9, 3, 32, 32)) and _channels_last((9, 3, 3, 1))


@pytest.mark.parametrize('held_out', ['test', 'val', 'validation'])
def test_a_folder_with_train_and_test(held_out: str, tmp_path: Path) -> None:
    folders(tmp_path / 'train')
    folders(tmp_path / held_out, count=2)
    settings = DataSettings(name='folder', path=str(tmp_path), image_size=6)
    data = load_images(settings)
    assert (len(data.train), len(data.test), data.size) == (10, 4, (6, 6))
    for augment in ('none', 'crop', 'crop-flip', 'imagenet'):
        changed = DataSettings(name='folder', path=str(tmp_path), image_size=6, augment=augment, pad=1)
        data = load_images(changed)
        for transform in (training_transform(data, changed, 2), evaluation_transform(data.description)):
            assert transform(data.train[0][0]).shape == (3, 6, 6)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no folder'):
        load_images(folder(tmp_path / 'none'))
    with pytest.raises(InputError, match='class folders'):
        load_images(folder(tmp_path))
    folders(tmp_path, ('only',))
    with pytest.raises(InputError, match='two class'):
        load_images(folder(tmp_path))
    folders(tmp_path / 'x' / 'train')
    folders(tmp_path / 'x' / 'test', ('cat', 'fox'))
    with pytest.raises(InputError, match='test has class folders that .*train lacks: fox'):
        load_images(folder(tmp_path / 'x'))
    folders(tmp_path / 'y', ('cat', 'do\ng'))
    with pytest.raises(
        InputError, match=r"y has a class folder 'do\\ng', whose name has a line break or another control character; rename"
    ):
        load_images(folder(tmp_path / 'y'))


def test_the_users_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mine.py').write_text(
        'import numpy as np\n'
        'def load(path="nothing"):\n'
        '    images = np.zeros((6, 4, 4), np.uint8)\n'
        '    labels = np.array([0, 1] * 3)\n'
        '    return dict(train_images=images, train_labels=labels, test_images=images, test_labels=labels)\n'
        'def wrong(): return 3\n'
        'def fails(): raise KeyError(7)\n'
        'number = 3\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_images(DataSettings(name='mine:load')).size == (4, 4)
    (tmp_path / 'odd.py').write_text('import absent_thing')
    (tmp_path / 'bad.py').write_text('def (')
    cases = {
        'mine:wrong': 'must return',
        'mine:absent': "no 'absent'",
        'mine:fails': r'KeyError: 7 \(.*mine.py:',
        'mine:number': 'not callable',
        'nowhere:load': 'no module',
        'odd:load': 'absent_thing',
        'bad:load': 'invalid syntax',
    }
    for name, names in cases.items():
        with pytest.raises(InputError, match=names):
            load_images(DataSettings(name=name))


def test_a_split_is_shuffled_disjoint_and_complete() -> None:
    train, valid = split(100, 0.5, seed=3)
    assert sorted(train + valid) == list(range(100))
    assert train != sorted(train) and split(100, 0.5, seed=3) == (train, valid) != split(100, 0.5, seed=4)


def test_search_never_sees_test_images() -> None:
    """Every batch a search can draw comes from the training images."""
    data = load_images(DIGITS)
    module = ImageDataModule(data, DIGITS, train_portion=0.5, batch_size=64, seed=1)
    seen = torch.cat([images for loader in (module.train_dataloader(), module.architecture_dataloader()) for images, _ in loader])
    assert len(seen) == len(data.train)
    plain = evaluation_transform(data.description)
    test = {plain(data.test[index][0]).numpy().tobytes() for index in range(len(data.test))}
    train = {plain(data.train[index][0]).numpy().tobytes() for index in range(len(data.train))}
    assert {image.numpy().tobytes() for image in seen} == train
    assert len(test & train) == 0
    assert not set(module.train_indices) & set(module.valid_indices)


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochSampler(10, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    fresh = EpochSampler(10, seed=1)
    fresh.set_epoch(1)
    assert list(fresh) == list(sampler)
    assert list(EpochSampler(10, seed=2)) != first


def test_no_batch_of_one() -> None:
    data = load_images(DIGITS)
    module = ImageDataModule(data, DIGITS, train_portion=65.5 / 1437, batch_size=32, seed=1)
    assert len(module.train_indices) == 65
    assert [len(labels) for _, labels in module.train_dataloader()] == [32, 32]


def test_batches_of_colour_pictures_are_contiguous(tmp_path: Path) -> None:
    """Only our own networks bring images into channels_last: a user's convolutions get the layout that torch gives by default."""
    folders(tmp_path, count=9)
    settings = folder(tmp_path)
    module = ImageDataModule(load_images(settings), settings, train_portion=0.5, batch_size=3, seed=1)
    for loader in (module.train_dataloader(), module.architecture_dataloader(), module.val_dataloader(), module.test_dataloader()):
        for images, _ in loader:
            assert images.shape[1] == 3 and images.is_contiguous()


def test_cutout_zeroes_a_square_clipped_at_the_border() -> None:
    torch.manual_seed(1)
    image = torch.ones(2, 16, 16)
    areas = set()
    for _ in range(200):
        cut = Cutout(6)(image)
        rows = (cut[0] == 0).any(1).sum()
        columns = (cut[0] == 0).any(0).sum()
        assert torch.equal(cut[0], cut[1]) and 3 <= rows <= 6 and 3 <= columns <= 6
        assert int((cut[0] == 0).sum()) == rows * columns
        areas.add(int(rows * columns))
    assert max(areas) == 36 and min(areas) < 36
    assert torch.equal(image, torch.ones(2, 16, 16))


def test_cutout_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(InputError, match='cutout 16'):
        training_transform(load_images(DIGITS), DIGITS, 16)


def test_padding_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(InputError, match='data.pad 100'):
        training_transform(load_images(DIGITS), DataSettings(name='digits', augment='crop', pad=100))


def test_an_impossible_split_of_the_digits() -> None:
    with pytest.raises(InputError, match='test_portion'):
        load_images(DataSettings(name='digits', test_portion=0.999))


def test_too_few_images(tmp_path: Path) -> None:
    settings = npz(tmp_path)
    with pytest.raises(InputError, match='too few'):
        ImageDataModule(load_images(settings), settings, train_portion=0.05, batch_size=4, seed=1)


def test_recipe_seeds_do_not_change_the_split() -> None:
    recipe = Recipe.load('digits')
    data = load_images(recipe.data)
    one, two = (ImageDataModule(data, recipe.data, train_portion=0.5, batch_size=64, seed=seed) for seed in (1, 2))
    assert one.valid_indices == two.valid_indices
    assert not torch.equal(next(iter(one.train_dataloader()))[1], next(iter(two.train_dataloader()))[1])
