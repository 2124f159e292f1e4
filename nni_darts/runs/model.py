"""Uses a trained image network, loaded from the folder of its training, from ``weights.pt``, or from an exported ``.onnx`` or ``.pt2``.

No other file of the training is needed, because each of these files has the class names and the preprocessing of images. Images are
prepared by the same code as the test images of the training (:mod:`nni_darts.data.transforms`).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts.activity import announce
from nni_darts.data import Description
from nni_darts.data.images import trained_on
from nni_darts.data.inputs import Source, image_sources, read_pixels
from nni_darts.data.photos import labelled_photos
from nni_darts.data.transforms import with_margin
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype, genotype_from_text
from nni_darts.recipes import RUN, Recipe
from nni_darts.report.export import ABOUT, INPUT, OUTPUT, FromPixels, described
from nni_darts.runs.evaluation import Evaluation
from nni_darts.runs.folder import GENOTYPE
from nni_darts.runs.keeping import kept_description
from nni_darts.runs.location import find_model
from nni_darts.runs.predictions import Predictions
from nni_darts.runs.tasks import task_of
from nni_darts.runs.weights import SavedNetwork, fitting, read_weights
from nni_darts.search_spaces import network_from_genotype

__all__ = ['Model', 'OnUnreadable', 'load_model']

OnUnreadable = Callable[[str], None]
"""A function that is called with a sentence about each image that is left out."""

_IMAGES_A_BATCH = 64


@dataclass(frozen=True, eq=False)
class Model:
    """A trained image network with its class names and the preprocessing of images. :func:`load_model` creates it.

    Attributes:
        description: class names, image size, channels, mean, standard deviation, and how images are brought to size.
        genotype: genotype of the network.
        data: name of the data set on which it was trained.
        source: the file from which it was loaded.

    Example:
        >>> model = load_model('out/retrain')
        >>> model.predict('photos/cat.jpg')[0].label
        'cat'
    """

    description: Description
    genotype: AnyGenotype
    data: str
    source: Path
    _logits: Callable[[Tensor], Tensor] = field(repr=False)
    _module: nn.Module | None = field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.description.classes

    @property
    def network(self) -> nn.Module:
        """The network as a module: images (B, C, H, W) with values from 0 to 1, as :meth:`transform` returns them → logits (B, classes).

        It is in evaluation mode and normalises its input. For a ``weights.pt``, its attribute ``network`` is the trained network, which
        takes normalised images.

        Raises:
            InputError: for an ONNX file, which only onnxruntime can compute.
        """
        if self._module is None:
            raise InputError(f'{self.source} runs in onnxruntime and has no torch network; load the training, weights.pt or .pt2 instead.')
        return self._module

    def transform(self, image: Any) -> Tensor:
        """Brings one image, in any form that :meth:`predict` accepts, to the network's input: float32 (C, H, W) from 0 to 1.

        Raises:
            InputError: if the image cannot be read, or there are several images.
        """
        sources = image_sources(image, self.description)
        if len(sources) != 1:
            raise InputError(f'transform takes one image, not {len(sources)}')
        (name, single) = sources[0]
        return read_pixels(single, name, self.description)

    def predict(
        self,
        images: Any,
        *,
        batch_size: int = _IMAGES_A_BATCH,
        on_unreadable: OnUnreadable | None = None,
    ) -> Predictions:
        """Classifies images.

        Args:
            images: path of an image or of a folder (with all images below it), PIL image, array or tensor of one image or a batch (uint8,
                or values from 0 to 1), or a sequence of any of these.
            batch_size: number of images in a batch.
            on_unreadable: called for each image that cannot be read, which is then left out; with None, the first such image is an error.

        Raises:
            InputError: if there are no images, or an image cannot be read.
            ArithmeticError: if the output of the network is NaN.
        """
        sources = image_sources(images, self.description)
        if not sources:
            raise InputError('there are no images to classify')
        read, probabilities = self._answers(sources, batch_size, on_unreadable)
        return Predictions(self.classes, probabilities, tuple(sources[index][0] for index in read))

    def evaluate(
        self,
        images: Any,
        labels: Sequence[int] | Sequence[str] | None = None,
        *,
        batch_size: int = _IMAGES_A_BATCH,
        on_unreadable: OnUnreadable | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """Classifies labelled images and compares the predictions with the labels.

        Args:
            images: path of a folder with a folder of images for each class; of a folder with ``train`` and ``test`` (or ``val`` …) that
                have such folders, of which only the test images count; or of a table of paths and labels (``.csv``). With ``labels``,
                anything that :meth:`predict` accepts.
            labels: class of each image, as a name or an index into ``classes``; None if the folders or the table have the classes.
            batch_size, on_unreadable: see :meth:`predict`.
            on_note: called with a sentence about what was left out of a folder.

        Raises:
            InputError: if there are no images, a class is unknown to the network, or an image cannot be read.
            ArithmeticError: if the output of the network is NaN.
        """
        if labels is None:
            path = Path(images)
            if not path.exists():
                raise InputError(f'there is no folder or table {path}')
            files, notes = labelled_photos(path, self.classes)
            sources, numbers = [(file, file) for file, _ in files], [label for _, label in files]
            if on_note:
                for note in (*notes, *_caution_of_familiar(self.source, [file for file, _ in files])):
                    on_note(note)
        else:
            sources = image_sources(images, self.description)
            numbers = [self._number(label) for label in labels]
            if len(numbers) != len(sources) or not sources:
                raise InputError(f'each image needs one label; there are {len(sources)} images and {len(numbers)} labels')
        read, probabilities = self._answers(sources, batch_size, on_unreadable)
        if not read:
            raise InputError(f'none of {len(sources)} images can be read.')
        chosen = torch.tensor([numbers[index] for index in read], dtype=torch.int64)
        return Evaluation(self.classes, chosen, probabilities, tuple(sources[index][0] for index in read))

    def _number(self, label: Any) -> int:
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        if not isinstance(label, str) and 0 <= int(label) < len(self.classes):
            return int(label)
        raise InputError(f'the model knows no class {label!r}; it knows {", ".join(self.classes)}')

    def _answers(self, sources: Sequence[Source], batch_size: int, on_unreadable: OnUnreadable | None) -> tuple[list[int], Tensor]:
        """Returns the indices of the images that could be read, and their probabilities, (indices, classes)."""
        if batch_size < 1:
            raise InputError(f'batch_size must be at least 1, not {batch_size}')
        read: list[int] = []
        found: list[Tensor] = []
        announce('classifying images', 0, len(sources))
        for first, images in self._opened(sources, batch_size):
            faults = [image for image in images if isinstance(image, InputError)]
            if faults and on_unreadable is None:
                raise faults[0]
            if on_unreadable:
                for fault in faults:
                    on_unreadable(str(fault))
            read += [first + offset for offset, image in enumerate(images) if not isinstance(image, InputError)]
            if len(faults) < len(images):
                batch = torch.stack([image for image in images if isinstance(image, Tensor)])
                with torch.no_grad():
                    found.append(self._logits(batch).float().softmax(1).cpu())
                if not torch.isfinite(found[-1]).all():
                    raise ArithmeticError(
                        f'{self.source} returns NaN instead of probabilities, so its weights are unusable; train it again'
                    )
            announce('classifying images', first + len(images), len(sources))
        return read, torch.cat(found) if found else torch.zeros(0, len(self.classes))

    def _opened(self, sources: Sequence[Source], batch_size: int) -> Iterator[tuple[int, list[Tensor | InputError]]]:
        """Yields the index of the first image of each batch, and its images. The next batch is opened while this one is classified."""

        def opened(source: Source) -> Tensor | InputError:
            try:
                return read_pixels(source[1], source[0], self.description)
            except InputError as error:
                return error

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            starts = range(0, len(sources), batch_size)
            waiting = [pool.submit(opened, source) for source in sources[:batch_size]]
            for start in starts:
                after = sources[start + batch_size : start + 2 * batch_size]
                current, waiting = waiting, [pool.submit(opened, source) for source in after]
                yield start, [future.result() for future in current]


def load_model(path: str | os.PathLike[str], *, device: str | torch.device = 'cpu') -> Model:
    """Loads a trained image network.

    A ``.pt2`` file can contain code, so only open one from a source that you trust. ``weights.pt`` and ``.onnx`` contain data only.

    Args:
        path: output folder of ``nni-darts retrain``, its ``weights.pt`` or a copy of it, or a file that ``nni-darts export`` wrote.
        device: device of the network, such as ``cuda``; an ONNX file runs on the CPU only.

    Raises:
        InputError: if there is no such model, it is damaged, or it is a language model.

    Example:
        >>> load_model('out/retrain').classes
        ('cat', 'dog')
    """
    found = find_model(Path(path))
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f'device {str(device)!r} cannot be used here: {reason}') from None
    if found.kind == 'onnx':
        if target.type != 'cpu':
            raise InputError(f'{found.path} runs on the CPU only; for device {device} load the training, weights.pt or .pt2 instead.')
        return _onnx(found.path)
    return _program(found.path, target) if found.kind == 'pt2' else _weights(found.path, target)


def _caution_of_familiar(weights: Path, files: Sequence[str]) -> list[str]:
    """Returns a warning if images of a test are among those from which the weights in an output folder were trained."""
    try:
        recipe = Recipe.of_folder(weights.parent)
    except InputError:
        return []  # the weights can be used without the files beside them
    count = trained_on(recipe.data, files) if recipe is not None else 0
    if not count:
        return []
    held_out = 'the accuracy on images that were held out is in result.json'
    return [f'{count:,} of these {len(files):,} images are in the data on which the network was trained; {held_out}']


def _module(module: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda images: module(images.to(device))


def _weights(path: Path, device: torch.device) -> Model:
    saved = read_weights(path)
    if isinstance(saved, SavedNetwork):
        if saved.kind != 'images':
            raise InputError(f'{path} holds a language model, which cannot classify images')
        try:
            genotype, description = genotype_from_text(saved.genotype), Description.from_dict(saved.description)
            network, data = network_from_genotype(genotype, **saved.network), saved.data
        except InputError as error:  # the space of the user may have changed or moved
            raise InputError(f'{path} cannot be used: {error}') from None
        except (ValueError, TypeError) as error:
            raise InputError(f'{path} is damaged: {error}') from None
        weights = saved.state_dict
    else:
        genotype, description, network, data = _beside(path.parent)
        weights = saved
    with fitting(path):
        network.load_state_dict(weights)
    module = FromPixels(network, description.mean, description.std).eval().to(device)
    return Model(description, genotype, data, path, _module(module, device), module)


def _beside(folder: Path) -> tuple[AnyGenotype, Description, nn.Module, str]:
    """Returns cell, description of the images, network and name of the data of a training whose ``weights.pt`` has only weights.

    Earlier versions wrote the other values to separate files in the same folder, or did not save them if they follow from the data.
    """
    for name in (RUN, GENOTYPE):
        if not (folder / name).is_file():
            raise InputError(f'{folder} has no {name}, which weights of an earlier version need: use the whole output folder')
    try:
        run = json.loads((folder / RUN).read_text('utf-8'))
        recipe, stage = Recipe.of_run(run['recipe'], source=str(folder / RUN)), run['stage']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, InputError) else InputError(f'{folder / RUN} is damaged ({type(error).__name__})') from None
    try:
        genotype = genotype_from_text((folder / GENOTYPE).read_text('utf-8'))
    except ValueError as error:
        raise InputError(f'{folder / GENOTYPE}: {error}') from None
    task = task_of(recipe)
    description = kept_description(folder) or task.load(recipe).description
    if recipe.data.augment == 'imagenet':
        description = replace(description, resize=with_margin(description.size))  # earlier versions did not save it
    try:
        return genotype, description, task.network(recipe, stage, genotype, description), recipe.data.name
    except ValueError as error:
        raise InputError(f'{folder}: {error}') from None


def _onnx(path: Path) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime raises a separate type for each kind of damage
        raise InputError(f'{path} is not a readable ONNX file ({_reason(error)})') from None
    description, genotype, data = _described(session.get_modelmeta().custom_metadata_map, path)

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return Model(description, genotype, data, path, logits, None)


def _program(path: Path, device: torch.device) -> Model:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (about,) = (name for name in names if name.endswith(f'/extra/{ABOUT}'))
            values = json.loads(archive.read(about))
            if any(Path(name).name.startswith('custom_obj_') for name in names):
                raise InputError(f'{path} holds pickled objects, which can run code; nni-darts export writes none')
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f'{path} is not a file that nni-darts export wrote ({_reason(error)})') from None
    description, genotype, data = _described(values, path)
    try:
        with _weights_only():
            program = torch.export.load(path)
        if device.type != 'cpu':
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:  # torch raises many types for a file that is damaged or of another version
        raise InputError(f'{path} is not a program that this torch can read ({_reason(error)})') from None
    return Model(description, genotype, data, path, _module(module, device), module)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Makes ``torch.load`` unpickle only tensors within the block, even if torch itself calls it with ``weights_only=False``."""
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _described(values: dict[str, str], path: Path) -> tuple[Description, AnyGenotype, str]:
    """Returns the description of the images, the cell and the name of the data in a file's metadata."""
    try:
        return described(values)
    except (ValueError, KeyError, TypeError) as error:
        said = str(error) if isinstance(error, InputError) else f'its metadata lack {error}'
        raise InputError(f'{path} does not say how its images are prepared ({said}): export it with this version of nni-darts') from None


def _reason(error: Exception) -> str:
    """Returns the beginning of an error's text, which may be long or empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
