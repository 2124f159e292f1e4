"""The description of a run, the callbacks that watch it, and the state that its parts share once it has begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nni_darts.genotypes import AnyGenotype, genotype_from_dict
from nni_darts.recipes import Recipe
from nni_darts.runs.deadline import PLAN, TimePlan
from nni_darts.runs.folder import FROM, identity
from nni_darts.runs.start import Start
from nni_darts.runs.tasks import task_of

__all__ = ['Outcome', 'RunSpec', 'Watch', 'Work']


@dataclass(frozen=True)
class RunSpec:
    """The description of a run: at once the content of run.json, a trial's job and a worker's order.

    Attributes:
        stage: ``search``, ``select`` or ``retrain``.
        recipe: all settings.
        seed: of everything that is drawn but the split of the data.
        strategy: of a search, the name of its strategy.
        genotype: of a training, the architecture to train.
        weights: of a training, the output folder of a finished one of the same architecture, from whose weights it starts as far as they
            fit; None starts from scratch.
        plan: how many epochs or cells there are in a limited time, and how long that is; None for no limit, or, if the run is resumed, for
            the plan that it began with.

    Example:
        ``RunSpec.search(Recipe.load('digits'), 'darts-2nd', seed=1)``
    """

    stage: str
    recipe: Recipe
    seed: int
    strategy: str = ''
    genotype: AnyGenotype | None = None
    weights: Path | None = None
    plan: TimePlan | None = None

    @classmethod
    def search(cls, recipe: Recipe, strategy: str, seed: int, plan: TimePlan | None = None) -> RunSpec:
        """Describes a search."""
        return cls('search', recipe, seed, strategy=strategy, plan=plan)

    @classmethod
    def training(cls, recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int, **more: Any) -> RunSpec:
        """Describes a training: ``select`` or ``retrain``. ``more``: ``weights`` and ``plan``."""
        return cls(stage, recipe, seed, genotype=genotype, **more)

    @property
    def architecture(self) -> AnyGenotype:
        """The genotype of a training. Raises ValueError for a search, which has none yet."""
        if self.genotype is None:
            raise ValueError('a search has no architecture yet')
        return self.genotype

    def identity(self) -> dict[str, Any]:
        """Returns what ``run.json`` says of the run besides its recipe, as plain data."""
        what = identity(self.stage, self.seed, strategy=self.strategy, genotype=self.genotype, weights=self.weights)
        return what if self.plan is None else {**what, PLAN: self.plan.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, as :meth:`from_dict` reads it."""
        return {**self.identity(), 'recipe': self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Reads :meth:`to_dict`'s data.

        Raises:
            InputError: for a recipe that does not hold.
            ValueError: for a genotype that does not.
        """
        return cls(
            values['stage'],
            Recipe.from_dict(values['recipe']),
            values['seed'],
            strategy=values.get('strategy', ''),
            genotype=genotype_from_dict(values['genotype']) if 'genotype' in values else None,
            weights=Path(values[FROM]) if FROM in values else None,
            plan=TimePlan(**values[PLAN]) if PLAN in values else None,
        )


def _silent(*_: Any) -> None:
    """Takes no notice."""


@dataclass(frozen=True)
class Watch:
    """Callbacks of a run: progress bars, pages and reports to NNI.

    Attributes:
        on_start: called before anything is trained, with recipe, data, classes and sizes in a line, and a list of warnings.
        on_epoch: called with each epoch's measurements: a line of ``metrics.jsonl``.
        on_decision: called with each decision that a selection takes during or after the search: a line of ``selection.jsonl``.

    Example:
        ``Watch(on_epoch=print)``
    """

    on_start: Callable[[str, list[str]], None] = _silent
    on_epoch: Callable[[dict[str, Any]], None] = _silent
    on_decision: Callable[[dict[str, Any]], None] = _silent


@dataclass(frozen=True)
class Outcome:
    """The outcome of a finished run.

    Attributes:
        genotype: the architecture that was found or trained.
        result: what was measured, as ``result.json`` has it.
    """

    genotype: AnyGenotype
    result: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A run that has begun: what its parts share.

    Attributes:
        spec: the description of the run.
        recipe: the recipe with as many epochs or cells as time and budget allow.
        output: folder for results and checkpoint.
        data: as ``task_of(recipe).load(recipe)`` returns it.
        resume: whether it continues from the checkpoint there, if there is one.
        watch: its callbacks; none on the workers.
        start: where a training starts, if not from scratch.
    """

    spec: RunSpec
    recipe: Recipe
    output: Path
    data: Any
    resume: bool = False
    watch: Watch = field(default_factory=Watch)
    start: Start | None = None

    @property
    def task(self) -> Any:
        """Returns the task of the recipe, for images or for text."""
        return task_of(self.recipe)

    def order(self) -> dict[str, Any]:
        """Returns the order for a worker as plain data, as :meth:`from_order` reads it."""
        return {
            'spec': replace(self.spec, recipe=self.recipe).to_dict(),
            'output': str(self.output),
            'resume': self.resume,
            'start': None if self.start is None else self.start.to_dict(),
        }

    @classmethod
    def from_order(cls, order: Mapping[str, Any]) -> Work:
        """Reads :meth:`order`'s data and loads the data set."""
        spec = RunSpec.from_dict(order['spec'])
        start = None if order['start'] is None else Start.from_dict(order['start'])
        return cls(spec, spec.recipe, Path(order['output']), task_of(spec.recipe).load(spec.recipe), order['resume'], start=start)
