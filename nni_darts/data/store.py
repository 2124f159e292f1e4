"""Stores decoded pictures at their final size for all runs, in a memory-mapped file of bytes for each set of pictures and settings.

Decoding and scaling take longer than a step of a small network, and every epoch of every trial would do both again. The first run that
needs a set of pictures writes them as bytes to ``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``). Concurrent trials wait for it, and
all later runs share the same pages of memory. The bytes are those that decoding gives. The name of a file depends on paths, sizes and
modification times of the pictures, on the size and how pictures are brought to it, and on the versions of the decoder, so a change of any
of them leads to another file. A file that is truncated or whose bytes have changed is written again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from nni_darts.activity import counted
from nni_darts.data.base import ImageData, Labelled
from nni_darts.data.pictures import Pictures
from nni_darts.data.scan import cores
from nni_darts.data.transforms import to_size
from nni_darts.files import cache_folder, lock, replacing

__all__ = ['Store', 'StoredPictures', 'stored']

_VERSION = 1
_HEADER = 4096
"""Number of bytes before the first picture, which are JSON and spaces: one page of memory."""

_CHUNK = 2**24
_WAIT_SECONDS = 0.2
_UNUSED_DAYS = 60
"""A file that no run has opened for this long is deleted when another one is written."""

_CHANNELS = 3


class Store:
    """The bytes of ``count`` pictures in a file.

    Args:
        path: the file.
        shape: (pictures, channels, height, width).

    Raises:
        ValueError: if :func:`write` did not write this file, or it is damaged.
        OSError: if the file cannot be read.

    Example:
        ``Store(path, (389, 3, 32, 32))[0]`` is a tensor of bytes (3, 32, 32).
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.path = path
        self.shape = shape
        with path.open('rb') as file:
            header = json.loads(file.read(_HEADER))
        if not isinstance(header, dict) or header.get('shape') != list(shape) or path.stat().st_size != _HEADER + math.prod(shape):
            raise ValueError(f'{path} holds other pictures')
        self._open()
        flat, sums = self._pixels.reshape(-1), 0
        for start in range(0, flat.size, _CHUNK):
            sums = zlib.crc32(flat[start : start + _CHUNK].data, sums)
        if sums != header.get('crc32'):
            raise ValueError(f'{path} is damaged')

    def _open(self) -> None:
        self._pixels = np.memmap(self.path, np.uint8, 'r', offset=_HEADER, shape=self.shape)

    def __getitem__(self, row: int) -> Tensor:
        """Returns a copy of a picture, uint8 (C, H, W)."""
        return torch.from_numpy(np.array(self._pixels[row]))

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself, so the pages remain shared.
        return {'path': self.path, 'shape': self.shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class StoredPictures(Labelled):
    """Pictures whose pixels are read from a store. Items are ((C, H, W) uint8, label).

    Args:
        pictures: the data set from which they were decoded.
        store: the store that has the pixels.
        rows: row of each picture in the store.
    """

    def __init__(self, pictures: Pictures, store: Store, rows: Sequence[int]) -> None:
        self.pictures = pictures
        self.labels = pictures.labels
        self.store = store
        self.rows = list(rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.store[self.rows[index]], int(self.labels[index])

    def path(self, index: int) -> str | None:
        """See :class:`Labelled`."""
        return self.pictures.path(index)


def stored(data: ImageData) -> ImageData:
    """Returns the data set with decoded pictures; if there is no room for them, returns it unchanged except for a note.

    Args:
        data: a data set whose ``train`` and ``test`` are :class:`Pictures`.

    Raises:
        InputError: for a picture that cannot be decoded.
    """
    parts: tuple[Any, Any] = (data.train, data.test)
    folder, bring = cache_folder(), to_size(data.description)
    try:
        marks = [part.marks() for part in parts]
        places = {mark: (part, index) for part, own in zip(parts, marks) for index, mark in enumerate(own)}
        order = sorted(places)  # the same order for every split of the same pictures
        shape = (len(order), _CHANNELS, *data.size)
        versions = [_VERSION, PIL.__version__, torchvision.__version__]
        key = hashlib.sha256(json.dumps([versions, data.size, data.fit, bring.fill, order]).encode()).hexdigest()
        path = folder / f'pictures-{key[:24]}.bin'

        def pixels(mark: str) -> np.ndarray:
            part, index = places[mark]
            return np.ascontiguousarray(np.asarray(bring(part[index][0])).transpose(2, 0, 1))

        store = _opened(path, shape) or _written(path, shape, order, pixels)
    except OSError as error:
        return _without(data, f'decoded pictures cannot be kept in {folder} ({error.strerror or error})')
    if store is None:
        free = shutil.disk_usage(folder).free
        return _without(data, f'decoded pictures would take {_size(math.prod(shape))} of the {_size(free)} that are free at {folder}')
    rows = {mark: row for row, mark in enumerate(order)}
    train, test = (StoredPictures(part, store, [rows[mark] for mark in own]) for part, own in zip(parts, marks))
    fact = f'decoded pictures kept in {_shown(folder)} ({_size(math.prod(shape))})'
    return replace(data, train=train, test=test, uniform=True, facts=(*data.facts, fact))


def _without(data: ImageData, reason: str) -> ImageData:
    return replace(data, notes=(*data.notes, f'{reason}: each epoch decodes them again; data.cache: false turns this warning off'))


def _opened(path: Path, shape: tuple[int, int, int, int]) -> Store | None:
    """Returns the store in a file; None if there is no store or it is damaged."""
    try:
        store = Store(path, shape)
    except (FileNotFoundError, ValueError):
        return None
    with suppress(OSError):  # a file of another user can still be read
        os.utime(path)
    return store


def _written(path: Path, shape: tuple[int, int, int, int], order: Sequence[str], pixels: Any) -> Store | None:
    """Writes a store, or waits for the process that writes it. Returns None if the disk does not have enough room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_suffix('.lock')):
        found = _opened(path, shape)  # another process may have written it in the meantime
        if found is not None:
            return found
        _remove_unused(path.parent)
        if math.prod(shape) + _HEADER > shutil.disk_usage(path.parent).free / 2:
            return None
        sums = 0
        with replacing(path) as file, ThreadPoolExecutor(cores()) as pool:
            file.write(b' ' * _HEADER)
            for image in counted('decoding pictures, once for all runs', pool.map(pixels, order), len(order)):
                sums = zlib.crc32(image, sums)
                file.write(image)
            file.seek(0)
            file.write(json.dumps({'shape': shape, 'crc32': sums}).encode())
        return Store(path, shape)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock of a file, and holds the lock within the block."""
    while (held := lock(path)) is None:
        time.sleep(_WAIT_SECONDS)
    try:
        yield
    finally:
        os.close(held)


def _remove_unused(folder: Path) -> None:
    for file in (*folder.glob('pictures-*.bin'), *folder.glob('pictures-*.tmp')):
        with suppress(OSError):  # another process has deleted it
            if time.time() - file.stat().st_mtime > _UNUSED_DAYS * 86_400:
                file.unlink()


def _size(count: int) -> str:
    for unit, size in (('GiB', 2**30), ('MiB', 2**20)):
        if count >= size:
            return f'{count / size:.1f} {unit}'
    return f'{count / 2**10:.0f} KiB'


def _shown(folder: Path) -> str:
    """Returns a folder in the usual notation, with ~ for the home folder."""
    home = str(Path.home())
    return f'~{str(folder)[len(home) :]}' if str(folder).startswith(home + os.sep) else str(folder)
