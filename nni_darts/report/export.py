"""A trained network as a file for other programs: ONNX, and torch's own exported program.

What is exported takes images with values from 0 to 1 and normalises them itself, so that whoever uses it need not know the training data.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from nni_darts.errors import InputError

__all__ = ['INPUT', 'OUTPUT', 'TOLERANCE', 'FromPixels', 'export_onnx', 'export_program', 'needs_onnx', 'save_program']

INPUT, OUTPUT = 'images', 'logits'
TOLERANCE = 1e-4
"""How far onnxruntime's logits may be from torch's, as a part of the largest logit where that is above one."""

_BATCHES = (1, 2, 7)


class FromPixels(nn.Module):
    """The network with its normalisation: (B, C, H, W), 0 … 1 → logits (B, classes).

    Args:
        network: takes normalised images.
        mean, std: of each channel over the training images.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network.eval()
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.network((images - self.mean) / self.std)


def needs_onnx() -> None:
    """Raises InputError that says what to install if something is missing."""
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(name) is None]
    if missing:
        raise InputError(f'export to ONNX needs {" and ".join(missing)}: pip install onnx onnxscript onnxruntime')


def export_program(model: FromPixels, image: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """``torch.export`` with a batch of any size.

    Args:
        image: channels, height and width.
    """
    with torch.no_grad():
        return torch.export.export(model.eval(), (torch.zeros(2, *image),), dynamic_shapes={INPUT: {0: torch.export.Dim.DYNAMIC}})


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes it for ``torch.export.load``."""
    torch.export.save(program, path)


def export_onnx(
    program: torch.export.ExportedProgram, model: FromPixels, image: tuple[int, int, int], path: Path, about: dict[str, str]
) -> float:
    """Writes a file that has passed the check: onnxruntime gives the model's logits on batches of several sizes.

    Args:
        program: what :func:`export_program` made of the model.
        image: channels, height and width.
        about: goes into the file's metadata.

    Returns:
        The largest difference of a logit.

    Raises:
        ArithmeticError: if it is above ``TOLERANCE``; no file is left then.
        InputError: if a package is missing.
    """
    needs_onnx()
    import onnx
    import onnxruntime

    unchecked = path.with_name(path.name + '.tmp')
    try:
        with _quiet():
            exported = torch.onnx.export(
                export_program(model, image), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
            )
        exported.model.metadata_props.update(about)
        for node in exported.model.graph:
            node.metadata_props.clear()  # where in torch's source it came from: as long as the weights of a small network
        onnx.save(exported.model_proto, str(unchecked))
        session = onnxruntime.InferenceSession(str(unchecked), providers=['CPUExecutionProvider'])
        worst = 0.0
        for size in _BATCHES:
            images = torch.rand(size, *image)
            with torch.no_grad():
                logits = model(images)
            (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
            difference = float((torch.from_numpy(found) - logits).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(logits.abs().max())):
                raise ArithmeticError(f'onnxruntime differs from torch by {difference:.2g} in a batch of {size}: nothing was written')
            worst = max(worst, difference)
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about its own internals."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
