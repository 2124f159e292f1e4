"""Pictures of any size: the type that readers of files and tables return, and the data set built from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from nni_darts.data.base import ImageData, Labelled
from nni_darts.data.scan import refusal
from nni_darts.data.splits import hold_out, missing_classes
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['IMAGENET_SIZE', 'TEST_PARTS', 'Listed', 'Pictures', 'build', 'photo_size']

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIZE = 224

TEST_PARTS = ('test', 'val', 'valid', 'validation')
"""Names of test images, in order of preference."""


class Pictures(Labelled):
    """Pictures that are opened on demand. Items are (RGB PIL image, label)."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.open(index), int(self.labels[index])

    def open(self, index: int) -> Image.Image:
        """Decodes a picture as upright RGB. Raises InputError that names it if it cannot be read."""
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        """Returns the bytes of a picture's file. Raises InputError that names the picture if there are none."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Returns the name of a picture for messages."""
        raise NotImplementedError

    def faults(self) -> dict[int, str]:
        """Checks every picture. Returns index → a sentence for each picture that cannot be read."""
        raise NotImplementedError

    def marks(self) -> list[str]:
        """Returns a string for each picture that no other picture has, nor the same picture after a change."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int]) -> Pictures:
        """Returns the pictures with the given indices."""
        raise NotImplementedError


@dataclass(frozen=True)
class Listed:
    """Pictures listed without opening them.

    Attributes:
        source: the folder, table or data set, for messages.
        classes: names of the classes in the order of the labels.
        train, test: the pictures; ``test`` is None if test pictures have yet to be held out.
        notes: sentences about what was left out or is odd.
        left_out: file name extension → number of files in formats that are not read.
    """

    source: str
    classes: tuple[str, ...]
    train: Pictures
    test: Pictures | None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=Counter)

    def check(self) -> None:
        """Raises InputError for fewer than two classes."""
        if len(self.classes) < 2:
            raise InputError(f'{self.source}: at least two classes are needed, found {len(self.classes)}')

    def readable(self, skip: bool) -> tuple[Listed, int]:
        """Checks all pictures.

        Args:
            skip: whether to leave out pictures that cannot be read.

        Returns:
            The readable pictures, and the number of pictures left out.

        Raises:
            InputError: if pictures cannot be read and must not be left out, or no picture of a class remains.
        """
        parts = [part for part in (self.train, self.test) if part is not None]
        faults = [part.faults() for part in parts]
        count = sum(map(len, faults))
        if not count:
            return self, 0
        if not skip:
            raise InputError(refusal([sentence for found in faults for sentence in found.values()], sum(map(len, parts))))
        kept = [part.subset([index for index in range(len(part)) if index not in found]) for part, found in zip(parts, faults)]
        lost = missing_classes(kept[0].labels.tolist(), self.classes)
        if lost or not all(map(len, kept)):
            what = f'of the classes {", ".join(lost)}' if lost else 'to test on'
            raise InputError(f'{self.source}: no picture {what} can be read; {next(iter(faults[0 if lost else 1].values()))}')
        return replace(self, train=kept[0], test=kept[1] if len(kept) > 1 else None), count


def build(listed: Listed, settings: DataSettings) -> ImageData:
    """Opens every picture once, holds out test pictures if there are none, and builds the data set.

    Raises:
        InputError: if there is only one class, pictures cannot be read (the message lists all of them), or a part would be empty.
    """
    listed.check()
    facts: tuple[str, ...] = ()
    if settings.name == 'imagenet' and not settings.skip_unreadable:
        listed.train.open(0)  # for 1.3 million published images, checking all of them takes too long
    else:
        listed, skipped = listed.readable(settings.skip_unreadable)
        facts = (f'{skipped:,} unreadable left out',) if skipped else ()
    train, test = listed.train, listed.test
    if test is None:
        kept, held_out = hold_out(train.labels.tolist(), settings)
        train, test = train.subset(kept), train.subset(held_out)
    about: dict[str, Any] = {'uniform': False, 'classes': listed.classes, 'notes': listed.notes, 'facts': facts}
    return ImageData(train, test, len(listed.classes), 3, photo_size(settings), IMAGENET_MEAN, IMAGENET_STD, **about)


def photo_size(settings: DataSettings) -> tuple[int, int]:
    """Returns the (height, width) to which pictures are brought."""
    given = settings.image_size or IMAGENET_SIZE
    return given if isinstance(given, tuple) else (given, given)
