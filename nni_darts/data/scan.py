"""Folders of photos: finds the image files, checks that they can be read, and opens them.

All files are opened once before training starts, so that one list names everything that is wrong. Most of the time goes into decoding:
about 2 ms for a picture of 500×375 pixels and 60 ms for one of twelve megapixels, on each core. Readable files are remembered in
``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``) with their size and modification time, so that neither the next command nor each
trial of an experiment decodes everything again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nni_darts.activity import counted
from nni_darts.errors import InputError
from nni_darts.files import cache_folder, write_text

__all__ = [
    'FORMATS',
    'Listing',
    'class_folders',
    'cores',
    'decode_image',
    'images_below',
    'list_images',
    'open_image',
    'read_content',
    'refusal',
    'shown',
    'uniform_image',
    'unreadable',
]

FORMATS = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
"""Extensions of the files that are read, in lower case."""

_SYSTEM = ('desktop.ini', 'thumbs.db', 'icon\r')
"""Files that a desktop adds to every folder, in lower case. Like hidden files, they are left out without a message."""

_DRAFT = (32, 32)
"""JPEG files are checked at an eighth of their size, or at least at this size: every byte is read, but few pixels are computed."""


@dataclass(frozen=True)
class Listing:
    """The images below a folder of class folders.

    Attributes:
        classes: names of the class folders in alphabetical order, without hidden folders.
        files: (path, label) of each image, class by class.
        left_out: file name extension → number of files in formats that are not read.
    """

    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    left_out: Counter[str]

    def empty(self) -> list[str]:
        """Returns the names of the classes without images."""
        present = {label for _, label in self.files}
        return [name for label, name in enumerate(self.classes) if label not in present]


def class_folders(path: Path) -> list[str]:
    """Returns the folders that are not hidden (as .ipynb_checkpoints is), in alphabetical order."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith('.'))


def list_images(root: Path) -> Listing:
    """Lists the images in the class folders of a folder, including their subfolders, without opening them.

    Raises:
        InputError: if the folder cannot be read.
    """
    files: list[tuple[str, int]] = []
    left_out: Counter[str] = Counter()
    try:
        classes = class_folders(root)
    except OSError as error:
        raise InputError(f'cannot read the folder {error.filename or root}: {error.strerror}') from None
    for label, name in enumerate(classes):
        found, others = images_below(root / name)
        files += [(path, label) for path in found]
        left_out += others
    return Listing(tuple(classes), tuple(files), left_out)


def images_below(root: Path) -> tuple[list[str], Counter[str]]:
    """Lists the images in a folder and its subfolders in alphabetical order, without hidden files and without opening them.

    Returns:
        The paths, and file name extension → number of files in formats that are not read.

    Raises:
        InputError: if the folder cannot be read.
    """
    files: list[str] = []
    left_out: Counter[str] = Counter()
    try:
        for folder, _, names in sorted(os.walk(root, followlinks=True)):
            if any(part.startswith('.') for part in Path(folder).relative_to(root).parts):
                continue
            for file in sorted(names):
                ending = os.path.splitext(file)[1].lower()
                if file.startswith('.') or file.lower() in _SYSTEM:
                    continue
                if ending in FORMATS:
                    files.append(os.path.join(folder, file))
                else:
                    left_out[ending or 'without an ending'] += 1
    except OSError as error:
        raise InputError(f'cannot read the folder {error.filename or root}: {error.strerror}') from None
    return files, left_out


def open_image(path: str, draft: bool = False) -> Image.Image:
    """Opens a photo as upright RGB (:func:`uniform_image`).

    Args:
        path: path of the file.
        draft: whether a JPEG may be decoded at a smaller size, which is enough to check that it can be read.

    Raises:
        InputError: for a file that is not an image, or an image of 32 bits per pixel.
    """
    return _decoded(path, shown(path), draft)


def decode_image(content: bytes, name: str, draft: bool = False) -> Image.Image:
    """Decodes the bytes of a photo's file as :func:`open_image` does.

    content: the bytes of the file.
    name: name of the photo, for messages.
    draft: see :func:`open_image`.
    """
    return _decoded(io.BytesIO(content), name, draft)


def read_content(path: str) -> bytes:
    """Returns the bytes of a file. Raises InputError as :func:`open_image` does."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f'{shown(path)} is not a readable image ({_why(path, error)})') from None


def _decoded(file: str | io.BytesIO, name: str, draft: bool) -> Image.Image:
    try:
        with Image.open(file) as image:
            if draft:
                image.draft('RGB', _DRAFT)
            image.load()
            return uniform_image(image, name)
    except InputError:
        raise
    except Exception as error:  # OSError, SyntaxError, struct.error, DecompressionBombError …: Pillow's formats raise different types
        raise InputError(f'{name} is not a readable image ({_why(file, error)})') from None


def uniform_image(image: Image.Image, name: str) -> Image.Image:
    """Returns an image as RGB, rotated upright by its EXIF data, with transparent areas in white.

    16-bit grey levels are scaled to 8 bits instead of being clipped.

    Args:
        image: an image in any of Pillow's modes.
        name: path or name of the image, for messages.

    Raises:
        InputError: for images of 32 bits per pixel.
    """
    return _as_rgb(_upright(image), name)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raises many types; the pixels are still good
        return image


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith('I;16'):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert('RGB')
    if image.mode in ('I', 'F'):
        raise InputError(f'{name} has {image.mode} pixels of 32 bits; save it with 8 bits per channel')
    if 'transparency' in image.info or image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa'):
        layer = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', layer.size, 'white'), layer).convert('RGB')
    return image.convert('RGB')


def shown(path: str) -> str:
    """Returns a path that can be printed, whatever bytes it consists of."""
    return os.fsencode(path).decode('utf-8', 'replace')


def _why(file: str | io.BytesIO, error: Exception) -> str:
    """Returns the reason of an error in a few words, without the path, which the message already names."""
    try:
        size = os.path.getsize(file) if isinstance(file, str) else file.getbuffer().nbytes
    except OSError:
        return 'there is no such file'
    if size == 0:
        return 'the file is empty'
    if isinstance(error, UnidentifiedImageError):
        return 'no image format that is known'
    return next(iter(str(error).splitlines()), type(error).__name__)


def unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Opens all images on all cores. Returns path → a sentence for each image that cannot be read, in the order of the paths."""
    known = _Remembered(paths)
    fresh = known.unknown()

    def fault(path: str) -> str | None:
        try:
            open_image(path, draft=True)
        except InputError as error:
            return str(error)
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter('ignore')  # warnings about large images and odd EXIF data
        faults = dict(zip(fresh, list(counted('opening images', pool.map(fault, fresh), len(fresh)))))
    known.remember(path for path in fresh if faults[path] is None)
    return {path: found for path in paths if (found := faults.get(path)) is not None}


def refusal(faults: Sequence[str], count: int) -> str:
    """Returns one message that lists all images that cannot be read and says what to do.

    Args:
        faults: a sentence for each image that cannot be read.
        count: total number of images.
    """
    skip = 'or leave it out with data.skip_unreadable: true' if len(faults) == 1 else 'or leave them out with data.skip_unreadable: true'
    if len(faults) == 1:
        return f'{faults[0]}; replace the file or take it out, {skip}'
    return f'{len(faults)} of {count} images cannot be used: {"; ".join(faults)}. Replace these files or take them out, {skip}.'


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class _Remembered:
    """Images of a data set that were readable before, with size and modification time. All other images are checked again."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        folder = os.path.commonpath([os.path.abspath(path) for path in paths]) if paths else ''
        self.file = cache_folder() / f'images-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json'
        try:
            stored = json.loads(self.file.read_text('utf-8'))
        except (OSError, ValueError):
            stored = {}
        self.stored = stored if isinstance(stored, dict) else {}

    @staticmethod
    def _mark(path: str) -> list[int] | None:
        try:
            state = os.stat(path)
        except OSError:
            return None
        return [state.st_size, state.st_mtime_ns]

    def unknown(self) -> list[str]:
        """Returns the images that have to be checked."""
        return [path for path in self.paths if (mark := self._mark(path)) is None or self.stored.get(os.path.abspath(path)) != mark]

    def remember(self, paths: Iterable[str]) -> None:
        """Notes that images are readable. If the cache cannot be written, nothing is noted."""
        added = {os.path.abspath(path): self._mark(path) for path in paths}
        if not added:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps({**self.stored, **added}))
        except (OSError, UnicodeEncodeError):
            return
