"""A real training leaves its page and the evaluation of its test; thumbnails stay small."""

from __future__ import annotations

import base64
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nni_darts.data import load_images
from nni_darts.data.base import ArrayImages
from nni_darts.genotypes.recurrent import RnnGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.training_page import evaluation_of, thumbnails
from tests.helpers import running
from tests.helpers.tiny import overrides, recipe, text_recipe, write_images, write_text


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe(write_images(tmp_path_factory.mktemp('data') / 'images.npz'))


def test_a_retraining_writes_its_page_after_each_epoch_and_its_evaluation_at_the_end(tiny: Recipe, tmp_path: Path) -> None:
    output, seen = tmp_path / 'my net', []

    def look(record: dict) -> None:
        page = json.loads((output / 'training.json').read_text())
        seen.append((page['epochs'][-1]['epoch'], page['over'], page['evaluation']))

    cell = tiny.random_cells(1)[0]
    result = running.train_cell(tiny, 'retrain', cell, 1, output, on_epoch=look)
    assert seen == [(1, False, None), (2, False, None)]
    page = json.loads((output / 'training.json').read_text())
    evaluation = json.loads((output / 'evaluation.json').read_text())
    assert page['over'] and result == json.loads((output / 'result.json').read_text())['result']
    assert {**page['result'], 'ended': 'planned'} == result  # the page's data are numbers
    assert evaluation['accuracy'] == pytest.approx(result['test_accuracy'], abs=1e-6)
    data = load_images(tiny.data)
    assert [sum(row) for row in evaluation['confusion']] == torch.bincount(data.test.labels, minlength=10).tolist()
    assert {name: value for name, value in page['evaluation'].items() if name != 'mistakes'} == {
        name: value for name, value in evaluation.items() if name != 'mistakes'
    }
    # A mistake has the picture of the image that it names.
    assert 0 < len(page['evaluation']['mistakes']) <= 20
    for mistake in page['evaluation']['mistakes']:
        image, label = data.test[int(mistake['name'])]
        assert data.description.classes[label] == mistake['true']
        assert np.array_equal(decoded(mistake['image']), image[0])
    assert [shlex.split(command)[2] for command in page['commands']] == [str(output)] * 3
    assert page['epochs'][0]['learning_rate'] == tiny.retrain.learning_rate


def test_a_short_training_has_no_test(tiny: Recipe, tmp_path: Path) -> None:
    running.train_cell(tiny, 'select', tiny.random_cells(1)[0], 1, tmp_path)
    page = json.loads((tmp_path / 'training.json').read_text())
    assert page['over'] and page['stage'] == 'select' and page['evaluation'] is None and not (tmp_path / 'evaluation.json').exists()


def test_a_training_on_text_has_a_page_without_images(tmp_path: Path) -> None:
    (tmp_path / 'text').mkdir()
    settings = text_recipe(write_text(tmp_path / 'text'))
    result = running.train_cell(settings, 'retrain', RnnGenotype.from_code('rnn.t0r1'), 1, tmp_path / 'out')
    page = json.loads((tmp_path / 'out' / 'training.json').read_text())
    assert page['result']['test_perplexity'] == result['test_perplexity'] and page['evaluation'] is None and page['commands'] == []
    assert not (tmp_path / 'out' / 'evaluation.json').exists()
    assert page['epochs'][0]['learning_rate'] == settings.retrain.learning_rate


def test_names_are_the_paths_of_photos(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(tmp_path / name / f'{number}.png')
    data = load_images(Recipe.load('photos-small', {**overrides(tmp_path), 'data.name': 'folder'}).data)
    labels = data.test.labels
    found = evaluation_of((torch.full((len(labels), 2), 0.5), labels), data)
    assert [Path(name).parent.name for name in found.names] == [('cat', 'dog')[label] for label in labels]


# thumbnails -------------------------------------------------------------------------------------------------------------------------


def decoded(uri: str) -> np.ndarray:
    head, _, text = uri.partition(',')
    assert head == 'data:image/png;base64'
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(('channels', 'shape'), [(1, (8, 6)), (3, (8, 6, 3)), (2, (8, 6)), (4, (8, 6, 3))])
def test_small_images_are_shown_as_they_are(channels: int, shape: tuple[int, ...]) -> None:
    images = noise(3, channels, 8, 6)
    found = thumbnails(ArrayImages(images, torch.zeros(3, dtype=torch.int64)), [2, 0])
    for uri, index in zip(found, (2, 0), strict=True):
        pixels = decoded(uri)
        assert pixels.shape == shape
        shown = images[index, :3].permute(1, 2, 0) if len(shape) == 3 else images[index, 0]
        assert np.array_equal(pixels, shown)


def test_large_images_are_reduced_until_all_fit() -> None:
    """Noise is the worst that a PNG can meet."""
    data = ArrayImages(noise(20, 3, 200, 300), torch.zeros(20, dtype=torch.int64))
    found = thumbnails(data, range(20))
    assert sum(map(len, found)) <= 200_000 and all(found)
    heights, widths = zip(*(decoded(uri).shape[:2] for uri in found))
    assert set(widths) == {56} and set(heights) == {37}
    assert sum(map(len, thumbnails(data, range(20), 20_000))) <= 20_000


def test_photos_of_any_mode_become_pictures() -> None:
    modes = ('L', 'RGB', 'RGBA', 'P', 'CMYK')
    data = [(Image.fromarray(noise(300, 200, 3).numpy()).convert(mode), 0) for mode in modes]
    assert [decoded(uri).shape[:2] for uri in thumbnails(data, range(5))] == [(96, 64)] * 5
