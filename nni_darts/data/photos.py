"""Photos in files: a folder of class folders, or a table of paths and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nni_darts.data.arrays import numbered
from nni_darts.data.base import ImageData, ImageShape, Labelled
from nni_darts.data.scan import FORMATS, Listing, check_images, class_folders, list_images, open_image
from nni_darts.data.splits import hold_out
from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings

__all__ = ['IMAGENET_SIZE', 'Photos', 'folder_shape', 'read_csv', 'read_folder']

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIZE = 224
TEST_FOLDERS = ('test', 'val', 'valid', 'validation')

File = tuple[str, int]
"""A path and its label."""

_PATH_COLUMNS = ('path', 'file', 'filename', 'file_name', 'filepath', 'file_path', 'image', 'image_path', 'img', 'image_id', 'id')
_LABEL_COLUMNS = ('label', 'class', 'target', 'category', 'classname', 'class_name', 'labels', 'y')
_PART_COLUMNS = ('split', 'part', 'set', 'subset')


class Photos(Labelled):
    """Image files, opened when they are asked for: yields (RGB PIL image, label)."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = list(files)
        self.labels = torch.tensor([label for _, label in files], dtype=torch.int64)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return open_image(path), label


def _photos(
    train: Sequence[File], test: Sequence[File] | None, classes: Sequence[str], source: str, settings: DataSettings, notes: tuple[str, ...]
) -> ImageData:
    """Opens every file once, splits where there are no test images, and builds the data set."""
    if len(classes) < 2:
        raise InputError(f'{source}: at least two classes are needed, found {len(classes)}')
    if settings.name == 'imagenet':
        open_image(train[0][0])  # 1.3 million published images: looking at all of them would take longer than it is worth
    else:
        check_images([path for path, _ in (*train, *(test or ()))])
    if test is None:
        kept, held_out = hold_out([label for _, label in train], settings)
        train, test = [train[index] for index in kept], [train[index] for index in held_out]
    size = (settings.image_size or IMAGENET_SIZE,) * 2
    return ImageData(
        Photos(train), Photos(test), len(classes), 3, size, IMAGENET_MEAN, IMAGENET_STD, False, classes=tuple(classes), notes=notes
    )


# folders --------------------------------------------------------------------------------------------------------------------------


def read_folder(settings: DataSettings) -> ImageData:
    """Reads a folder with one folder for each class, or with ``train`` and one of ``TEST_FOLDERS`` of such folders.

    Raises:
        InputError: if there is none, or a list of all images that cannot be read.
    """
    train_root, test_root = _roots(settings)
    train = list_images(train_root)
    notes = _left_out(train, train_root)
    _check_classes(train, train_root)
    if test_root is None:
        return _photos(train.files, None, train.classes, str(train_root), settings, notes)
    test = list_images(test_root)
    extra = [name for name in test.classes if name not in train.classes]
    if extra:
        raise InputError(f'{test_root} has class folders that {train_root} lacks: {", ".join(extra)}')
    if not test.files:
        raise InputError(f'{test_root} is not a folder of class folders with images')
    label = {name: index for index, name in enumerate(train.classes)}
    files = [(path, label[test.classes[number]]) for path, number in test.files]
    return _photos(train.files, files, train.classes, str(train_root), settings, (*notes, *_left_out(test, test_root)))


def folder_shape(settings: DataSettings) -> ImageShape:
    """The shape of what :func:`read_folder` reads; opens no image."""
    root, _ = _roots(settings)
    return ImageShape(len(class_folders(root)), 3, (settings.image_size or IMAGENET_SIZE,) * 2)


def _roots(settings: DataSettings) -> tuple[Path, Path | None]:
    """The folders of training and test images; None where a part of the training images is to be held out."""
    root = Path(settings.path or '')
    if not root.is_dir():
        raise InputError(f'no folder {root}: set data.path to a folder with one folder of images for each class')
    test_root = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not (root / 'train').is_dir():
        if test_root:
            raise InputError(f'{root} has a folder {test_root.name} but none called train: rename the folder of training images')
        return root, None
    if not test_root and len(class_folders(root)) > 1:
        raise InputError(f'{root} has a folder train but none called {", ".join(TEST_FOLDERS)}: rename the folder of test images')
    return root / 'train', test_root


def _check_classes(listing: Listing, root: Path) -> None:
    if not listing.files:
        raise InputError(f'{root} is not a folder of class folders with images ({", ".join(FORMATS)})')
    empty = listing.empty()
    if empty:
        raise InputError(f'{root} has class folders without images: {", ".join(empty)}; images end in {", ".join(FORMATS)}')


def _left_out(listing: Listing, root: Path) -> tuple[str, ...]:
    """One sentence on the files that are not read, or none."""
    if not listing.left_out:
        return ()
    kinds = ', '.join(f'{count} {ending}' for ending, count in sorted(listing.left_out.items(), key=lambda entry: (-entry[1], entry[0])))
    count = listing.left_out.total()
    said = '1 file is' if count == 1 else f'{count} files are'
    return (f'{root}: {said} left out ({kinds}); images that are read end in {", ".join(FORMATS)}',)


# tables ---------------------------------------------------------------------------------------------------------------------------


def read_csv(settings: DataSettings) -> ImageData:
    """Reads a table with a line for each image: its path, counted from the table's folder, its label, and perhaps its part.

    Columns are known by their names (``path``, ``label``, ``split`` and usual synonyms); two columns without such a heading are path
    and label. The part is ``train``, ``test``, or one of ``val``, ``valid``, ``validation``: test images if there is no ``test``.

    Raises:
        InputError: for another table, or a list of all images that are missing or cannot be read.
    """
    path = Path(settings.path or '')
    rows = _rows(path)
    columns = _columns(rows[0], path)
    if columns is None:
        columns = {'path': 0, 'label': 1}
    else:
        rows = rows[1:]
    short = next((number for number, row in enumerate(rows, 1) if len(row) <= max(columns.values())), None)
    if short is not None or not rows:
        where = f'row {short} has too few columns' if short else 'there are no images'
        raise InputError(f'{path}: {where}; a table has a line "path,label" or "path,label,split" for each image')
    parts = [row[columns['part']].strip().lower() if 'part' in columns else 'train' for row in rows]
    unknown = sorted(set(parts) - {'train', *TEST_FOLDERS})
    if unknown:
        raise InputError(f'{path}: unknown part {unknown[0]!r}; allowed: train, {", ".join(TEST_FOLDERS)}')
    test_part = next((name for name in TEST_FOLDERS if name in parts), None)
    sides: dict[str, list[tuple[str, str]]] = {'train': [], 'test': []}
    for row, part in zip(rows, parts):
        file = os.path.join(path.parent, row[columns['path']].strip())
        sides['test' if part == test_part else 'train'].append((file, row[columns['label']].strip()))
    if not sides['train']:
        raise InputError(f'{path}: no line is of the part train')
    labels, classes = numbered({name: np.array([label for _, label in side]) for name, side in sides.items() if side}, str(path))
    files = {name: [(file, int(label)) for (file, _), label in zip(sides[name], labels[name])] for name in labels}
    return _photos(files['train'], files.get('test'), classes, str(path), settings, _named_twice(path, sides))


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read the table {path}: {getattr(error, "strerror", None) or error}') from None
    first = text.partition('\n')[0]
    separator = max(',;\t', key=first.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f'{path} is not a table: {error}') from None
    if not rows:
        raise InputError(f'{path} is empty: a table has a line "path,label" for each image')
    return rows


def _columns(heading: Sequence[str], path: Path) -> dict[str, int] | None:
    """``path``, ``label``, ``part`` → number of the column; None if this is no heading."""
    names = [cell.strip().lower() for cell in heading]
    wanted = {'path': _PATH_COLUMNS, 'label': _LABEL_COLUMNS, 'part': _PART_COLUMNS}
    found = {key: next((names.index(name) for name in allowed if name in names), None) for key, allowed in wanted.items()}
    columns = {key: number for key, number in found.items() if number is not None}
    if 'path' in columns and 'label' in columns:
        return columns
    if columns or len(names) != 2 or not names[0].endswith(FORMATS):
        raise InputError(
            f'{path}: the first line must name the columns path and label, and may name a column split; it is {", ".join(heading)}'
        )
    return None


def _named_twice(path: Path, sides: dict[str, list[Any]]) -> tuple[str, ...]:
    """A sentence if an image is listed more than once, and could be trained on and tested."""
    double = [file for file, count in Counter(file for side in sides.values() for file, _ in side).items() if count > 1]
    return (f'{path}: {len(double)} images are listed more than once, for example {double[0]}',) if double else ()
