"""The page of a training in its output folder, and the evaluation of its test."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from nni_darts.data import ImageData
from nni_darts.errors import InputError
from nni_darts.files import replacing, write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.report.fits import commands
from nni_darts.report.trainings import TRAINING, AboutTraining, training_data, write_training
from nni_darts.runs.evaluation import Evaluation
from nni_darts.training.run import epochs_of

__all__ = ['ANSWERS', 'EVALUATION', 'TrainingPage', 'evaluation_of', 'read_answers', 'thumbnails']

EVALUATION = 'evaluation.json'
"""The file with the evaluation of the test in the output folder of a training, as ``Evaluation.to_dict`` returns it."""

ANSWERS = 'answers.npz'
"""The file with the predictions for each test image: ``classes``, ``labels``, ``probabilities``, ``names``."""

_WORST = 20
_SIDES = (96, 72, 56, 40, 28)
_MOST_CHARACTERS = 200_000


def evaluation_of(answers: tuple[Tensor, Tensor], data: ImageData) -> Evaluation:
    """Returns the evaluation of a test.

    Args:
        answers: probabilities, float32 (N, classes), and labels, int64 (N,), in the order of the test images.
        data: the data set with these test images.
    """
    probabilities, labels = answers
    path_of = getattr(data.test, 'path', lambda index: None)
    names = tuple(str(path_of(index) or index) for index in range(len(labels)))
    return Evaluation(data.description.classes, labels, probabilities, names)


def read_answers(output: Path) -> Evaluation:
    """Reads the predictions for each test image from the folder of a finished ``retrain``.

    Raises:
        InputError: if there are no predictions, or the file is damaged.
    """
    path = output / ANSWERS
    try:
        with np.load(path, allow_pickle=False) as file:
            labels, probabilities = (torch.from_numpy(file[name]) for name in ('labels', 'probabilities'))
            return Evaluation(tuple(map(str, file['classes'])), labels, probabilities, tuple(map(str, file['names'])))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f'{path} does not hold the answers to a test ({error}): finish the training with --resume.') from None


def thumbnails(data: Dataset[Any], indices: Sequence[int], most: int = _MOST_CHARACTERS) -> list[str]:
    """Returns thumbnails of images as data URIs (PNG), all reduced to the same size so that they fit into ``most`` characters in total.

    Args:
        data: images by index, each a PIL image or a uint8 tensor (C, H, W), with its label.
        indices: indices of the images to show.
        most: largest number of characters of all data URIs together.
    """
    images = [_picture(data[index][0]) for index in indices]
    found: list[str] = []
    for side in _SIDES:
        found = [_data_uri(image, side) for image in images]
        if sum(map(len, found)) <= most:
            return found
    return [uri if sum(map(len, found[: number + 1])) <= most else '' for number, uri in enumerate(found)]


def _picture(image: Any) -> Image.Image:
    """Returns a grey or RGB image that Pillow can write."""
    if isinstance(image, Tensor):
        channels = image[:3] if len(image) >= 3 else image[:1]
        image = to_pil_image(channels if channels.dtype == torch.uint8 else channels.float().clamp(0, 1))
    return image if image.mode in ('L', 'RGB') else image.convert('RGB')


def _data_uri(image: Image.Image, side: int) -> str:
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, 'PNG', optimize=True)
    return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode("ascii")}'


class TrainingPage:
    """Keeps ``training.html`` and ``training.json`` in an output folder up to date.

    Args:
        output: the folder.
        recipe: all settings.
        stage: ``select`` or ``retrain``.
        genotype: the cell whose network is trained.
        seed: seed of the training.

    Example:
        ``TrainingPage(Path('out/retrain'), recipe, 'retrain', genotype, 1).write()``
    """

    def __init__(self, output: Path, recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int) -> None:
        self.output = output
        self.recipe = recipe
        self._about = AboutTraining(stage, seed, recipe.name, recipe.metric.name, genotype)

    def write(self) -> None:
        """Writes the page with the epochs so far."""
        write_training(self.output, TRAINING, training_data(epochs_of(self.output), self._about, over=False))

    def finish(self, result: Mapping[str, Any], answers: tuple[Tensor, Tensor] | None, data: Any) -> None:
        """Writes the page of the finished training and, if images were tested, ``evaluation.json``.

        Args:
            result: measurements and costs at the end.
            answers: result of ``ImageClassifier.answers`` after the test; None if no images were tested.
            data: the data set.
        """
        found: dict[str, Any] | None = None
        if answers is not None:
            evaluation = evaluation_of(answers, data)
            found = evaluation.to_dict(_WORST)
            write_text(self.output / EVALUATION, json.dumps(found) + '\n')
            with replacing(self.output / ANSWERS) as file:
                arrays: dict[str, Any] = {'labels': evaluation.labels.numpy(), 'probabilities': evaluation.probabilities.numpy()}
                np.savez_compressed(file, classes=np.array(evaluation.classes), names=np.array(evaluation.names), **arrays)
            pictures = thumbnails(data.test, evaluation.worst(_WORST))
            found['mistakes'] = [{**mistake, 'image': picture} for mistake, picture in zip(found['mistakes'], pictures)]
        written = training_data(epochs_of(self.output), self._about, over=True, result=result, evaluation=found, commands=self._commands())
        write_training(self.output, TRAINING, written)

    def _commands(self) -> list[str]:
        """Returns commands that use the network; empty for language models."""
        return [] if self.recipe.task == 'text' else commands(self.output)
