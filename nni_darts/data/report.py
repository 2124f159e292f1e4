"""Describes a data set (classes, sizes, balance, duplicates, unreadable files) and suggests a recipe for it."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nni_darts.activity import counted
from nni_darts.data.base import ImageData
from nni_darts.data.images import LISTINGS, load_images
from nni_darts.data.pictures import Listed, Pictures
from nni_darts.data.scan import FORMATS, cores, decode_image
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['DataReport', 'Repeated', 'Spread', 'Suggestion', 'findings', 'inspect', 'suggest']

_LARGE = 4_000_000
"""Number of pixels from which a picture is not decoded in full; duplicates are then found by the content of the file only."""

_SAMPLE = 1000
"""Number of ImageNet's pictures that are opened."""

_GREY = 8
"""Largest difference, out of 255, between the colours of a pixel in a picture that counts as grey; scans and JPEG are not exact."""

_SIDES = (8, 12, 16, 24, 32, 48, 64)
_SMALL = 12
"""Images with a side of this size or less are too small for the usual crops and cutout."""

_SHOWN = 5
_FEW = 5
"""With fewer training images of a class, a search, which halves them, and a short training learn nothing."""

_UNEVEN = 3.0
"""Ratio of images in the largest class to images in the smallest class from which classes count as unbalanced."""

_LONG = 1.6
"""Median ratio of a picture's longer side to its shorter side from which a square crop would lose too much."""


@dataclass(frozen=True)
class Spread:
    """Quantiles of a measure over all images.

    Attributes:
        least, low, median, high, most: the quantiles at 0, 5, 50, 95 and 100 %.
    """

    least: float
    low: float
    median: float
    high: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Returns the quantiles, each of which is one of the values; without values all quantiles are 0."""
        ordered = sorted(values)
        if not ordered:
            return cls(0, 0, 0, 0, 0)
        return cls(*(ordered[round(part * (len(ordered) - 1))] for part in (0, 0.05, 0.5, 0.95, 1)))


@dataclass(frozen=True)
class Repeated:
    """Several copies of one picture.

    Attributes:
        names: names of the images.
        parts: ``train`` or ``test`` for each image.
        classes: class of each image.
    """

    names: tuple[str, ...]
    parts: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether the picture is in both the training and the test data."""
        return len(set(self.parts)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether the copies belong to different classes."""
        return len(set(self.classes)) > 1


@dataclass(frozen=True)
class DataReport:
    """Facts about a data set of images.

    Attributes:
        source: the folder, table or data set.
        files: whether the images are files, which are brought to ``data.image_size``; other images are used unchanged.
        classes: names of the classes in the order of the labels.
        train: number of readable training images of each class.
        test: number of readable test images of each class; None if test images will be held out.
        looked_at: number of images that were opened: all images, or a sample of ImageNet.
        height, width, short_side: sizes in pixels, after rotation by EXIF data.
        aspect: ratio of the longer side to the shorter side.
        modes: Pillow's mode of the pixels, or type and channels of arrays → number of images.
        grey: whether no image has colours.
        unreadable: a sentence for each image that cannot be read.
        left_out: file name extension → number of files in formats that are not read.
        repeated: pictures that occur more than once, by the content of their files or by their pixels.
        notes: sentences about what the reader found odd.

    Example:
        >>> inspect(DataSettings(name='digits')).short_side.median
        8
    """

    source: str
    files: bool
    classes: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...] | None
    looked_at: int
    height: Spread
    width: Spread
    short_side: Spread
    aspect: Spread
    modes: Mapping[str, int]
    grey: bool
    unreadable: tuple[str, ...]
    left_out: Mapping[str, int]
    repeated: tuple[Repeated, ...]
    notes: tuple[str, ...]

    @property
    def images(self) -> int:
        """The number of readable images."""
        return sum(self.train) + sum(self.test or ())

    @property
    def one_size(self) -> bool:
        """Whether all images that were opened have the same height and width."""
        return self.height.least == self.height.most and self.width.least == self.width.most

    @property
    def largest_class(self) -> float:
        """The fraction of training images in the largest class, which is about the accuracy of always predicting it."""
        return max(self.train, default=0) / max(1, sum(self.train))

    @property
    def imbalance(self) -> float:
        """The ratio of training images in the largest class to training images in the smallest class."""
        return max(self.train, default=0) / max(1, min(self.train, default=1))

    @property
    def leaks(self) -> tuple[Repeated, ...]:
        """Pictures that are in both the training and the test data."""
        return tuple(entry for entry in self.repeated if entry.leaks)

    @property
    def contradictions(self) -> tuple[Repeated, ...]:
        """Pictures whose copies belong to different classes."""
        return tuple(entry for entry in self.repeated if entry.contradicts)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, including the properties."""
        derived = {name: getattr(self, name) for name in ('images', 'one_size', 'largest_class', 'imbalance')}
        return {**asdict(self), 'modes': dict(self.modes), 'left_out': dict(self.left_out), **derived}


@dataclass(frozen=True)
class Suggestion:
    """A recipe to start from.

    Attributes:
        recipe: name of the recipe.
        changes: key → value of each change besides ``data.path``.
        why: a sentence for each choice.
    """

    recipe: str
    changes: Mapping[str, Any]
    why: tuple[str, ...]


def suggest(report: DataReport) -> Suggestion:
    """Returns a recipe, an image size and class weights that suit a data set."""
    count, side = sum(report.train), report.short_side.low
    changes: dict[str, Any] = {}
    if not report.files:
        recipe = 'digits' if side <= _SMALL else 'cifar10-small'
        why = [f'images of {report.height.median:g}×{report.width.median:g} pixels: recipe {recipe}']
    elif count >= 50_000 and side >= 160:
        recipe = 'imagenet'
        why = [f'{count:,} training images of 160 pixels or more: recipe {recipe}']
    else:
        recipe = 'photos-small' if count < 3000 else 'cifar10-small'
        size = max((fitting for fitting in _SIDES if fitting <= side), default=_SIDES[0])
        changes['data.image_size'] = size
        why = [
            f'{count:,} training images: recipe {recipe}',
            f'95 % of the images have a shorter side of {side:g} pixels or more: data.image_size {size}',
        ]
        if size <= _SMALL:
            changes |= {'data.pad': 1, 'retrain.cutout': 2}
            why.append('small images: random crops and cutout of a few pixels only')
        if report.aspect.median >= _LONG:
            changes['data.fit'] = 'letterbox'
            why.append(f'half of the images have a side ratio of {report.aspect.median:.1f} to 1 or more: whole images with margins')
    if report.imbalance >= _UNEVEN:
        changes |= {'data.class_weights': 'balanced', 'metric': 'balanced_accuracy'}
        why.append(f'the largest class has {report.imbalance:.3g} times as many images as the smallest: all classes get the same weight')
    if report.unreadable:
        changes['data.skip_unreadable'] = True
        why.append('unreadable images are left out')
    return Suggestion(recipe, changes, tuple(why))


def findings(report: DataReport) -> list[str]:
    """Returns sentences about oddities of a data set, except unreadable images."""
    found = list(report.notes)
    if report.left_out:
        kinds = ', '.join(f'{count} {ending}' for ending, count in sorted(report.left_out.items(), key=lambda entry: -entry[1]))
        count = sum(report.left_out.values())
        found.append(
            f'{count} file{" is" if count == 1 else "s are"} left out ({kinds}); only files that end in {", ".join(FORMATS)} are read'
        )
    for entries, one, several in (
        (report.contradictions, 'belongs to several classes', 'belong to several classes'),
        (report.leaks, 'is in both the training and the test data', 'are in both the training and the test data'),
        (
            [entry for entry in report.repeated if not entry.leaks and not entry.contradicts],
            'occurs more than once',
            'occur more than once',
        ),
    ):
        if entries:
            shown = '; '.join(_equal(entry) for entry in entries[:_SHOWN])
            more = f'; and {len(entries) - _SHOWN:,} more' if len(entries) > _SHOWN else ''
            what = f'1 picture {one}' if len(entries) == 1 else f'{len(entries):,} pictures {several}'
            found.append(f'{what}: {shown}{more}')
    if report.test is None and report.repeated:
        found.append('test images will be held out of these, and copies of an image may end up on both sides: remove copies first')
    few = [f'{name} ({count})' for name, count in zip(report.classes, report.train) if count < _FEW]
    if few:
        found.append(
            f'classes with fewer than {_FEW} training images: {_some(few)}; a search needs images of each class for the weights and for α'
        )
    lacking = [name for name, count in zip(report.classes, report.test or ()) if not count]
    if lacking:
        found.append(f'there are no test images of {_some(lacking)}')
    return found


def _equal(entry: Repeated) -> str:
    """Lists the copies of an image, with the classes or parts in which they differ."""
    marks = entry.classes if entry.contradicts else entry.parts if entry.leaks else ('',) * len(entry.names)
    return ' = '.join(f'{name} ({mark})' if mark else name for name, mark in zip(entry.names[:4], marks)) + (
        ' = …' if len(entry.names) > 4 else ''
    )


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:20]) + (f' and {len(names) - 20} more' if len(names) > 20 else '')


@dataclass(frozen=True)
class _Look:
    """Facts about one image: (height, width), mode, whether it is grey, and keys that copies of the picture share."""

    size: tuple[int, int]
    mode: str
    grey: bool
    digest: str


def inspect(settings: DataSettings) -> DataReport:
    """Opens all images of a data set and reports on them.

    Raises:
        InputError: if there is no such data set, or its classes are invalid.
    """
    if settings.name in LISTINGS:
        listed = LISTINGS[settings.name](settings)
        listed.check()
        return _of_pictures(listed, str(settings.path), _SAMPLE if settings.name == 'imagenet' else None)
    return _of_images(load_images(settings), settings.path or settings.name)


def _of_pictures(listed: Listed, source: str, sample: int | None) -> DataReport:
    parts = {'train': listed.train} if listed.test is None else {'train': listed.train, 'test': listed.test}
    everything = [(name, index) for name, part in parts.items() for index in range(len(part))]
    if sample is not None and len(everything) > sample:
        chosen = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))[:sample].tolist()
        looked_at = [everything[place] for place in sorted(chosen)]
    else:
        looked_at = everything

    def look(place: tuple[str, int]) -> _Look | str:
        name, index = place
        try:
            return _look(parts[name], index)
        except InputError as error:
            return str(error)

    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter('ignore')  # warnings about large images and odd EXIF data
        seen = dict(zip(looked_at, counted('opening images', pool.map(look, looked_at), len(looked_at))))
    lost = {place for place, found in seen.items() if isinstance(found, str)}
    counts = {name: [0] * len(listed.classes) for name in parts}
    for name, index in everything:
        counts[name][int(parts[name].labels[index])] += (name, index) not in lost
    looks = {place: found for place, found in seen.items() if isinstance(found, _Look)}
    places = [
        (parts[name].name(index), name, listed.classes[int(parts[name].labels[index])], found) for (name, index), found in looks.items()
    ]
    return _report(
        source,
        listed.classes,
        counts,
        places,
        files=True,
        looked_at=len(looked_at),
        unreadable=tuple(found for found in seen.values() if isinstance(found, str)),
        left_out=dict(listed.left_out),
        notes=() if listed.left_out else listed.notes,
    )


def _look(pictures: Pictures, index: int) -> _Look:
    """Decodes a picture. Raises InputError if it cannot be read."""
    content, name = pictures.content(index), pictures.name(index)
    try:
        with Image.open(io.BytesIO(content)) as header:
            mode, (width, height) = header.mode, header.size
            turned = header.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # Pillow's formats raise exceptions of many types; decoding the picture reports what is wrong
        mode, width, height, turned = '', 0, 0, False
    large = width * height > _LARGE
    image = decode_image(content, name, draft=large)
    size = (image.size[1], image.size[0]) if not large else (width, height) if turned else (height, width)
    pixels = np.asarray(image)
    some = pixels[:: max(1, pixels.shape[0] // 64), :: max(1, pixels.shape[1] // 64)].astype(np.int16)
    grey = bool((some.max(axis=2) - some.min(axis=2)).max() <= _GREY)
    compared = content if large else repr(size).encode() + pixels.tobytes()
    return _Look(size, mode, grey, hashlib.blake2b(compared, digest_size=16).hexdigest())


def _of_images(data: ImageData, source: str) -> DataReport:
    """Returns the report on images in memory."""
    classes, parts = data.description.classes, {'train': data.train, 'test': data.test}
    counts, places = {name: [0] * len(classes) for name in parts}, []
    for name, part in parts.items():
        for index in range(len(part)):  # type: ignore[arg-type]
            image, label = part[index]
            counts[name][int(label)] += 1
            pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)
            spread = pixels.int().amax(0) - pixels.int().amin(0)
            digest = hashlib.blake2b(pixels.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
            look = _Look(tuple(pixels.shape[1:]), f'uint8 × {len(pixels)}', bool(spread.max() <= _GREY), digest)  # type: ignore[arg-type]
            places.append((f'{name} image {index}', name, classes[int(label)], look))
    return _report(source, classes, counts, places, files=False, looked_at=len(places), unreadable=(), left_out={}, notes=data.notes)


def _report(
    source: str, classes: Sequence[str], counts: Mapping[str, list[int]], places: Sequence[tuple[str, str, str, _Look]], **about: Any
) -> DataReport:
    """Returns the report.

    Args:
        counts: part → number of images of each class.
        places: name, part, class and facts of each image that was opened.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name, part, label, look in places:
        groups.setdefault(look.digest, []).append((name, part, label))
    repeated = tuple(Repeated(*map(tuple, zip(*group))) for group in groups.values() if len(group) > 1)
    looks = [look for *_, look in places]
    return DataReport(
        source=source,
        classes=tuple(classes),
        train=tuple(counts['train']),
        test=tuple(counts['test']) if 'test' in counts else None,
        height=Spread.of(look.size[0] for look in looks),
        width=Spread.of(look.size[1] for look in looks),
        short_side=Spread.of(min(look.size) for look in looks),
        aspect=Spread.of(max(look.size) / min(look.size) for look in looks),
        modes=dict(Counter(look.mode for look in looks).most_common()),
        grey=bool(looks) and all(look.grey for look in looks),
        repeated=repeated,
        **about,
    )
