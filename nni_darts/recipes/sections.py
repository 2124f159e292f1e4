"""The sections of a recipe for images, and the settings that all recipes share. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from nni_darts.errors import did_you_mean
from nni_darts.genotypes.space import Positive, Section
from nni_darts.recipes.limits import PenaltySettings
from nni_darts.recipes.metric import Metric

__all__ = [
    'DATA_NAMES',
    'BudgetSettings',
    'DataSettings',
    'Decay',
    'HalvingSettings',
    'Portion',
    'Rate',
    'SearchSettings',
    'SearchedSettings',
    'TrainSettings',
    'one_of',
]

DATA_NAMES = ('digits', 'cifar10', 'cifar100', 'svhn', 'fashion-mnist', 'imagenet', 'npz', 'folder', 'csv', 'hf')
"""Data sets of images by name; ``module:function`` stands for the user's own code."""

Portion = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, lt=1000)]
Decay = Annotated[float, Field(ge=0, lt=1000)]


def _size(value: Any) -> Any:
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 10_000 for side in sides) or len(sides) not in (1, 2):
        raise ValueError(f'must be the side of a square, or [height, width], whole numbers from 1 to 10,000; it is {value!r}')
    return sides if isinstance(value, (list, tuple)) and len(sides) == 2 else sides[0]


Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
"""The side of a square, or height and width."""


def one_of(*metrics: Metric) -> Any:
    """Returns the type of a recipe's key that names one of these metrics."""
    known = {metric.name: metric for metric in metrics}

    def find(value: Any) -> Metric:
        if isinstance(value, Metric):
            value = value.name
        if not isinstance(value, str) or value not in known:
            raise ValueError(f'unknown metric {value!r}{did_you_mean(value, known)}; known here: {", ".join(known)}')
        return known[value]

    return Annotated[Metric, BeforeValidator(find), PlainSerializer(lambda metric: metric.name, return_type=str)]


class DataSettings(Section):
    """The data set of a recipe, its split and its augmentation.

    ``test_portion`` of the data is held out as test data if the data set has none; ``split_seed`` shuffles every split. ``split``:
    ``stratified`` gives both parts of a split every class in proportion; ``random`` is the rule of runs without this setting in their
    run.json. ``augment``: ``crop`` pads by ``pad`` pixels and crops, ``crop-flip`` also mirrors, ``imagenet`` is the random resized crop
    with colour jitter.

    Images are resized to ``image_size`` in pixels, the side of a square or ``[height, width]``. ``fit``: ``crop`` scales an image until it
    covers that size and crops the centre; ``letterbox`` scales it until it fits inside and fills the margins with the mean colour.

    ``class_weights: balanced`` gives an image of class c the weight n / (C · n_c) in the training loss, where n_c of the n training
    images belong to class c, of C classes. In every stage the weights minimise this loss; in a search, α minimises it, too, and
    ``criterion: loss`` scores by it. Losses and metrics of validation and test are not weighted.

    ``cache`` keeps decoded and resized images in ``~/.cache/nni-darts`` for all runs (:mod:`nni_darts.data.store`), except with
    ``augment: imagenet``, which crops the original image anew in each epoch. ``skip_unreadable`` leaves out images that cannot be decoded,
    and reports how many. ``label_column`` names the column of labels in a data set ``hf`` that has several such columns.
    """

    name: str
    path: str | None = None
    image_size: Size | None = None
    fit: Literal['crop', 'letterbox'] = 'crop'
    class_weights: Literal['none', 'balanced'] = 'none'
    cache: bool = True
    skip_unreadable: bool = False
    label_column: str | None = None
    test_portion: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: int = 0
    split: Literal['stratified', 'random'] = 'stratified'
    augment: Literal['none', 'crop', 'crop-flip', 'imagenet'] = 'none'
    pad: Positive = 4
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode='after')
    def _known(self) -> DataSettings:
        if self.name not in DATA_NAMES and not re.fullmatch(r'[\w.]+:\w+', self.name):
            hint = did_you_mean(self.name, DATA_NAMES)
            raise ValueError(f'unknown data set {self.name!r}{hint}; known: {", ".join(DATA_NAMES)}, or your own code as module:function')
        if self.name in ('imagenet', 'npz', 'folder', 'csv', 'hf') and not self.path:
            raise ValueError(f'data set {self.name} needs data.path')
        if self.name in ('folder', 'csv') and self.image_size is None:
            raise ValueError(
                f'data set {self.name} needs data.image_size: the side of the square, or [height, width], to which images are scaled'
            )
        if self.label_column is not None and self.name != 'hf':
            raise ValueError(f'data.label_column is for data set hf; {self.name} has no columns')
        if self.image_size is not None and self.name not in ('folder', 'csv', 'imagenet', 'hf'):
            raise ValueError(f'data.image_size is for folders of images; {self.name} has images of one size, so leave it out')
        if self.augment == 'imagenet' and self.fit == 'letterbox':
            raise ValueError(
                'data.fit letterbox keeps whole pictures, and augment imagenet crops them; choose augment crop-flip, crop or none'
            )
        return self


class _Training(Section):
    epochs: Positive
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Rate
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Decay = 3e-4
    gradient_clip: Annotated[float, Field(gt=0)] | None = 5.0

    @model_validator(mode='after')
    def _falling(self) -> _Training:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f'min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}')
        return self


class SearchedSettings(Section):
    """The settings of a search that images and text share.

    α stays fixed during the first ``warmup_epochs``; by default, this is the warm-up of the strategy's authors (pc-darts: 30 % of the
    search; other strategies: none). ``tuning_epochs`` is the number of epochs between two decisions of a ``+pt`` strategy.
    ``random_samples`` is the number of cells that random search trains. ``settings`` passes keyword arguments to strategies by name, such
    as ``{darts-2nd: {hessian: exact}}``. ``penalty`` adds penalties on the expected cost to the loss of α.
    """

    epochs: Positive
    architecture_learning_rate: Rate = 3e-4
    architecture_weight_decay: Decay = 1e-3
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None
    tuning_epochs: Positive = 5
    random_samples: Positive = 24
    settings: dict[str, dict[str, Any]] = {}
    penalty: PenaltySettings | None = None

    @model_validator(mode='after')
    def _trains_alpha(self) -> SearchedSettings:
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f'warmup_epochs is {self.warmup_epochs}, which leaves none of the {self.epochs} epochs to train α in')
        return self


class SearchSettings(SearchedSettings, _Training):
    """The training of the supernet. ``train_portion`` of the training data trains the weights; the remaining data trains α.

    A search uses only ``portion`` of both parts, drawn by class with ``data.split_seed``: a tenth of a large data set is often enough to
    choose a cell. The short training of ``select`` and the retraining use all training data.
    """

    min_learning_rate: Annotated[float, Field(ge=0)] = 0.001
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    portion: Annotated[float, Field(gt=0, le=1)] = 1.0


class HalvingSettings(Section):
    """Successive halving of the short trainings of cells that a strategy trains one by one.

    Cells are compared after ``min_epochs``, ``eta`` · ``min_epochs``, … epochs; each time, one of ``eta`` cells is trained on.
    """

    eta: Annotated[int, Field(ge=2, le=1000)] = 3
    min_epochs: Positive = 1


class TrainSettings(_Training):
    """The training of a network of fixed cells from scratch.

    ``schedule``: ``cosine`` decays the learning rate to ``min_learning_rate``; ``step`` multiplies it by ``decay`` after each epoch. The
    probability of ``drop_path`` grows linearly to its value. ``validation_portion`` of the training data is held out for validation; 0, as
    in the published protocol, trains on all of it. ``portion`` of both parts is used, drawn by class with ``data.split_seed``, to save
    time; the test data is always used in full. ``pool_batch_norm`` as for ``network_from_genotype``.

    Networks of cells require ``channels`` and ``cells``. In a user's own space, ``space`` overrides some of ``space.settings``.

    ``keep`` says whether the weights of the ``best`` epoch by validation or of the ``last`` epoch are kept and tested. The default is
    ``best`` in ``retrain`` with held-out data, and ``last`` otherwise. Training ends after ``patience`` epochs without improvement.

    ``halving``, in ``select`` only, trains just the best of the cells of random, evolution or proxy for all ``epochs``.
    """

    channels: Positive | None = None
    cells: Annotated[int, Field(ge=3)] | None = None
    space: dict[str, Any] | None = None
    schedule: Literal['cosine', 'step'] = 'cosine'
    decay: Annotated[float, Field(gt=0, le=1)] = 0.97
    validation_portion: Portion = 0.0
    portion: Annotated[float, Field(gt=0, le=1)] = 1.0
    cutout: Annotated[int, Field(ge=0)] = 0
    drop_path: Portion = 0.0
    auxiliary_weight: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Portion = 0.0
    pool_batch_norm: bool = True
    keep: Literal['best', 'last'] | None = None
    patience: Positive | None = None
    halving: HalvingSettings | None = None

    @model_validator(mode='after')
    def _validated(self) -> TrainSettings:
        for name, asked in (('keep: best', self.keep == 'best'), (f'patience: {self.patience}', self.patience is not None)):
            if asked and not self.validation_portion:
                raise ValueError(f'{name} needs a validation_portion above 0, because the best epoch is chosen on held-out data')
        return self


class BudgetSettings(Section):
    """The budget that each strategy has under each seed to find its cell (see :mod:`nni_darts.runs.budget`)."""

    passes: Annotated[float, Field(gt=0, le=1_000_000)]
