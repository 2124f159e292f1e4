"""Photos in files: a folder of class folders, or a table of paths and labels."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nni_darts.data.arrays import numbered
from nni_darts.data.base import ImageShape
from nni_darts.data.pictures import TEST_PARTS, Listed, Pictures, photo_size
from nni_darts.data.scan import FORMATS, Listing, class_folders, list_images, open_image, read_content, unreadable
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['LABEL_NAMES', 'Photos', 'folder_shape', 'labelled_photos', 'left_out_note', 'list_csv', 'list_folder']

File = tuple[str, int]
"""A path and its label."""

_FIRST_LETTER = 32
"""Characters with lower codes control a terminal, and would break lines of results, tables and metadata."""

_PATH_COLUMNS = ('path', 'file', 'filename', 'file_name', 'filepath', 'file_path', 'image', 'image_path', 'img', 'image_id', 'id')
LABEL_NAMES = ('label', 'class', 'target', 'category', 'classname', 'class_name', 'labels', 'y')
"""The usual names of a column of classes."""

_PART_COLUMNS = ('split', 'part', 'set', 'subset')


class Photos(Pictures):
    """Image files."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = list(files)
        self.labels = torch.tensor([label for _, label in files], dtype=torch.int64)

    def open(self, index: int) -> Image.Image:
        """See :class:`Pictures`."""
        return open_image(self.files[index][0])

    def content(self, index: int) -> bytes:
        """See :class:`Pictures`."""
        return read_content(self.files[index][0])

    def path(self, index: int) -> str:
        """See :class:`Labelled`."""
        return self.files[index][0]

    name = path

    def faults(self) -> dict[int, str]:
        """See :class:`Pictures`. Readable files are remembered (:func:`nni_darts.data.scan.unreadable`)."""
        found = unreadable([path for path, _ in self.files])
        return {index: found[path] for index, (path, _) in enumerate(self.files) if path in found}

    def marks(self) -> list[str]:
        """Returns path, size and modification time of each picture."""
        states = [(os.path.abspath(path), os.stat(path)) for path, _ in self.files]
        return [f'{path}|{state.st_size}|{state.st_mtime_ns}' for path, state in states]

    def subset(self, indices: Sequence[int]) -> Photos:
        """See :class:`Pictures`."""
        return Photos([self.files[index] for index in indices])


# Folders --------------------------------------------------------------------------------------------------------------------------


def list_folder(settings: DataSettings) -> Listed:
    """Lists a folder that has a folder for each class, or that has ``train`` and one of ``TEST_PARTS`` with such folders.

    Raises:
        InputError: if there is no such folder, or its class folders are invalid.
    """
    train_root, test_root = _roots(settings)
    train = list_images(train_root)
    notes = left_out_note(train.left_out, train_root)
    _check_classes(train, train_root)
    if test_root is None:
        return Listed(str(train_root), train.classes, Photos(train.files), None, notes, train.left_out)
    test = list_images(test_root)
    extra = [name for name in test.classes if name not in train.classes]
    if extra:
        raise InputError(f'{test_root} has class folders that {train_root} lacks: {", ".join(extra)}')
    if not test.files:
        raise InputError(f'{test_root} is not a folder of class folders with images')
    label = {name: index for index, name in enumerate(train.classes)}
    files = [(path, label[test.classes[number]]) for path, number in test.files]
    notes = (*notes, *left_out_note(test.left_out, test_root))
    return Listed(str(train_root), train.classes, Photos(train.files), Photos(files), notes, train.left_out + test.left_out)


def folder_shape(settings: DataSettings) -> ImageShape:
    """Returns the shape of the data that :func:`list_folder` lists, without opening an image."""
    root, _ = _roots(settings)
    return ImageShape(len(class_folders(root)), 3, photo_size(settings))


def _roots(settings: DataSettings) -> tuple[Path, Path | None]:
    """Returns the folders of training and test images; None for the latter if test images are to be held out."""
    root = Path(settings.path or '')
    if not root.is_dir():
        raise InputError(f'no folder {root}: set data.path to a folder with one folder of images for each class')
    test_root = next((root / name for name in TEST_PARTS if (root / name).is_dir()), None)
    if not (root / 'train').is_dir():
        if test_root:
            raise InputError(f'{root} has a folder {test_root.name} but none called train: rename the folder of training images')
        return root, None
    if not test_root and len(class_folders(root)) > 1:
        raise InputError(f'{root} has a folder train but none called {", ".join(TEST_PARTS)}: rename the folder of test images')
    return root / 'train', test_root


def _check_classes(listing: Listing, root: Path) -> None:
    if not listing.files:
        raise InputError(f'{root} is not a folder of class folders with images ({", ".join(FORMATS)})')
    broken = next((name for name in listing.classes if any(ord(letter) < _FIRST_LETTER for letter in name)), None)
    if broken is not None:
        raise InputError(f'{root} has a class folder {broken!r}, whose name has a line break or another control character; rename it')
    empty = listing.empty()
    if empty:
        raise InputError(f'{root} has class folders without images: {", ".join(empty)}; images end in {", ".join(FORMATS)}')


def left_out_note(left_out: Counter[str], root: Path) -> tuple[str, ...]:
    """Returns one sentence about the files in a folder that are not read, or no sentence if there are none.

    Args:
        left_out: file name extension → number of files.
        root: the folder.
    """
    if not left_out:
        return ()
    kinds = ', '.join(f'{count} {ending}' for ending, count in sorted(left_out.items(), key=lambda entry: (-entry[1], entry[0])))
    count = left_out.total()
    said = '1 file is' if count == 1 else f'{count} files are'
    return (f'{root}: {said} left out ({kinds}); only files that end in {", ".join(FORMATS)} are read',)


def labelled_photos(path: Path, classes: Sequence[str]) -> tuple[list[File], tuple[str, ...]]:
    """Lists the images of a folder or table on which a trained network can be tested, without opening them.

    Args:
        path: a folder with a folder of images for each class, a folder with ``train`` and one of ``TEST_PARTS`` that have such folders,
            or a table that :func:`list_csv` can list. If there are training and test images, only the test images count.
        classes: class names of the network, in the order of its labels.

    Returns:
        The images with their labels, and sentences about what was left out.

    Raises:
        InputError: if there are no images, or images of a class that the network does not know.
    """
    if path.is_file():
        sides = _sides_of(path)
        files = sides['test'] or sides['train']
        notes = _named_twice(path, {'': files})
    else:
        path = _labelled_root(path, classes)
        listing = list_images(path)
        files, notes = [(file, listing.classes[number]) for file, number in listing.files], left_out_note(listing.left_out, path)
    # Names from another operating system may compose accents differently.
    label = {unicodedata.normalize('NFC', name): number for number, name in enumerate(classes)}
    labels = [label.get(unicodedata.normalize('NFC', name)) for _, name in files]
    unknown = sorted({name for (_, name), number in zip(files, labels) if number is None})
    if unknown:
        known = ', '.join(classes[:20]) + (', …' if len(classes) > 20 else '')
        some = ', '.join(unknown[:20]) + (', …' if len(unknown) > 20 else '')
        raise InputError(f'{path} has images of classes that the model does not know: {some}; it knows {known}')
    if not files:
        raise InputError(f'{path} is not a folder of class folders with images ({", ".join(FORMATS)})')
    return [(file, number) for (file, _), number in zip(files, labels) if number is not None], notes


def _labelled_root(root: Path, classes: Sequence[str]) -> Path:
    """Returns the folder of class folders, which is the given folder or its folder of test images."""
    try:
        inside = class_folders(root)
    except OSError as error:
        raise InputError(f'cannot read the folder {error.filename or root}: {error.strerror}') from None
    if any(name in classes for name in inside):
        return root
    return next((root / name for name in (*TEST_PARTS, 'train') if name in inside), root)


# Tables ---------------------------------------------------------------------------------------------------------------------------


def list_csv(settings: DataSettings) -> Listed:
    """Lists a table with a line for each image: its path relative to the table's folder, its label, and optionally its part.

    Columns are identified by their names (``path``, ``label``, ``split`` and usual synonyms); two columns without such names are path
    and label. The part is ``train``, ``test``, or one of ``val``, ``valid``, ``validation``, which are test images if there is no ``test``.

    Raises:
        InputError: for any other table.
    """
    path = Path(settings.path or '')
    sides = _sides_of(path)
    if not sides['train']:
        raise InputError(f'{path}: no line belongs to the part train; at least one must.')
    labels, classes = numbered({name: np.array([label for _, label in side]) for name, side in sides.items() if side}, str(path))
    files = {name: Photos([(file, int(label)) for (file, _), label in zip(sides[name], labels[name])]) for name in labels}
    return Listed(str(path), tuple(classes), files['train'], files.get('test'), _named_twice(path, sides))


def _sides_of(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Returns ``train`` and ``test`` → (path, name of the class) of each image in a table."""
    lines, rows = _rows(path)
    columns = _columns(rows[0], path)
    if columns is None:
        columns = {'path': 0, 'label': 1}
    else:
        lines, rows = lines[1:], rows[1:]
    faults = [(line, _fault(row, columns)) for line, row in zip(lines, rows)] or [(0, 'there are no images')]
    fault = next((f'line {line} {found}' if line else found for line, found in faults if found), '')
    if fault:
        raise InputError(f'{path}: {fault}; a table has a line "path,label" or "path,label,split" for each image')
    parts = [row[columns['part']].strip().lower() if 'part' in columns else 'train' for row in rows]
    unknown = sorted(set(parts) - {'train', *TEST_PARTS})
    if unknown:
        raise InputError(f'{path}: unknown part {unknown[0]!r}; allowed: train, {", ".join(TEST_PARTS)}')
    test_part = next((name for name in TEST_PARTS if name in parts), None)
    sides: dict[str, list[tuple[str, str]]] = {'train': [], 'test': []}
    for row, part in zip(rows, parts):
        file = os.path.join(path.parent, row[columns['path']].strip())
        sides['test' if part == test_part else 'train'].append((file, row[columns['label']].strip()))
    return sides


def _fault(row: Sequence[str], columns: dict[str, int]) -> str:
    """Returns what is missing in a row of a table in a few words; '' if the row is complete."""
    if len(row) <= max(columns.values()):
        return 'has too few columns'
    return next((f'has no {name}' for name in ('path', 'label') if not row[columns[name]].strip()), '')


def _rows(path: Path) -> tuple[list[int], list[list[str]]]:
    """Returns the rows of a table that are not empty, and the number of the line in which each row ends."""
    try:
        text = path.read_text('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read the table {path}: {getattr(error, "strerror", None) or error}') from None
    first = text.partition('\n')[0]
    separator = max(',;\t', key=first.count)
    try:
        reader = csv.reader(text.splitlines(), delimiter=separator)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f'{path} is not a table: {error}') from None
    if not rows:
        raise InputError(f'{path} is empty: a table has a line "path,label" for each image')
    return [line for line, _ in rows], [row for _, row in rows]


def _columns(heading: Sequence[str], path: Path) -> dict[str, int] | None:
    """Returns ``path``, ``label``, ``part`` → index of the column; None if the line is not a heading."""
    names = [cell.strip().lower() for cell in heading]
    wanted = {'path': _PATH_COLUMNS, 'label': LABEL_NAMES, 'part': _PART_COLUMNS}
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
    """Returns a sentence if an image is listed more than once, because it might then be both trained on and tested."""
    double = [file for file, count in Counter(file for side in sides.values() for file, _ in side).items() if count > 1]
    return (f'{path}: {len(double)} images are listed more than once, for example {double[0]}',) if double else ()
