"""Exports a trained network to files for other programs: ONNX, and torch's exported program.

The exported network takes images with values from 0 to 1 and normalises them itself, so that its users need not know the training data.
Its metadata has everything else: class names, and how an image of any size is brought to the network's size.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts import __version__
from nni_darts.data import Description
from nni_darts.files import replacing
from nni_darts.genotypes import AnyGenotype, genotype_from_text

__all__ = [
    'ABOUT',
    'INPUT',
    'OUTPUT',
    'TOLERANCE',
    'FromPixels',
    'Program',
    'described',
    'export_onnx',
    'export_program',
    'metadata',
    'save_program',
]

INPUT, OUTPUT = 'images', 'logits'
ABOUT = 'nni-darts.json'
"""The extra file of a ``.pt2`` that has its metadata."""
TOLERANCE = 1e-4
"""The largest allowed difference between onnxruntime's logits and torch's, relative to the largest logit if that is above one."""

_BATCHES = (1, 2, 7)
_TRACED = (64, 96)
"""Height and width of the images used for tracing, large enough for every network, so that the program accepts any size."""
_ANY = torch.export.Dim.DYNAMIC


class FromPixels(nn.Module):
    """A network preceded by its normalisation: images (B, C, H, W) with values from 0 to 1 → logits (B, classes).

    Args:
        network: network that takes normalised images.
        mean: mean of each channel over the training images.
        std: standard deviation of each channel over the training images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network.eval()
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of a batch of images; see the class."""
        return self.network((images - self.mean) / self.std)


def metadata(description: Description, genotype: AnyGenotype, data: str) -> dict[str, str]:
    """Returns the metadata of an exported file: name → text, which is JSON for each field of the description.

    Args:
        description: description of the images that the network was trained on.
        genotype: genotype of the network.
        data: name of the data set.
    """
    fields = {name: json.dumps(value, ensure_ascii=False) for name, value in description.to_dict().items()}
    return {'genotype': genotype.to_text(), 'data': data, **fields, 'nni-darts': __version__}


def described(values: Mapping[str, str]) -> tuple[Description, AnyGenotype, str]:
    """Reads the result of :func:`metadata`.

    Returns:
        The description, the genotype and the name of the data set.

    Raises:
        KeyError, ValueError: if the metadata is damaged, or was written by an older version or another program.
    """
    names = ('num_classes', 'channels', 'size', 'mean', 'std', 'classes', 'fit', 'resize')
    description = Description.from_dict({name: json.loads(values[name]) for name in names})
    return description, genotype_from_text(values['genotype']), values['data']


@dataclass(frozen=True)
class Program:
    """A network traced by ``torch.export``.

    Attributes:
        model: the network that was traced.
        image: channels, height and width of the images that it was trained on.
        smallest: least height and width that it accepts if it accepts any size from there; None if it accepts one size only.
        exported: the traced program.

    Example:
        ``export_program(FromPixels(network, mean, std), (3, 32, 32)).smallest``
    """

    model: FromPixels
    image: tuple[int, int, int]
    smallest: int | None
    exported: torch.export.ExportedProgram

    @property
    def takes(self) -> str:
        """The shape of the images that the exported network accepts, for messages."""
        channels, height, width = self.image
        if self.smallest is None:
            return f'(N, {channels}, {height}, {width})'
        return f'(N, {channels}, H, W) of {self.smallest}×{self.smallest} pixels or more'

    def batches(self) -> Iterator[Tensor]:
        """Yields random images in batches of several sizes, in every image size that matters."""
        channels, height, width = self.image
        sizes = [(height, width)]
        if self.smallest is not None:
            sizes += [(self.smallest, self.smallest), (height + 3, width + 6), (2 * height + 1, max(self.smallest, width - 1))]
        for count, (height, width) in [*((count, sizes[0]) for count in _BATCHES), *((2, size) for size in sizes[1:])]:
            yield torch.rand(count, channels, height, width)


def export_program(model: FromPixels, image: tuple[int, int, int]) -> Program:
    """Traces a network for batches of any size and, unless its own images are too small, for images of any size.

    Args:
        model: the network with its normalisation.
        image: channels, height and width of an image.
    """
    model = model.eval()
    if not _runs(model, (image[0], *_TRACED)):  # made for one size, like a transformer with an embedding of positions
        return Program(model, image, None, _traced(model, image, {0: _ANY}))
    traced = _traced(model, (image[0], *_TRACED), {0: _ANY, 2: _ANY, 3: _ANY})
    # Torch assumes that a side of unknown length is never 1, but halving makes it 1 if the image is small enough.
    module = traced.module()
    smallest = next((side for side in range(1, min(image[1:]) + 1) if _runs(module, (image[0], side, side))), None)
    if smallest is None:
        traced = _traced(model, image, {0: _ANY})
    return Program(model, image, smallest, traced)


def _traced(model: nn.Module, image: tuple[int, int, int], dynamic: Mapping[int, Any]) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(model, (torch.zeros(2, *image),), dynamic_shapes={INPUT: dict(dynamic)})


def _runs(module: nn.Module, image: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            module(torch.zeros(2, *image))
    except (AssertionError, RuntimeError):  # a guard of the traced program, or an operation on an input that has become empty
        return False
    return True


def save_program(program: Program, path: Path, about: Mapping[str, str]) -> None:
    """Writes a file for ``torch.export.load``, with the metadata in its extra file ``ABOUT``.

    Args:
        program: the traced network.
        path: path of the file.
        about: the metadata.
    """
    with replacing(path) as file:
        torch.export.save(program.exported, file, extra_files={ABOUT: json.dumps(dict(about), ensure_ascii=False)})


def export_onnx(program: Program, path: Path, about: Mapping[str, str]) -> float:
    """Writes an ONNX file after checking that onnxruntime returns the model's logits for batches and images of several sizes.

    Args:
        program: the traced network.
        path: path of the file.
        about: the metadata.

    Returns:
        The largest difference between two logits.

    Raises:
        ArithmeticError: if the difference is above ``TOLERANCE``; no file is left then.
    """
    import onnx
    import onnxruntime

    unchecked = path.with_name(path.name + '.tmp')
    try:
        with _quiet():
            exported = torch.onnx.export(
                copy.deepcopy(program.exported), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
            )
        assert exported is not None  # dynamo=True
        exported.model.metadata_props.update(about)
        for node in exported.model.graph:
            node.metadata_props.clear()  # positions in torch's source, as large as the weights of a small network
        onnx.save(exported.model_proto, str(unchecked))
        session = onnxruntime.InferenceSession(str(unchecked), providers=['CPUExecutionProvider'])
        worst = 0.0
        for images in program.batches():
            with torch.no_grad():
                logits = program.model(images)
            (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
            difference = float((torch.from_numpy(found) - logits).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(logits.abs().max())):
                shape = '×'.join(map(str, images.shape))
                raise ArithmeticError(f'onnxruntime differs from torch by {difference:.2g} on {shape}: nothing was written')
            worst = max(worst, difference)
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporter's messages about its own internals within the block."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
