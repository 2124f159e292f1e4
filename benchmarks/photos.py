"""Measures how long it takes to read an epoch of photos, decoded every time or stored decoded: JPEGs of noise, resized to a square.

    python -m benchmarks.photos

Only reading is measured, with crops and flips, without a network. It takes half a minute on one core.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.common import Row, benchmark, print_table
from nni_darts.data import ImageDataModule, load_images
from nni_darts.recipes import DataSettings

SIZES = ((375, 500), (1200, 1600))
SIDES = (32, 64)
ROUNDS = 3


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Writes JPEGs of blurred noise to two class folders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(2))
        path = folder / 'ab'[index % 2] / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    return folder


def seconds(settings: DataSettings, rounds: int) -> tuple[float, float]:
    """Returns the seconds until the data are loaded, and of the fastest epoch."""
    start = time.perf_counter()
    module = ImageDataModule(load_images(settings), settings, train_portion=0.5, batch_size=32, seed=1)
    loaded, epochs = time.perf_counter() - start, []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in module.train_dataloader():
            pass
        epochs.append(time.perf_counter() - start)
    return loaded, min(epochs)


@benchmark
def main(quick: bool, json_file: Path | None) -> None:
    """Read an epoch of photos with and without stored pictures."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as work:
        os.environ['XDG_CACHE_HOME'] = str(Path(work) / 'cache')
        for size in SIZES[: 1 if quick else None]:
            photos = write_photos(Path(work) / f'{size[0]}', 20 if quick else 100, size)
            for side in SIDES:
                settings = DataSettings(name='folder', path=str(photos), image_size=side, augment='crop-flip')
                _, plain = seconds(settings.model_copy(update={'cache': False}), ROUNDS)
                first, _ = seconds(settings, 1)
                again, kept = seconds(settings, ROUNDS)
                count = 10 if quick else 50
                rows.append(
                    {
                        'photos': f'{size[1]}×{size[0]}',
                        'image_size': side,
                        'decoded each time, ms a photo': 1000 * plain / count,
                        'kept, ms a photo': 1000 * kept / count,
                        'ratio': plain / kept,
                        'first load, s': first,
                        'later loads, s': again,
                    }
                )
    print_table(rows, json_file)


if __name__ == '__main__':
    main()
