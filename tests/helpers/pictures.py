"""Realistic folders of pictures: four classes of colours, in every mode and form that a camera or a drawing program writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nni_darts import Genotype
from nni_darts.recipes import Recipe
from tests.helpers import running

CELL = Genotype(
    normal=(('skip_connect', 0), ('max_pool_3x3', 1)),
    normal_concat=(2,),
    reduce=(('skip_connect', 0), ('dil_conv_3x3', 1)),
    reduce_concat=(2,),
)
"""A cell whose network is trained and exported in seconds."""

COLOURS = {'dunkel': (25, 25, 35), 'grün blau': (30, 180, 90), 'hell': (230, 230, 225), 'rot': (220, 40, 30)}
"""Class → its colour."""


def picture(colour: tuple[int, int, int], rng: np.random.Generator, sides: tuple[int, int] | None = None) -> Image.Image:
    """Returns a noisy picture of one colour."""
    height, width = sides or rng.integers(20, 60, 2)
    return Image.fromarray(np.clip(np.array(colour) + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8))


def write_pictures(root: Path, count: int = 12) -> Path:
    """Writes a folder that has a folder of ``count`` JPEGs for each class."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(colour, rng).save(root / name / f'{number}.jpg', quality=95)
    return root


def write_oddities(root: Path) -> tuple[list[Path], list[Path]]:
    """Writes a folder of pictures of every kind, most of them red. Returns the readable and the unreadable files."""
    root.mkdir(parents=True)
    red = picture(COLOURS['rot'], np.random.default_rng(1), (30, 50))
    readable = {
        'mit Leerzeichen und Ümlaut.PNG': red,
        'transparent.png': red.convert('RGBA'),
        'cmyk.JPG': red.convert('CMYK'),
        'palette.bmp': red.convert('P'),
        'grey.tif': red.convert('L'),
        'grey-alpha.png': red.convert('LA'),
        'tall.webp': red.rotate(90, expand=True),
    }
    red.putalpha(255)
    for name, image in readable.items():
        image.save(root / name)
    Image.fromarray((np.arange(1500, dtype=np.uint16) * 40).reshape(30, 50)).save(root / 'sixteen-bits.png')
    turned = Image.Exif()
    turned[0x0112] = 6
    red.convert('RGB').save(root / 'turned.jpeg', exif=turned)
    whole = (root / 'turned.jpeg').read_bytes()
    (root / 'half.jpg').write_bytes(whole[: len(whole) // 2])
    (root / 'empty.jpg').write_bytes(b'')
    (root / '._hidden.png').write_bytes(b'nothing')
    (root / 'photo.heic').write_bytes(b'another format')
    unreadable = [root / name for name in ('empty.jpg', 'half.jpg')]
    return sorted(root / name for name in (*readable, 'sixteen-bits.png', 'turned.jpeg')), unreadable


def train_on_photos(folder: Path) -> None:
    """Writes ``photos`` with training and test images, ``photo.jpg``, and ``out/retrain``, a network trained on them for a moment."""
    write_pictures(folder / 'photos' / 'train', 6)
    write_pictures(folder / 'photos' / 'test', 2)
    (folder / 'photo.jpg').write_bytes((folder / 'photos' / 'test' / 'rot' / '0.jpg').read_bytes())
    small = {'retrain.channels': 4, 'retrain.cells': 3, 'retrain.batch_size': 8, 'retrain.epochs': 2, 'retrain.auxiliary_weight': 0.0}
    changes = {'data.path': str(folder / 'photos'), 'data.image_size': 10, 'data.pad': 1, 'retrain.cutout': 0}
    running.train_cell(Recipe.load('photos-small', {**small, **changes}), 'retrain', CELL, 1, folder / 'out' / 'retrain')
