"""The sections of a recipe about images, and what the sections of all recipes share. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from nni_darts.genotypes.kinds import Positive, Section
from nni_darts.recipes.metric import Metric

__all__ = [
    'DATA_NAMES',
    'BudgetSettings',
    'DataSettings',
    'Decay',
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
    """The type of a metric that a recipe names."""
    known = {metric.name: metric for metric in metrics}

    def find(value: Any) -> Metric:
        if isinstance(value, Metric):
            value = value.name
        if not isinstance(value, str) or value not in known:
            raise ValueError(f'unknown metric {value!r}; known here: {", ".join(known)}')
        return known[value]

    return Annotated[Metric, BeforeValidator(find), PlainSerializer(lambda metric: metric.name, return_type=str)]


class DataSettings(Section):
    """The data of a recipe.

    ``test_portion`` is held out as test data where a data set brings none; ``split_seed`` shuffles every split. ``split``:
    ``stratified`` gives both parts of a split every class in proportion, ``random`` is the rule of runs that lack this
    setting in their run.json. ``augment``: ``crop``
    pads by ``pad`` and crops, ``crop-flip`` mirrors too, ``imagenet`` is the random resized crop with colour jitter.

    Pictures are brought to ``image_size``, the side of a square or ``[height, width]``. ``fit``: ``crop`` scales a picture until it covers
    that size and cuts the middle out, ``letterbox`` scales it until it lies within and fills the margins with the mean colour.

    ``class_weights: balanced`` gives an image of class c the weight n / (C · n_c) in the training loss, with n_c of all n training
    images in C classes. That is the loss of the weights in every stage, and in a search also the one that α minimises and that
    ``criterion: loss`` scores by. Losses and metrics of validation and test are not weighted.

    ``cache``: keep decoded pictures, brought to size, in ``~/.cache/nni-darts`` for all runs (:mod:`nni_darts.data.store`); with
    ``augment: imagenet``, which crops the picture itself anew in each epoch, nothing is kept. ``skip_unreadable`` leaves pictures out that
    cannot be decoded, and says how many. ``label_column`` names the classes' column of a data set ``hf`` that has more than one.
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
            raise ValueError(f'unknown data set {self.name!r}; known: {", ".join(DATA_NAMES)}, or your own code as module:function')
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
    """How α is trained.

    α rests for ``warmup_epochs``; left out, for as long as the strategy's authors let it (pc-darts: 30 % of the search, others not at
    all). ``tuning_epochs`` lie between two decisions of a ``+pt`` strategy. ``random_samples`` is N of random search. ``settings`` passes
    keyword arguments to strategies by name, for example
    ``{darts-2nd: {hessian: exact}}``.
    """

    epochs: Positive
    architecture_learning_rate: Rate = 3e-4
    architecture_weight_decay: Decay = 1e-3
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None
    tuning_epochs: Positive = 5
    random_samples: Positive = 24
    settings: dict[str, dict[str, Any]] = {}

    @model_validator(mode='after')
    def _trains_alpha(self) -> SearchedSettings:
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f'warmup_epochs is {self.warmup_epochs}, which leaves none of the {self.epochs} epochs to train α in')
        return self


class SearchSettings(SearchedSettings, _Training):
    """How the supernet is trained. ``train_portion`` of the training data is for the weights, the rest for α.

    ``portion`` of both is all that a search sees, drawn by class (with ``data.split_seed``): a tenth of a large data set is often enough to
    choose a cell. The short training of ``select`` and the retraining learn from everything.
    """

    min_learning_rate: Annotated[float, Field(ge=0)] = 0.001
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    portion: Annotated[float, Field(gt=0, le=1)] = 1.0


class TrainSettings(_Training):
    """How a network of fixed cells is trained from scratch.

    ``schedule``: ``cosine`` to ``min_learning_rate``, or ``step``: times ``decay`` each epoch. ``drop_path`` grows linearly to its
    value. ``validation_portion`` of the training data is held out to be validated on; with 0 nothing is, and the published protocol
    trains on everything. ``portion`` of both parts is used, drawn by class (with ``data.split_seed``), where there is no time for all; the
    test is always whole. ``pool_batch_norm`` as for ``network_from_genotype``.

    Networks of cells have ``channels`` and ``cells``. In a space of your own, ``space`` replaces some of ``space.settings``.

    ``keep`` says which weights are tested and kept: those of the ``best`` epoch by validation, or of the ``last`` one. Left out, it is
    ``best`` in ``retrain`` where data is held out, else ``last``. A training that gets no better for ``patience`` epochs ends.
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

    @model_validator(mode='after')
    def _validated(self) -> TrainSettings:
        for name, asked in (('keep: best', self.keep == 'best'), (f'patience: {self.patience}', self.patience is not None)):
            if asked and not self.validation_portion:
                raise ValueError(f'{name} needs a validation_portion above 0, because the best epoch is chosen on held-out data')
        return self


class BudgetSettings(Section):
    """The budget of every strategy under each seed until its cell is known (see :mod:`nni_darts.runs.budget`)."""

    passes: Annotated[float, Field(gt=0, le=1_000_000)]
