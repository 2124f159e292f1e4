"""Recipes: every setting of data, space, search and training in one typed, validated, frozen object. Imports no torch.

A recipe is a YAML file, found by name among those of this package or by path. ``select`` (the short training that picks the best found
cell) starts from ``retrain`` and changes what it lists.
"""

from __future__ import annotations

import copy
import difflib
import json
import random
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from nni_darts.candidates import REDUCED, Candidates, edge_candidates
from nni_darts.choices import NASBENCH201_CHOICES, darts_choices, recurrent_choices
from nni_darts.errors import InputError
from nni_darts.genotype import DARTS_OPERATIONS, Genotype
from nni_darts.genotypes import AnyGenotype
from nni_darts.metric import ACCURACY, IMAGE_METRICS, PERPLEXITY, Metric
from nni_darts.nasbench201 import NasBench201Genotype
from nni_darts.recurrent import RnnGenotype

__all__ = [
    'DATA_NAMES',
    'RUN',
    'TEXT_NAMES',
    'BudgetSettings',
    'DataSettings',
    'Recipe',
    'RecurrentSpaceSettings',
    'SearchSettings',
    'SpaceSettings',
    'TextRecipe',
    'TextSearchSettings',
    'TextSettings',
    'TextTrainSettings',
    'TrainSettings',
    'load_yaml',
    'recipe_names',
    'recipe_text',
    'with_split',
]

RUN = 'run.json'
"""The file in an output folder that says which run it is of, with its recipe."""

DATA_NAMES = ('digits', 'cifar10', 'cifar100', 'svhn', 'fashion-mnist', 'imagenet', 'npz', 'folder', 'csv', 'hf')
"""Data sets of images by name; ``module:function`` stands for the user's own code."""

TEXT_NAMES = ('pydoc', 'text')
"""Texts by name; a recipe with one of them is a :class:`TextRecipe`."""


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True, strict=True)


Portion = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, lt=1000)]
Decay = Annotated[float, Field(ge=0, lt=1000)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


def _size(value: Any) -> Any:
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 10_000 for side in sides) or len(sides) not in (1, 2):
        raise ValueError(f'must be the side of a square, or [height, width], whole numbers from 1 to 10,000; it is {value!r}')
    return sides if isinstance(value, (list, tuple)) and len(sides) == 2 else sides[0]


Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
"""The side of a square, or height and width."""


def _one_of(*metrics: Metric) -> Any:
    """The type of a metric that a recipe names."""
    known = {metric.name: metric for metric in metrics}

    def find(value: Any) -> Metric:
        if isinstance(value, Metric):
            value = value.name
        if not isinstance(value, str) or value not in known:
            raise ValueError(f'unknown metric {value!r}; known here: {", ".join(known)}')
        return known[value]

    return Annotated[Metric, BeforeValidator(find), PlainSerializer(lambda metric: metric.name, return_type=str)]


class DataSettings(_Section):
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


class SpaceSettings(_Section):
    """The supernet that is searched: ``darts`` with any ``operations`` and ``nodes``, or another space, which has its own."""

    name: Literal['darts', 's1', 's2', 's3', 's4', 's5', 'nasbench201'] = 'darts'
    channels: Positive
    cells: Annotated[int, Field(ge=3)]
    nodes: Annotated[int, Field(ge=1, le=6)] = 4
    stem: Literal['cifar', 'imagenet'] = 'cifar'
    operations: Names = DARTS_OPERATIONS

    @model_validator(mode='after')
    def _operations(self) -> SpaceSettings:
        edge_candidates(self.operations, self.nodes)
        if self.name != 'darts' and (self.nodes != 4 or self.operations != DARTS_OPERATIONS):
            raise ValueError(f'the space {self.name} has operations of its own and four nodes; set nodes to 4 and leave operations out')
        if self.name == 'nasbench201' and self.stem != 'cifar':
            raise ValueError(f'the space nasbench201 has the stem cifar, not {self.stem}')
        return self

    @property
    def candidates(self) -> Candidates:
        """The operations on each edge."""
        if self.name == 'nasbench201':
            raise ValueError('cells of nasbench201 are not pairs of cells')
        return REDUCED[self.name] if self.name in REDUCED else edge_candidates(self.operations, self.nodes)

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """A cell of this space, drawn uniformly."""
        if self.name == 'nasbench201':
            return NasBench201Genotype.random(rng)
        return Genotype.random(rng, nodes=self.nodes, operations=self.candidates)

    def mutated_cell(self, cell: AnyGenotype, rng: random.Random) -> AnyGenotype:
        """A cell of this space with one other operation or one other input."""
        if self.name == 'nasbench201':
            return NasBench201Genotype.from_sample(NASBENCH201_CHOICES.mutated(cell.to_sample(), rng))  # type: ignore[union-attr]
        return Genotype.from_sample(darts_choices(self.candidates).mutated(cell.to_sample(self.candidates), rng))  # type: ignore[union-attr, call-arg]


class _Training(_Section):
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


class _Searching(_Section):
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
    def _trains_alpha(self) -> _Searching:
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f'warmup_epochs is {self.warmup_epochs}, which leaves none of the {self.epochs} epochs to train α in')
        return self


class SearchSettings(_Searching, _Training):
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

    ``keep`` says which weights are tested and kept: those of the ``best`` epoch by validation, or of the ``last`` one. Left out, it is
    ``best`` in ``retrain`` where data is held out, else ``last``. A training that gets no better for ``patience`` epochs ends.
    """

    channels: Positive
    cells: Annotated[int, Field(ge=3)]
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


class TextSettings(_Section):
    """The text that is learned from.

    ``text`` is a folder, ``pydoc`` the help topics that come with Python, of which ``valid_portion`` and ``test_portion`` are held out, in
    an order that ``split_seed`` draws. Words rarer in the training text than ``min_count`` become ``<unk>``.
    """

    name: Literal['pydoc', 'text']
    path: str | None = None
    valid_portion: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_portion: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    split_seed: int = 0
    min_count: Positive = 1

    @model_validator(mode='after')
    def _has_a_place(self) -> TextSettings:
        if self.name == 'text' and not self.path:
            raise ValueError('data set text needs data.path: a folder with train.txt, valid.txt and test.txt')
        if self.name == 'pydoc' and self.path:
            raise ValueError('data.path is for data set text; pydoc comes with Python')
        return self


class RecurrentSpaceSettings(_Section):
    """The recurrent supernet that is searched; ``hidden`` units in the states and in the embedding of words."""

    name: Literal['recurrent'] = 'recurrent'
    hidden: Positive
    nodes: Annotated[int, Field(ge=1, le=16)] = 8

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """A cell of this space, drawn uniformly."""
        return RnnGenotype.random(rng, nodes=self.nodes)

    def mutated_cell(self, cell: AnyGenotype, rng: random.Random) -> AnyGenotype:
        """A cell of this space with one other activation or one other input."""
        return RnnGenotype.from_sample(recurrent_choices(self.nodes).mutated(cell.to_sample(), rng))  # type: ignore[union-attr]


class DropoutSettings(_Section):
    """As for :class:`nni_darts.search_spaces.Dropouts`."""

    embedding: Portion = 0.0
    input: Portion = 0.2
    x: Portion = 0.75
    hidden: Portion = 0.25
    output: Portion = 0.75


class _TextTraining(_Section):
    """Plain SGD on batches of about ``bptt`` time steps (see :func:`nni_darts.data.text_module.span_lengths` for ``bptt_deviation``).

    The learning rate of a batch is in proportion to its length. ``activation_regularisation`` and ``temporal_regularisation`` as for
    :class:`nni_darts.training.LanguageModel`.
    """

    epochs: Positive
    batch_size: Positive
    evaluation_batch_size: Positive = 10
    bptt: Positive = 35
    bptt_deviation: Annotated[float, Field(ge=0)] = 5.0
    learning_rate: Rate = 20.0
    weight_decay: Decay = 5e-7
    gradient_clip: Annotated[float, Field(gt=0)] | None = 0.25
    activation_regularisation: Decay = 0.0
    temporal_regularisation: Decay = 1e-3
    dropouts: DropoutSettings = DropoutSettings()


class TextSearchSettings(_Searching, _TextTraining):
    """How the recurrent supernet is trained: its weights on the training text, α on the validation text.

    Batch norm needs batches of two.
    """

    batch_size: Annotated[int, Field(ge=2)]
    bptt_deviation: Annotated[float, Field(ge=0)] = 0.0
    architecture_learning_rate: Rate = 3e-3


class TextTrainSettings(_TextTraining):
    """How a network of a fixed recurrent cell is trained from scratch.

    Once the validation perplexity is worse than it was before the last ``averaging`` epochs, weights are averaged (null: never).
    ``keep`` and ``patience`` as in :class:`TrainSettings`; left out, ``keep`` is ``best``.
    """

    hidden: Positive
    averaging: Positive | None = 5
    keep: Literal['best', 'last'] | None = None
    patience: Positive | None = None


class BudgetSettings(_Section):
    """The budget of every strategy under each seed until its cell is known (see :mod:`nni_darts.budget`)."""

    passes: Annotated[float, Field(gt=0, le=1_000_000)]


class Recipe(_Section):
    """All settings of one experiment. Build it with :meth:`load` or :meth:`from_dict`, which make a :class:`TextRecipe` where data is text.

    ``accelerator`` and ``precision`` go to Lightning's Trainer: ``auto`` takes a GPU where there is one; ``16-mixed`` is float16 with
    gradients that are scaled while they are computed. On more than one of ``devices``
    as many processes share every batch, on a GPU each or on the CPU (:mod:`nni_darts.parallel`). A checkpoint is written after each
    epoch, and within epochs after every ``checkpoint_steps`` steps. ``logger`` writes measurements for other programs, too.

    Cells are chosen by the ``metric`` on validation images, and tested by it: ``accuracy``, ``balanced_accuracy`` (the mean recall of the
    classes), ``auroc`` (the mean area under the ROC curves of each class against all others) or ``f1`` (the mean F1 of the classes).
    Accuracy is measured beside it. Strategies that score on batches during a search (``+pt``, ``enas``, ``random-ws``) do so by
    accuracy where that is the metric, else by the loss, unless their ``criterion`` is set: the others mean little on a batch.

    With a ``budget`` it decides how long a search is and how many
    cells are trained, and not ``search.epochs``, ``search.random_samples`` and evolution's ``cells``.
    """

    name: str = 'unnamed'
    data: DataSettings
    space: SpaceSettings
    search: SearchSettings
    retrain: TrainSettings
    select: TrainSettings
    metric: _one_of(*IMAGE_METRICS) = ACCURACY  # type: ignore[valid-type]
    budget: BudgetSettings | None = None
    accelerator: Literal['auto', 'cpu', 'gpu', 'mps'] = 'auto'
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal['32-true', 'bf16-mixed', '16-mixed', '64-true'] = '32-true'
    checkpoint_steps: Positive = 500
    logger: Literal['tensorboard', 'csv', 'wandb', 'mlflow'] | None = None

    def keeps_best(self, stage: str) -> bool:
        """Whether a training of ``select`` or ``retrain`` ends with the weights of the epoch that validated best."""
        settings = getattr(self, stage)
        return settings.keep == 'best' or (settings.keep is None and stage == 'retrain' and settings.validation_portion > 0)

    @model_validator(mode='after')
    def _selectable(self) -> Recipe:
        if not self.select.validation_portion:
            raise ValueError('select.validation_portion must be above 0: the best cell is picked by validation')
        self._check_devices('batch_size')
        if self.space.name == 'nasbench201':
            self._check_nasbench201()
        return self

    def _check_devices(self, *sizes: str) -> None:
        """Every device gets the same part of a batch, and batch norm needs two in each."""
        if self.devices > 1 and self.accelerator == 'mps':
            raise ValueError(f'devices is {self.devices}, but accelerator mps has one; it must be cpu, gpu or auto')
        for name in ('search', 'retrain', 'select'):
            for size in sizes:
                value = getattr(getattr(self, name), size)
                if self.devices > 1 and (value % self.devices or value < 2 * self.devices):
                    raise ValueError(
                        f'{name}.{size} is that of all devices together: with devices: {self.devices} it must be a multiple of '
                        f'{self.devices} from {2 * self.devices}, not {value}'
                    )

    def _check_nasbench201(self) -> None:
        for name in ('space', 'retrain', 'select'):
            section = getattr(self, name)
            if section.cells % 3:
                raise ValueError(f'{name}.cells must be a multiple of 3 in nasbench201, which has three stages, not {section.cells}')
            for key, what in (('auxiliary_weight', 'auxiliary head'), ('drop_path', 'drop-path')):
                if getattr(section, key, 0):
                    raise ValueError(f'{name}.{key} must be 0 in nasbench201, whose networks have no {what}')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = 'recipe') -> Recipe:
        """Validates plain data. Raises InputError: one sentence that names the key and what is allowed."""
        if not isinstance(values, Mapping):
            raise InputError(f'{source}: a recipe is a mapping with the sections data, space, search and retrain')
        values = dict(values)
        if isinstance(values.get('retrain'), Mapping):
            select = values.get('select') or {}
            if not isinstance(select, Mapping):
                raise InputError(f'{source}: select must be a mapping, not {select!r}')
            kept = {key: value for key, value in values['retrain'].items() if key not in _OF_RETRAIN}
            values['select'] = {**kept, **select}
        kind = TextRecipe if _names(values, 'data') in TEXT_NAMES or _names(values, 'space') == 'recurrent' else Recipe
        try:
            recipe = kind(**{str(key): value for key, value in values.items()})
            recipe.to_dict()  # what cannot be written must not come to light when the first result is
        except ValidationError as error:
            raise InputError(f'{source}: {_sentence(error, kind)}') from None
        except UnicodeEncodeError as error:
            raise InputError(f'{source}: {error.object!r} cannot be written as UTF-8, because of character {error.start + 1}') from None
        return recipe

    @classmethod
    def load(cls, name: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe:
        """Reads a recipe by name or path.

        Args:
            name: one of :func:`recipe_names`, or the path of a YAML file.
            overrides: ``section.key=value`` texts, or a mapping from ``section.key`` to value.

        Raises:
            InputError: for an unknown name or key, a wrong type or an impossible value.
        """
        text, source = _read(str(name))
        values = load_yaml(text, source)
        if not isinstance(values, dict):
            raise InputError(f'{source}: a recipe is a mapping with the sections data, space, search and retrain')
        values.setdefault('name', Path(str(name)).stem)
        for key, value in _pairs(overrides):
            _assign(values, key, value)
        return cls.from_dict(values, source=source)

    @classmethod
    def of_run(cls, values: Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = (), *, source: str = 'recipe') -> Recipe:
        """Reads the recipe that a run wrote down, with changes.

        A run from before ``data.split`` existed split at random, and keeps that: otherwise images that it trained on would be tested.

        Args:
            values: as :meth:`to_dict` returned it, in this version or an earlier one.
            overrides: as for :meth:`load`.
            source: where the values are from, for messages.

        Raises:
            InputError: as :meth:`load`.
        """
        values = with_split(values)
        for key, value in _pairs(overrides):
            _assign(values, key, value)
        return cls.from_dict(values, source=source)

    @classmethod
    def of_folder(cls, folder: Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe | None:
        """Reads the recipe of the search or training that a folder holds; None if it holds none.

        Raises:
            InputError: if the file is damaged, or as :meth:`load` for the overrides.
        """
        path = folder / RUN
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text('utf-8'))['recipe']
            if not isinstance(values, dict):
                raise TypeError('recipe')
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path} is damaged ({type(error).__name__}); name the recipe with --recipe') from None
        return cls.of_run(values, overrides, source=f'the recipe of {folder}')

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` reads back."""
        return self.model_dump(mode='json')

    def with_epochs(self, stage: str, epochs: int) -> Self:
        """Returns the recipe with another number of epochs of a stage: ``search``, ``select`` or ``retrain``."""
        return self.model_copy(update={stage: getattr(self, stage).model_copy(update={'epochs': epochs})})

    def random_cells(self, seed: int, count: int | None = None) -> list[AnyGenotype]:
        """The first cells that random search trains under this seed: all N of them, or so many."""
        rng = random.Random(seed)
        return [self.space.random_cell(rng) for _ in range(self.search.random_samples if count is None else count)]


class TextRecipe(Recipe):
    """All settings of one experiment on text."""

    data: TextSettings  # type: ignore[assignment]
    space: RecurrentSpaceSettings  # type: ignore[assignment]
    search: TextSearchSettings  # type: ignore[assignment]
    retrain: TextTrainSettings  # type: ignore[assignment]
    select: TextTrainSettings  # type: ignore[assignment]
    metric: _one_of(PERPLEXITY) = PERPLEXITY  # type: ignore[valid-type]

    def keeps_best(self, stage: str) -> bool:
        """Whether a training ends with the weights of the epoch that validated best."""
        return getattr(self, stage).keep != 'last'

    @model_validator(mode='after')
    def _selectable(self) -> TextRecipe:
        self._check_devices('batch_size', 'evaluation_batch_size')
        return self  # there is always text to validate on


_OF_RETRAIN = ('keep', 'patience')
"""Settings of ``retrain`` that ``select`` does not inherit: its trainings are compared, so all of them have the same length."""


def with_split(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe as plain data in which the rule of the split is named: ``random`` for images of before there was a choice."""
    copied = copy.deepcopy(dict(values)) if isinstance(values, Mapping) else {}
    data = copied.get('data')
    if isinstance(data, dict) and data.get('name') not in TEXT_NAMES:
        data.setdefault('split', 'random')
    return copied


def _names(values: Mapping[str, Any], section: str) -> Any:
    """``name`` of a section of plain data that may be anything."""
    given = values.get(section)
    return given.get('name') if isinstance(given, Mapping) else None


def recipe_names() -> list[str]:
    """The recipes of this package."""
    files = resources.files('nni_darts').joinpath('recipes').iterdir()
    return sorted(file.name[: -len('.yml')] for file in files if file.name.endswith('.yml'))


def recipe_text(name: str) -> str:
    """The YAML of a recipe of this package, with its comments.

    Raises:
        InputError: for an unknown name.
    """
    if name not in recipe_names():
        raise InputError(f'There is no recipe {name!r}; choose from {", ".join(recipe_names())}.')
    return resources.files('nni_darts').joinpath('recipes', f'{name}.yml').read_text('utf-8')


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``3e-4`` as text; everybody else reads a number."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$'), list('-+0123456789')
)


def load_yaml(text: str, source: str) -> Any:
    """Parses YAML safely. Raises InputError with the line of the mistake."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, 'problem_mark', None)
        where = f' at line {mark.line + 1}' if mark else ''
        raise InputError(f'{source} is not valid YAML{where}: {getattr(error, "problem", None) or str(error).splitlines()[0]}') from None


def _read(name: str) -> tuple[str, str]:
    if name in recipe_names():
        return recipe_text(name), f'recipe {name}'
    path = Path(name)
    if path.suffix not in ('.yml', '.yaml'):
        raise InputError(f'unknown recipe {name!r}; known: {", ".join(recipe_names())}, or the path of a .yml file')
    try:
        return path.read_text('utf-8'), f'recipe {path}'
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read the recipe {path}: {getattr(error, "strerror", None) or error}') from None


def _pairs(overrides: Iterable[str] | Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        yield from ((str(key), value) for key, value in overrides.items())
        return
    for text in overrides:
        key, equals, value = text.partition('=')
        if not equals:
            raise InputError(f'an override is written section.key=value, not {text!r}')
        yield key.strip(), load_yaml(value, f'the value of {key}')


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split('.')
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f'cannot set {key!r}: {section!r} is not a section')
        values = inner
    values[last] = value


def _fields(path: tuple[Any, ...], kind: type[Recipe]) -> list[str]:
    """The names allowed at this place of a recipe."""
    model: Any = kind
    for part in path:
        annotation = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _sentence(error: ValidationError, kind: type[Recipe]) -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors()[0]
    path = tuple(first['loc'])
    key = '.'.join(map(str, path))
    if first['type'] == 'extra_forbidden':
        allowed = _fields(path[:-1], kind)
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f' (did you mean {close[0]!r}?)' if close else ''
        return f'unknown key {key!r}{hint}; allowed: {", ".join(allowed)}'
    if first['type'] == 'missing':
        return f'{key!r} is missing'
    message = first['msg'].removeprefix('Value error, ')
    if first['type'] == 'value_error':
        return f'{key}: {message}' if key else message
    if path[-1:] == ('[key]',):
        return f'the names in {".".join(map(str, path[:-2]))} must be text, not {first["input"]!r}'
    must = _MUST.get(first['type'], '').format(**first.get('ctx', {}))
    return f'{key} = {first.get("input")!r} is wrong: {f"it must be {must}" if must else message[0].lower() + message[1:]}'


_MUST = {
    'int_type': 'a whole number',
    'float_type': 'a number',
    'string_type': 'text',
    'bool_type': 'true or false',
    'dict_type': 'a mapping',
    'model_type': 'a mapping',
    'tuple_type': 'a list',
    'literal_error': '{expected}',
    'greater_than': 'above {gt}',
    'greater_than_equal': 'at least {ge}',
    'less_than': 'below {lt}',
    'less_than_equal': 'at most {le}',
    'finite_number': 'a finite number',
}
"""Type of an error of pydantic → what the value must be."""
