"""Folders of photos: which files are images, which of them can be read, and how one is opened.

All files are opened once before anything is trained, so that one list names everything that is wrong. Decoding is what costs: some 2 ms
for a picture of 500×375 and 60 ms for one of twelve megapixels, on each core. What was readable is remembered in
``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``) under size and time of change, so that neither the next command nor each trial of an
experiment decodes everything again.
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
"""Endings of the files that are read, in lower case."""

_SYSTEM = ('desktop.ini', 'thumbs.db', 'icon\r')
"""Files that a desktop puts into every folder, in lower case: left out without a word, as hidden files are."""

_DRAFT = (32, 32)
"""JPEGs are checked at an eighth of their size, or no smaller than this: every byte is read, but few pixels are computed."""


@dataclass(frozen=True)
class Listing:
    """The images below a folder of class folders.

    Attributes:
        classes: names of the class folders in alphabetical order, without hidden folders.
        files: (path, label) of each image, class by class.
        left_out: ending → number of files that are no images of a format that is read.
    """

    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    left_out: Counter[str]

    def empty(self) -> list[str]:
        """The names of the classes without images."""
        present = {label for _, label in self.files}
        return [name for label, name in enumerate(self.classes) if label not in present]


def class_folders(path: Path) -> list[str]:
    """Folders that are not hidden, such as .ipynb_checkpoints, in alphabetical order."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith('.'))


def list_images(root: Path) -> Listing:
    """Lists the images in the class folders of a folder, and in folders inside these. Opens none.

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
    """Lists the images in a folder and in the folders inside it, without hidden ones, in alphabetical order. Opens none.

    Returns:
        The paths, and ending → number of files that are no images of a format that is read.

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
    """Opens a photo and makes it uniform (:func:`uniform_image`).

    Args:
        path: the file.
        draft: whether a JPEG may come smaller, which is enough to see that it can be read.

    Raises:
        InputError: for a file that is no image, or one of another depth.
    """
    return _decoded(path, shown(path), draft)


def decode_image(content: bytes, name: str, draft: bool = False) -> Image.Image:
    """Decodes the bytes of a photo's file as :func:`open_image` does.

    Args:
        content: the bytes.
        name: what to call the photo in messages.
        draft: as for :func:`open_image`.
    """
    return _decoded(io.BytesIO(content), name, draft)


def read_content(path: str) -> bytes:
    """The bytes of a file. Raises InputError as :func:`open_image` does."""
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
    except Exception as error:  # OSError, SyntaxError, struct.error, DecompressionBombError …: each of Pillow's formats has its own kinds
        raise InputError(f'{name} is not a readable image ({_why(file, error)})') from None


def uniform_image(image: Image.Image, name: str) -> Image.Image:
    """Returns an image as RGB, upright as its EXIF data says, transparency on white.

    16-bit grey levels are brought to 8 bits instead of being cut off.

    Args:
        image: in any mode of Pillow's.
        name: its path, or whatever names it, for messages.

    Raises:
        InputError: for pixels of 32 bits.
    """
    return _as_rgb(_upright(image), name)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data, as many kinds as above: the pixels are good
        return image


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith('I;16'):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert('RGB')
    if image.mode in ('I', 'F'):
        raise InputError(f'{name} has {image.mode} pixels of 32 bits; save it with 8 bits a channel')
    if 'transparency' in image.info or image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa'):
        layer = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', layer.size, 'white'), layer).convert('RGB')
    return image.convert('RGB')


def shown(path: str) -> str:
    """A path that can be printed, whatever bytes it is made of."""
    return os.fsencode(path).decode('utf-8', 'replace')


def _why(file: str | io.BytesIO, error: Exception) -> str:
    """The reason in a few words, without the path, which the sentence names already."""
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
    """Opens all images, on all cores: path → a sentence, for each one that cannot be read, in the order of the paths."""
    known = _Remembered(paths)
    fresh = known.unknown()

    def fault(path: str) -> str | None:
        try:
            open_image(path, draft=True)
        except InputError as error:
            return str(error)
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter('ignore')  # of large images and odd EXIF data
        faults = dict(zip(fresh, list(counted('opening images', pool.map(fault, fresh), len(fresh)))))
    known.remember(path for path in fresh if faults[path] is None)
    return {path: found for path in paths if (found := faults.get(path)) is not None}


def refusal(faults: Sequence[str], count: int) -> str:
    """One message that lists all images that cannot be read, and says what to do.

    Args:
        faults: a sentence for each of them.
        count: number of all images.
    """
    skip = 'or leave it out with data.skip_unreadable: true' if len(faults) == 1 else 'or leave them out with data.skip_unreadable: true'
    if len(faults) == 1:
        return f'{faults[0]}; replace the file or take it out, {skip}'
    return f'{len(faults)} of {count} images cannot be used: {"; ".join(faults)}. Replace these files or take them out, {skip}.'


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class _Remembered:
    """The images of one set that were readable before, by size and time of change. A cache: what it does not know is looked at again."""

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
        """The images to look at."""
        return [path for path in self.paths if (mark := self._mark(path)) is None or self.stored.get(os.path.abspath(path)) != mark]

    def remember(self, paths: Iterable[str]) -> None:
        """Writes down that images are readable; a cache that cannot be written is none."""
        added = {os.path.abspath(path): self._mark(path) for path in paths}
        if not added:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps({**self.stored, **added}))
        except (OSError, UnicodeEncodeError):
            return
