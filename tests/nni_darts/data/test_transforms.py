"""How a picture becomes a tensor is one rule, in training, in tests and in prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nni_darts.data import Description, ImageDataModule, load_images
from nni_darts.data.scan import open_image
from nni_darts.data.transforms import BringToSize, covering, evaluation_transform, pixels, with_margin, within
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings, Recipe
from nni_darts.runs.tasks import ImageTask

SIDES = st.integers(1, 700)
SIZES = st.tuples(SIDES, SIDES)


@given(SIZES, SIZES)
def test_a_crop_covers_and_a_letterbox_lies_within(size: tuple[int, int], box: tuple[int, int]) -> None:
    height, width = covering(size, box)
    assert height >= box[0] and width >= box[1] and (height == box[0] or width == box[1])
    assert abs(height * size[1] - width * size[0]) <= max(size)
    height, width = within(size, box)
    assert 1 <= height <= box[0] and 1 <= width <= box[1] and (height == box[0] or width == box[1])


def test_the_shorter_side_is_scaled_to_a_square_as_torchvision_does() -> None:
    """Runs of earlier versions keep their pixels: checked against torchvision's Resize and CenterCrop."""
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    for height, width in ((10, 8), (17, 33), (375, 500), (5, 300), (32, 32), (64, 64)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for side in (8, 31, 32):
            for resize in (None, with_margin((side, side))):
                published = v2.Compose([v2.Resize(resize[0] if resize else side), v2.CenterCrop((side, side))])
                assert np.array_equal(np.asarray(BringToSize((side, side), resize)(image)), np.asarray(published(image)))


def test_a_letterbox_keeps_the_whole_picture_and_fills_with_the_mean_colour() -> None:
    red = Image.new('RGB', (40, 20), (255, 0, 0))
    whole = np.asarray(BringToSize((16, 16), fit='letterbox', fill=(1, 2, 3))(red))
    assert (whole[4:12] == (255, 0, 0)).all() and (whole[:4] == (1, 2, 3)).all() and (whole[12:] == (1, 2, 3)).all()
    description = Description(2, 3, (16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), ('a', 'b'), 'letterbox')
    tensor = evaluation_transform(description)(red)
    assert tensor[:, :4].abs().max() < 0.5 / 255 / 0.2 * 1.01  # the mean, rounded to a byte


def pictures(root: Path, *sizes: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for name in ('cat', 'dog'):
        (root / name).mkdir(parents=True)
        for number, (height, width) in enumerate(sizes * 3):
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / name / f'{number}.png')
    return root


@pytest.mark.parametrize('fit', ['crop', 'letterbox'])
@pytest.mark.parametrize('size', [8, [6, 12]], ids=['square', 'rectangle'])
def test_prediction_sees_the_bits_that_a_test_sees(fit: str, size: object, tmp_path: Path) -> None:
    root = pictures(tmp_path / 'photos', (20, 30), (9, 9), (40, 12))
    recipe = Recipe.load('photos-small', {'data.path': str(root), 'data.image_size': size, 'data.fit': fit, 'data.pad': 2})
    data = load_images(recipe.data)
    module = ImageDataModule(data, recipe.data, train_portion=0.5, batch_size=2, seed=1)
    tested = torch.cat([images for images, _ in module.test_dataloader()])
    kept = Description.from_dict(json.loads(json.dumps(data.description.to_dict())))
    assert kept == data.description and kept.fit == fit
    expected_size = (8, 8) if size == 8 else (6, 12)
    assert tested.shape[1:] == (3, *expected_size) and next(iter(module.train_dataloader()))[0].shape[1:] == (3, *expected_size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (kept.mean, kept.std))
    for index, image in enumerate(tested):
        opened = open_image(data.test.path(index))
        assert torch.equal(evaluation_transform(kept)(opened), image)
        torch.testing.assert_close((pixels(opened, kept) / 255 - mean) / std, image, rtol=1e-5, atol=1e-5)
    said = ImageTask().describe(recipe, data)
    assert f'3×{expected_size[0]}×{expected_size[1]}, pictures {"letterboxed" if fit == "letterbox" else "cropped"}, ' in said


def test_a_margin_of_imagenets_is_kept_for_prediction(tmp_path: Path) -> None:
    root = pictures(tmp_path, (30, 40))
    data = load_images(DataSettings(name='folder', path=str(root), image_size=14, augment='imagenet'))
    assert data.description.resize == (16, 16)
    assert Description.from_dict(data.description.to_dict()).resize == (16, 16)


def test_descriptions_of_earlier_versions_and_damaged_ones() -> None:
    old = {'num_classes': 2, 'channels': 1, 'size': [8, 8], 'mean': [0.5], 'std': [0.2], 'classes': ['a', 'b']}
    assert (Description.from_dict(old).fit, Description.from_dict(old).resize) == ('crop', None)
    for change in ({'fit': 'stretch'}, {'resize': 3}, {'resize': [3]}, {'size': None}):
        with pytest.raises(InputError, match='description of the data is damaged'):
            Description.from_dict({**old, **change})


def test_pictures_for_networks_of_grey_images() -> None:
    grey = Description(2, 1, (4, 4), (0.5,), (0.2,), ('a', 'b'))
    assert pixels(Image.new('RGB', (9, 7), (200, 200, 200)), grey).tolist() == [[[200] * 4] * 4]
    with pytest.raises(InputError, match='trained on images of 5'):
        pixels(Image.new('RGB', (4, 4)), Description(2, 5, (4, 4), (0.5,) * 5, (0.2,) * 5, ('a', 'b')))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ('data.image_size=[3, 4.5]', r'data.image_size: must be the side of a square, or \[height, width\]'),
        ('data.image_size=[3, 4, 5]', r'must be the side of a square, or \[height, width\], .*; it is \[3, 4, 5\]'),
        ('data.image_size=0', 'whole numbers from 1'),
        ('data.fit=stretch', "data.fit = 'stretch' is wrong"),
    ],
)
def test_wrong_sizes(change: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Recipe.load('photos-small', [change])


def test_a_letterbox_is_not_cropped_at_random() -> None:
    with pytest.raises(InputError, match='data.fit letterbox keeps whole pictures'):
        Recipe.load('photos-small', ['data.fit=letterbox', 'data.augment=imagenet'])
