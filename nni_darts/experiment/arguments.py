"""The tuner's arguments, ``classArgs`` in an experiment's file. The tuner and ``nni-darts check`` share these checks. Imports no NNI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.checks import check_strategies
from nni_darts.runs.durations import parse_duration
from nni_darts.runs.planning import check_no_budget
from nni_darts.strategies.settings import Settings, setting

__all__ = [
    'BEST',
    'EACH_SEED',
    'NOT_BY_HAND',
    'NO_ASSESSOR',
    'TIME',
    'TIME_BESIDE_SETTINGS',
    'TIME_ELSEWHERE',
    'SHARE_ELSEWHERE',
    'TunerArguments',
    'is_local',
    'unsendable',
]

NO_ASSESSOR = (
    'leave assessor out: it would compare searches with trainings of other lengths, and their metrics are not comparable; '
    'to end searches early, set early_stopping in search.settings'
)
"""The message that refuses an experiment with an assessor."""
NOT_BY_HAND = 'NNI starts nni-darts trial for each trial; to run a stage by hand, use nni-darts search or nni-darts retrain'

TIME = 'classArgs.time'
TIME_BESIDE_SETTINGS = f'{TIME} gives all strategies the same epochs, so searchSpace may only have strategy and seed'

TIME_ELSEWHERE = f'{TIME} times steps on this machine, so it needs trainingService local; leave it out for other training services'

TIME_BESIDE_HALVING = f'{TIME} plans short trainings of one length, and select.halving gives them several; leave one of them out'

HALVING_ELSEWHERE = (
    'select.halving continues a short training in the files of another trial, so it needs trainingService local; '
    'leave it out for other training services'
)

SHARE_ELSEWHERE = (
    'classArgs.share_search continues a search in the files of another trial, so it needs trainingService local; '
    'leave it out for other training services'
)

BEST, EACH_SEED = 'best', 'each_seed'
"""Values of ``retrain``: which cells are trained from scratch."""

Whole = Annotated[int, Field(ge=1)]
WholeFromZero = Annotated[int, Field(ge=0)]


class TunerArguments(Settings):
    """The tuner's arguments. Building the object checks types and ranges; :meth:`load` checks everything else.

    Example:
        >>> TunerArguments(recipe='digits', retrain_runs=2).load().name
        'digits'
    """

    recipe: str = setting('digits', 'name or path of a recipe')
    set: Any = setting((), 'changes of single settings, such as {search.epochs: 5}')
    retrain_runs: Whole = setting(1, 'how many times the best cell of each strategy is trained from scratch')
    retrain: Literal['best', 'each_seed'] = setting(
        BEST, 'which cells are trained from scratch: the best cell of each strategy (best), or of each strategy and seed (each_seed)'
    )
    max_retries: WholeFromZero = setting(2, 'how many times a trial that ended without a result is restarted; a trial that diverged is not')
    gpus: WholeFromZero | None = setting(
        None, 'number of GPUs that a trial takes if the machine has any: as many as the recipe has devices, or 0 for none'
    )
    trials_per_gpu: Whole = setting(1, 'number of trials that share a GPU')
    stall_minutes: Annotated[float, Field(gt=0, lt=1e5)] = setting(
        30, 'minutes without progress after which a trial ends itself and is restarted', allowed='a number of minutes above 0'
    )
    time: str | None = setting(
        None, 'time for the whole experiment, such as 2h: a few steps are timed, then all stages get the epochs that fit'
    )
    share_search: bool = setting(
        False, 'whether a strategy such as darts-1st+pt continues from the supernets of darts-1st instead of searching for itself'
    )
    optimize_mode: Any = setting(None, "which values NNI's page shows as better: maximize, or minimize for perplexity")

    @field_validator('set')
    @classmethod
    def _overrides(cls, value: Any) -> Any:
        if not isinstance(value, (Mapping, list, tuple)):
            raise ValueError(f'set must be a mapping such as {{search.epochs: 5}}, not {value!r}')
        return value

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> TunerArguments:
        """Builds the arguments from ``classArgs``.

        Raises:
            InputError: for an unknown key, a wrong type or a value outside its range.
        """
        try:
            return cls(**given)
        except ValueError as error:
            raise InputError(f'classArgs.{error}') from None

    @property
    def seconds(self) -> float | None:
        """The time for the whole experiment, in seconds; None for no limit. Raises InputError if ``time`` is not a duration."""
        return None if self.time is None else parse_duration(self.time, TIME)

    def load(self) -> Recipe:
        """Loads the recipe and checks the settings of its strategies.

        Raises:
            InputError: for an unknown recipe, key or setting, an impossible value, or arguments that do not fit the recipe.
        """
        if self.retrain == EACH_SEED and self.retrain_runs != 1:
            raise InputError(
                f'classArgs.retrain: {EACH_SEED} trains the best cell of each seed once, so leave out retrain_runs: {self.retrain_runs}'
            )
        recipe = Recipe.load(self.recipe, self.set)
        check_strategies(recipe, ())
        if self.gpus not in (None, 0, recipe.devices):
            raise InputError(
                f'classArgs.gpus must be 0 or {recipe.devices}, not {self.gpus}: a trial uses as many GPUs as the recipe has devices'
            )
        if recipe.accelerator == 'gpu' and self.gpus == 0:
            raise InputError('classArgs.gpus is 0, but the recipe has accelerator: gpu')
        metric = recipe.metric
        if (self.optimize_mode or 'maximize') != metric.optimize_mode:
            raise InputError(
                f'classArgs.optimize_mode must be {metric.optimize_mode}, not {self.optimize_mode!r}: the metric of {recipe.name} '
                f"is {metric.name}, and NNI's page would show the worst trials as the best"
            )
        if self.seconds is not None:
            check_no_budget(recipe, TIME)
        found = unsendable(recipe.to_dict())
        if found is not None:
            raise InputError(f"the recipe contains {found!r}: NNI cannot carry text with '#' or '//' to its trials")
        return recipe


def is_local(service: Any) -> bool:
    """Returns whether trials run on the manager's machine.

    Args:
        service: ``trainingService`` of an experiment.
    """
    return isinstance(service, Mapping) and service.get('platform') == 'local'


def unsendable(value: Any) -> str | None:
    """Returns the first string in plain data that NNI cannot transmit (its JSON parser drops messages with ``#`` or ``//``), or None."""
    if isinstance(value, str):
        return value if '#' in value or '//' in value else None
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, Sequence):
        return next((found for found in map(unsendable, value) if found is not None), None)
    return None
