"""All settings of one experiment in one typed, validated, frozen object. Imports no torch.

A recipe is a YAML file, named by its path or as one of this package's recipes. The section ``select`` (the short training that picks the
best of several cells) inherits the settings of ``retrain`` and overrides some of them.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.kinds import CellSpace, NasBench201Space, OwnSpace, RecurrentSpace, space_kind
from nni_darts.genotypes.space import Positive, Section
from nni_darts.recipes.latency import LatencySettings
from nni_darts.recipes.limits import LATENCY, LimitSettings
from nni_darts.recipes.loading import assign, error_sentence, load_yaml, override_pairs, read_recipe
from nni_darts.recipes.metric import ACCURACY, IMAGE_METRICS, PERPLEXITY
from nni_darts.recipes.sections import BudgetSettings, DataSettings, SearchSettings, TrainSettings, one_of
from nni_darts.recipes.text import TEXT_NAMES, TextSearchSettings, TextSettings, TextTrainSettings

__all__ = ['RUN', 'Recipe', 'TextRecipe', 'with_split']

RUN = 'run.json'
"""The file in an output folder that describes the run, including its recipe."""


def _space_tag(value: Any) -> str:
    """Returns the name of the space's class, which tells pydantic's discriminated union how to parse it."""
    name = value.get('name', 'darts') if isinstance(value, Mapping) else getattr(value, 'name', 'darts')
    try:
        return space_kind(name).__name__
    except (ValueError, TypeError):
        return CellSpace.__name__  # this class refuses the name


ImageSpace = Annotated[
    Annotated[CellSpace, Tag('CellSpace')] | Annotated[NasBench201Space, Tag('NasBench201Space')] | Annotated[OwnSpace, Tag('OwnSpace')],
    Discriminator(_space_tag),
]


class Recipe(Section):
    """All settings of one experiment. Build it with :meth:`load` or :meth:`from_dict`, which return a :class:`TextRecipe` for text.

    ``accelerator`` and ``precision`` are passed to Lightning's Trainer: ``auto`` uses a GPU if there is one; ``16-mixed`` is float16 with
    loss scaling. With ``devices`` above 1, the same number of processes share every batch, each on a GPU of its own or all on the CPU
    (:mod:`nni_darts.parallel`). A checkpoint is written after each epoch, and within epochs after every ``checkpoint_steps`` steps.
    ``logger`` also records measurements for another program, such as TensorBoard.

    The ``metric`` chooses cells on validation images and tests them: ``accuracy``, ``balanced_accuracy`` (the mean recall of the
    classes), ``auroc`` (the mean area under the ROC curves of each class against all others) or ``f1`` (the mean F1 of the classes).
    Accuracy is always measured, too. Strategies that score batches during a search (``+pt``, ``enas``, ``random-ws``) use accuracy if it
    is the metric, and otherwise the loss, because the other metrics mean little on a single batch; their ``criterion`` overrides this.

    A ``budget`` takes precedence over ``search.epochs``, ``search.random_samples`` and evolution's ``cells``: it determines the length of
    a search and the number of cells to train.

    ``limits`` are the largest costs of the network to retrain; every strategy finds a cell within them. ``latency`` says where the
    latencies of operations come from; by default they are measured with torch if a limit or a penalty needs them.
    """

    task: ClassVar[str] = 'images'

    name: str = 'unnamed'
    data: DataSettings
    space: ImageSpace
    search: SearchSettings
    retrain: TrainSettings
    select: TrainSettings
    metric: one_of(*IMAGE_METRICS) = ACCURACY  # type: ignore[valid-type]
    budget: BudgetSettings | None = None
    limits: LimitSettings | None = None
    latency: LatencySettings | None = None
    accelerator: Literal['auto', 'cpu', 'gpu', 'mps'] = 'auto'
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal['32-true', 'bf16-mixed', '16-mixed', '64-true'] = '32-true'
    checkpoint_steps: Positive = 500
    logger: Literal['tensorboard', 'csv', 'wandb', 'mlflow'] | None = None

    def keeps_best(self, stage: str) -> bool:
        """Returns whether ``select`` or ``retrain`` keeps the weights of the epoch with the best validation metric."""
        settings = getattr(self, stage)
        return settings.keep == 'best' or (settings.keep is None and stage == 'retrain' and settings.validation_portion > 0)

    @model_validator(mode='after')
    def _selectable(self) -> Recipe:
        if not self.select.validation_portion:
            raise ValueError('select.validation_portion must be above 0: the best cell is picked by validation')
        self._check_devices('batch_size')
        self._check_halving()
        for stage in ('retrain', 'select'):
            self.space.check_training(stage, getattr(self, stage))
        if self.latency is not None and not isinstance(self.space, CellSpace):
            raise ValueError(f'{_LATENCY_OF_CELLS}, and not those of {self.space.name}')
        return self

    def _check_halving(self) -> None:
        """Checks that only ``select`` has successive halving, with at least two rungs, and that nothing else ends its trainings early."""
        halving = self.select.halving
        if self.retrain.halving is not None:
            raise ValueError('halving is for the short training of many cells, so it belongs into select, not into retrain')
        if halving is not None and halving.min_epochs >= self.select.epochs:
            raise ValueError(f'select.halving.min_epochs is {halving.min_epochs}; it must be below select.epochs, {self.select.epochs}')
        if halving is not None and self.select.patience is not None:
            raise ValueError('select.halving and select.patience both end short trainings early; leave one of them out')

    def _check_devices(self, *sizes: str) -> None:
        """Checks that devices share batches equally, with at least two samples each, which batch norm needs."""
        if self.devices > 1 and self.accelerator == 'mps':
            raise ValueError(f'devices is {self.devices}, but accelerator mps has one; it must be cpu, gpu or auto')
        for name in ('search', 'retrain', 'select'):
            for size in sizes:
                value = getattr(getattr(self, name), size)
                if self.devices > 1 and (value % self.devices or value < 2 * self.devices):
                    raise ValueError(
                        f'{name}.{size} is the total over all devices: with devices: {self.devices} it must be a multiple of '
                        f'{self.devices} from {2 * self.devices}, not {value}'
                    )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = 'recipe') -> Recipe:
        """Validates plain data. Raises InputError with one sentence that names the wrong key and the allowed values."""
        if not isinstance(values, Mapping):
            raise InputError(f'{source}: a recipe is a mapping with the sections data, space, search and retrain')
        values = dict(values)
        if isinstance(values.get('retrain'), Mapping):
            select = values.get('select') or {}
            if not isinstance(select, Mapping):
                raise InputError(f'{source}: select must be a mapping, not {select!r}')
            kept = {key: value for key, value in values['retrain'].items() if key not in _OF_RETRAIN}
            values['select'] = {**kept, **select}
        if values.get('latency') is None and _needs_latency(values):
            values['latency'] = {'measured': 'torch'}
        space = values.get('space')
        try:
            task = space_kind(space['name']).task if isinstance(space, Mapping) and 'name' in space else Recipe.task
        except (ValueError, TypeError) as error:
            raise InputError(f'{source}: space.name: {error}') from None
        kind = TextRecipe if task == TextRecipe.task or _names(values, 'data') in TEXT_NAMES else Recipe
        try:
            recipe = kind(**{str(key): value for key, value in values.items()})
            recipe.to_dict()  # fail now, and not when the first result is written
        except ValidationError as error:
            raise InputError(f'{source}: {error_sentence(error, kind)}') from None
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
        text, source = read_recipe(str(name))
        values = load_yaml(text, source)
        if not isinstance(values, dict):
            raise InputError(f'{source}: a recipe is a mapping with the sections data, space, search and retrain')
        values.setdefault('name', Path(str(name)).stem)
        pairs = list(override_pairs(overrides))
        _make_room(values, pairs)
        for key, value in pairs:
            assign(values, key, value)
        _find_table(values, Path(str(name)).parent)
        return cls.from_dict(values, source=source)

    @classmethod
    def of_run(cls, values: Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = (), *, source: str = 'recipe') -> Recipe:
        """Reads the recipe that a run recorded, and applies overrides.

        A run from before ``data.split`` existed keeps its random split. Otherwise the test would include images of its training.

        Args:
            values: plain data as :meth:`to_dict` returned it, in this version or an earlier one.
            overrides: as for :meth:`load`.
            source: origin of the values, for messages.

        Raises:
            InputError: as for :meth:`load`.
        """
        values, pairs = with_split(values), list(override_pairs(overrides))
        _make_room(values, pairs)
        for key, value in pairs:
            assign(values, key, value)
        return cls.from_dict(values, source=source)

    @classmethod
    def of_folder(cls, folder: Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe | None:
        """Reads the recipe of the run in an output folder; returns None if the folder holds no run.

        Raises:
            InputError: if the file is damaged, or for wrong overrides as in :meth:`load`.
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

    def changed(self, overrides: Iterable[str] | Mapping[str, Any], *, source: str) -> Recipe:
        """Returns a copy of the recipe with overrides applied. Arguments and errors as for :meth:`of_run`."""
        return type(self).of_run(self.to_dict(), overrides, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain data, which :meth:`from_dict` reads."""
        return self.model_dump(mode='json')

    def with_kept_table(self, values: Mapping[str, Any]) -> Self:
        """Returns the recipe with the table of latencies of a run, if that run measured it by the settings of this recipe.

        Args:
            values: recipe of the run as plain data.
        """
        kept, own = values.get('latency'), self.latency
        if own is None or own.measured is None or own.table is not None or not isinstance(kept, Mapping) or not kept.get('table'):
            return self
        if any(kept.get(name) != getattr(own, name) for name in ('measured', 'threads', 'batch')):
            return self
        return self.model_copy(update={'latency': LatencySettings(**kept)})

    def with_epochs(self, stage: str, epochs: int) -> Self:
        """Returns a copy of the recipe with another number of epochs in a stage: ``search``, ``select`` or ``retrain``."""
        return self.model_copy(update={stage: getattr(self, stage).model_copy(update={'epochs': epochs})})

    def random_cells(self, seed: int, count: int | None = None) -> list[AnyGenotype]:
        """Returns the first ``count`` cells that random search trains under this seed; all of them if ``count`` is None."""
        rng = random.Random(seed)
        return [self.space.random_cell(rng) for _ in range(self.search.random_samples if count is None else count)]


class TextRecipe(Recipe):
    """All settings of one experiment on text."""

    task: ClassVar[str] = 'text'

    data: TextSettings  # type: ignore[assignment]
    space: RecurrentSpace  # type: ignore[assignment]
    search: TextSearchSettings  # type: ignore[assignment]
    retrain: TextTrainSettings  # type: ignore[assignment]
    select: TextTrainSettings  # type: ignore[assignment]
    metric: one_of(PERPLEXITY) = PERPLEXITY  # type: ignore[valid-type]

    def keeps_best(self, stage: str) -> bool:
        """Returns whether a training keeps the weights of the epoch with the best validation metric."""
        return getattr(self, stage).keep != 'last'

    @model_validator(mode='after')
    def _selectable(self) -> TextRecipe:
        self._check_devices('batch_size', 'evaluation_batch_size')
        self._check_halving()
        if self.latency is not None:
            raise ValueError(f'{_LATENCY_OF_CELLS}, and not those for text')
        return self  # text recipes always have validation data


_LATENCY_OF_CELLS = (
    'latency_ms is predicted for networks of image cells, in which latencies of operations add up (the spaces darts, s1 to s5, nasbench201)'
)

_OF_RETRAIN = ('keep', 'patience', 'halving')
"""Settings of ``retrain`` that ``select`` does not inherit: all trainings that it compares must have the same length."""


def with_split(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a recipe's plain data that names the rule of the split: ``random`` for older image recipes without one."""
    copied = copy.deepcopy(dict(values)) if isinstance(values, Mapping) else {}
    data = copied.get('data')
    if isinstance(data, dict) and data.get('name') not in TEXT_NAMES:
        data.setdefault('split', 'random')
    return copied


def _make_room(values: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> None:
    """Removes settings from a recipe's values that overrides make void: an older table of latencies, and sizes of cells if another space
    replaces the cells."""
    if any(key.partition('.')[0] == 'latency' for key, _ in pairs) and isinstance(values.get('latency'), dict):
        # A table belongs to the settings that it was measured with.
        values['latency'].pop('table', None)
        if any(key == 'latency.table' for key, _ in pairs):
            values['latency'] = {}
    given: dict[str, Any] = {}
    for key, value in pairs:
        if key == 'space':
            given = {'space.name': _names({key: value}, key)}
        elif key == 'space.name':
            given[key] = value
    if not _is_own(given.get('space.name')) or _is_own(_names(values, 'space')):
        return
    values['space'] = {}
    for section in ('retrain', 'select'):
        for key in ('channels', 'cells', 'auxiliary_weight', 'drop_path'):
            if isinstance(values.get(section), dict):
                values[section].pop(key, None)


def _find_table(values: Mapping[str, Any], folder: Path) -> None:
    """Names a file of latencies that lies beside the recipe, and not in the current folder, by its path."""
    latency = values.get('latency')
    table = latency.get('table') if isinstance(latency, dict) else None
    if isinstance(table, str) and not Path(table).exists() and (folder / table).is_file():
        latency['table'] = str(folder / table)  # type: ignore[index]


def _needs_latency(values: Mapping[str, Any]) -> bool:
    """Returns whether plain data that has not been validated has a limit or a penalty on the latency."""
    search = values.get('search')
    costs = values.get('limits'), search.get('penalty') if isinstance(search, Mapping) else None
    return any(isinstance(given, Mapping) and given.get(LATENCY) is not None for given in costs)


def _is_own(name: Any) -> bool:
    """Returns whether a name, which has not been validated, is that of a user's space."""
    try:
        return isinstance(name, str) and space_kind(name) is OwnSpace
    except ValueError:
        return False


def _names(values: Mapping[str, Any], section: str) -> Any:
    """Returns the ``name`` in a section of plain data that has not been validated."""
    given = values.get(section)
    return given.get('name') if isinstance(given, Mapping) else None
