"""Data sets of Hugging Face's ``datasets``, from the disk, from parquet files or folders, or by name.

The package is optional: ``pip install datasets``. From version 4.0, it runs no code from a data set.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nni_darts.activity import counted
from nni_darts.data.arrays import from_arrays, numbered
from nni_darts.data.base import ImageData
from nni_darts.data.photos import LABEL_NAMES
from nni_darts.data.pictures import TEST_PARTS, Listed, Pictures, build
from nni_darts.data.scan import cores, decode_image, read_content
from nni_darts.errors import InputError
from nni_darts.files import cache_folder, write_text
from nni_darts.recipes import DataSettings

__all__ = ['HfPictures', 'list_hf', 'read_hf']

_LEAST_VERSION = 4
_LARGEST = 2**31
"""The largest size in bytes of same-sized images that are read into memory; for more, ``data.image_size`` is needed."""


class HfPictures(Pictures):
    """The images of a split.

    Args:
        table: a ``datasets.Dataset`` whose image column is not decoded.
        column: name of the image column.
        labels: the class of each row in ``rows``.
        rows: indices of rows in the table.
        mark: prefix of the strings that :meth:`marks` returns.
        source: name of the split, for messages.
    """

    def __init__(self, table: Any, column: str, labels: Sequence[int], rows: Sequence[int], mark: str, source: str) -> None:
        self.table = table
        self.column = column
        self.labels = torch.tensor(list(labels), dtype=torch.int64)
        self.rows = list(rows)
        self.mark = mark
        self.source = source

    def content(self, index: int) -> bytes:
        """See :class:`Pictures`."""
        image = self.table[self.rows[index]][self.column]
        if not image or not (image.get('bytes') or image.get('path')):
            raise InputError(f'{self.name(index)} is empty')
        return image['bytes'] or read_content(image['path'])

    def open(self, index: int) -> Image.Image:
        """See :class:`Pictures`."""
        return decode_image(self.content(index), self.name(index))

    def path(self, index: int) -> str | None:
        """See :class:`Labelled`."""
        image = self.table[self.rows[index]][self.column] or {}
        path = image.get('path')
        return path if path and os.path.isfile(path) else None

    def name(self, index: int) -> str:
        """See :class:`Pictures`."""
        return f'{self.source}, row {self.rows[index]}'

    def faults(self) -> dict[int, str]:
        """See :class:`Pictures`. If a whole split was readable, this is remembered until the split changes."""
        key = hashlib.sha256(self.source.encode('utf-8', 'replace')).hexdigest()[:16]
        whole, known = len(self.rows) == len(self.table), cache_folder() / f'images-{key}.json'
        with suppress(OSError, ValueError):
            if whole and json.loads(known.read_text('utf-8')) == self.mark:
                return {}

        def fault(index: int) -> str | None:
            try:
                decode_image(self.content(index), self.name(index), draft=True)
            except InputError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(cores()) as pool:
            found = list(counted('opening images', pool.map(fault, range(len(self))), len(self)))
        faults = {index: sentence for index, sentence in enumerate(found) if sentence is not None}
        if whole and not faults:
            with suppress(OSError):  # without a writable cache, all images are opened again
                known.parent.mkdir(parents=True, exist_ok=True)
                write_text(known, json.dumps(self.mark))
        return faults

    def marks(self) -> list[str]:
        """Returns the fingerprint of the split and the row for each picture."""
        return [f'{self.mark}|{row}' for row in self.rows]

    def subset(self, indices: Sequence[int]) -> HfPictures:
        """See :class:`Pictures`."""
        labels, rows = [int(self.labels[index]) for index in indices], [self.rows[index] for index in indices]
        return HfPictures(self.table, self.column, labels, rows, self.mark, self.source)


def read_hf(settings: DataSettings) -> ImageData:
    """Builds the data set. Pictures are brought to ``data.image_size``; without this setting, they must all have the same size.

    Raises:
        InputError: if there is no such data set, its columns cannot be identified, images cannot be read, or their sizes differ.
    """
    listed = list_hf(settings)
    if settings.image_size is not None:
        return build(listed, settings)
    listed, skipped = listed.readable(settings.skip_unreadable)
    parts = {'train': listed.train} if listed.test is None else {'train': listed.train, 'test': listed.test}
    images = _arrays(parts, listed.source)
    arrays = {name: (images[name], part.labels.numpy()) for name, part in parts.items()}
    data = from_arrays(arrays['train'], arrays.get('test'), listed.source, settings, classes=listed.classes, notes=listed.notes)
    return replace(data, facts=(f'{skipped:,} unreadable left out',)) if skipped else data


def _arrays(parts: Mapping[str, Pictures], source: str) -> dict[str, np.ndarray]:
    """Returns part → images (N, H, W, C), or (N, H, W) if they are grey."""
    stacks: dict[str, list[np.ndarray]] = {name: [] for name in parts}
    first: tuple[int, int] | None = None
    grey, total = True, sum(map(len, parts.values()))
    for name, part in parts.items():
        for index in range(len(part)):
            image = part.open(index)
            first = first or image.size
            if image.size != first:
                raise InputError(
                    f'{source}: images have different sizes, such as {first[0]}×{first[1]} and {image.size[0]}×{image.size[1]} pixels; '
                    'set data.image_size to the size that they should be scaled to.'
                )
            if 3 * first[0] * first[1] * total > _LARGEST:
                raise InputError(
                    f'{source}: {total:,} images of {first[0]}×{first[1]} pixels do not fit into memory; set data.image_size to a '
                    'smaller size'
                )
            pixels = np.asarray(image)
            grey = grey and bool((pixels[..., :1] == pixels).all())
            stacks[name].append(pixels)
    return {name: np.stack([pixels[..., 0] if grey else pixels for pixels in stack]) for name, stack in stacks.items()}


def list_hf(settings: DataSettings) -> Listed:
    """Lists the images of a data set.

    ``data.path`` is a folder that ``save_to_disk`` wrote, a folder of parquet files or images, a parquet file, or a name such as
    ``owner/name`` or ``owner/name:configuration``, which ``datasets`` downloads once. The type identifies the image column, and the type
    or name identifies the column of classes. Test images are those of the first split in ``TEST_PARTS`` that has labels.

    Raises:
        InputError: if there is no such data set, or its columns cannot be identified.
    """
    datasets, path = _library(), settings.path or ''
    splits = _load(datasets, path)
    if 'train' not in splits:
        raise InputError(f'{path} has no split train, only {", ".join(splits)}')
    features = splits['train'].features
    image, label = _image_column(datasets, features, path), _label_column(datasets, features, settings.label_column, path)
    parts = {'train': _labels(splits['train'], label)}
    labelled = (name for name in TEST_PARTS if name in splits and label in splits[name].features and not _hidden(splits[name], label))
    test_name = next(labelled, None)
    if test_name is not None:
        parts['test'] = _labels(splits[test_name], label)
    names = getattr(features[label], 'names', None)
    labels, classes, notes = _numbered(parts, names, path)
    unused = [name for name in splits if name not in ('train', test_name)]
    if unused:
        notes.append(f'{path}: the splits {", ".join(unused)} are not used: validation images are cut from the training images')
    made = {
        part: _pictures(datasets, splits[name], image, labels[part], f'{path}, split {name}')
        for part, name in (('train', 'train'), ('test', test_name))
        if name is not None
    }
    return Listed(path, tuple(classes), made['train'], made.get('test'), tuple(notes))


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError('data set hf needs the package datasets: pip install datasets') from None
    if int(datasets.__version__.partition('.')[0]) < _LEAST_VERSION:
        raise InputError(
            f'data set hf needs the package datasets from {_LEAST_VERSION}.0, which runs no code of a data set; the installed version is '
            f"{datasets.__version__}: pip install 'datasets>={_LEAST_VERSION}'"
        )
    return datasets


def _load(datasets: Any, path: str) -> dict[str, Any]:
    """Returns name of a split → its table."""
    folder = Path(path)
    bars = datasets.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if (folder / 'dataset_dict.json').is_file() or (folder / 'state.json').is_file():
            found = datasets.load_from_disk(path)
        elif folder.is_dir():
            found = datasets.load_dataset(str(folder.resolve()))
        elif folder.is_file():
            found = datasets.load_dataset('parquet', data_files=str(folder))
        else:
            name, _, configuration = path.partition(':')
            found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # datasets, pyarrow and the network raise exceptions of any type
        reason = next(iter(str(error).splitlines()), '') or type(error).__name__
        where = 'cannot be read as a data set' if folder.exists() else 'is neither a file or folder here nor a data set that can be loaded'
        raise InputError(f'data.path: {path} {where} by the package datasets ({reason})') from None
    finally:
        if bars:
            datasets.enable_progress_bars()
    return dict(found) if isinstance(found, dict) else {'train': found}


def _image_column(datasets: Any, features: Mapping[str, Any], path: str) -> str:
    found = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(found) > 1:
        found = [name for name in found if name in ('image', 'img')]
    if len(found) != 1:
        raise InputError(f'{path} needs a single column of images (datasets.Image); its columns are {_described(features)}')
    return found[0]


def _label_column(datasets: Any, features: Mapping[str, Any], wanted: str | None, path: str) -> str:
    if wanted is not None:
        if wanted not in features:
            raise InputError(f'data.label_column: {path} has no column {wanted!r}; its columns are {_described(features)}')
        return wanted
    found = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not found:
        found = [name for name, kind in features.items() if name.lower() in LABEL_NAMES and isinstance(kind, datasets.Value)]
    if len(found) > 1 and 'label' in found:
        found = ['label']
    if len(found) != 1:
        raise InputError(
            f'{path} needs a single column of classes (datasets.ClassLabel, or called label); its columns are {_described(features)}; '
            'choose one with data.label_column'
        )
    return found[0]


def _described(features: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} ({type(kind).__name__})' for name, kind in features.items())


def _labels(table: Any, column: str) -> np.ndarray:
    labels = np.asarray(table[column][:])
    if labels.ndim != 1 or labels.dtype.kind not in 'biuU':
        raise InputError(f'the column {column} must hold a class for each image, whole numbers or strings, not {labels.dtype}')
    return labels


def _hidden(table: Any, column: str) -> bool:
    """Returns whether a split has no classes: if a competition hides them, every label is -1."""
    labels = _labels(table, column) if len(table) else np.array([-1])
    return labels.dtype.kind == 'i' and bool((labels < 0).all())


def _numbered(
    parts: Mapping[str, np.ndarray], names: Sequence[str] | None, path: str
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Returns labels from 0 without gaps, the names of the classes, and notes."""
    if any(labels.dtype.kind == 'U' for labels in parts.values()):
        labels, classes = numbered({name: labels.astype(str) for name, labels in parts.items()}, path)
        return labels, classes, []
    if any(labels.dtype.kind == 'i' and bool((labels < 0).any()) for labels in parts.values()):
        raise InputError(f'{path}: some images have the label -1, which means that they have no label; remove them')
    present = sorted(set(parts['train'].tolist()))
    extra = sorted({label for labels in parts.values() for label in labels.tolist()} - set(present))

    def called(label: int) -> str:
        return str(names[label]) if names is not None and label < len(names) else str(label)

    if extra:
        raise InputError(f'{path}: test images have the labels {", ".join(map(called, extra))}, which no training image has')
    number = {label: index for index, label in enumerate(present)}
    idle = [] if names is None else [str(name) for label, name in enumerate(names) if label not in number]
    notes = [f'{path}: there is no training image of {", ".join(idle)}, so the network will not know these classes'] if idle else []
    labels = {name: np.array([number[label] for label in part.tolist()], np.int64) for name, part in parts.items()}
    return labels, list(map(called, present)), notes


def _pictures(datasets: Any, table: Any, column: str, labels: np.ndarray, source: str) -> HfPictures:
    files = [entry['filename'] for entry in table.cache_files]
    states = [(path, os.stat(path)) for path in files if os.path.isfile(path)]
    # The library documents a fingerprint of a data set's content, but has no public name for it.
    mark = '|'.join([table._fingerprint, *(f'{path}|{state.st_size}|{state.st_mtime_ns}' for path, state in states)])
    undecoded = table.cast_column(column, datasets.Image(decode=False))
    return HfPictures(undecoded, column, labels.tolist(), range(len(table)), mark, source)
