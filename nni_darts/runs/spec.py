"""The description of a run, its callbacks, and the state that its parts share once it has begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nni_darts.genotypes import AnyGenotype, genotype_from_dict
from nni_darts.recipes import Recipe
from nni_darts.runs.deadline import PLAN, TimePlan
from nni_darts.runs.folder import CONTINUES, FROM, PART, SUPERNET, identity
from nni_darts.runs.start import Start
from nni_darts.runs.tasks import task_of

__all__ = ['Outcome', 'RunSpec', 'Watch', 'Work']


@dataclass(frozen=True)
class RunSpec:
    """The description of a run. It is the content of run.json, the job of a trial, and the order for a worker.

    Attributes:
        stage: ``search``, ``select`` or ``retrain``.
        recipe: all settings.
        seed: seed of all random numbers except the split of the data.
        strategy: name of the strategy of a search; empty for a training.
        genotype: architecture to train; None for a search.
        weights: output folder of a finished training of the same architecture. Training starts from its weights as far as their shapes
            fit; None starts from scratch.
        supernet: output folder of a finished search with the same settings, from whose supernet a search continues with another
            selection; None starts from scratch.
        part: numbers of epochs before and after a part of a training, whose other epochs are trained in other folders; None for a whole
            training. The learning rate follows the schedule of the whole training.
        continues: name of the folder beside this run's folder with the part that this part continues; empty for the first part.
        plan: time limit of the run, and the number of epochs or cells planned for it; None for no limit, or, if the run is resumed, for
            the plan with which it began.

    Example:
        ``RunSpec.search(Recipe.load('digits'), 'darts-2nd', seed=1)``
    """

    stage: str
    recipe: Recipe
    seed: int
    strategy: str = ''
    genotype: AnyGenotype | None = None
    weights: Path | None = None
    supernet: Path | None = None
    part: tuple[int, int] | None = None
    continues: str = ''
    plan: TimePlan | None = None

    @classmethod
    def search(cls, recipe: Recipe, strategy: str, seed: int, plan: TimePlan | None = None) -> RunSpec:
        """Describes a search."""
        return cls('search', recipe, seed, strategy=strategy, plan=plan)

    @classmethod
    def training(cls, recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int, **more: Any) -> RunSpec:
        """Describes a training in the stage ``select`` or ``retrain``; ``more`` may hold ``weights``, ``part``, ``continues``, ``plan``."""
        return cls(stage, recipe, seed, genotype=genotype, **more)

    @property
    def architecture(self) -> AnyGenotype:
        """The genotype of a training. Raises ValueError for a search, which has no genotype yet."""
        if self.genotype is None:
            raise ValueError('a search has no architecture yet')
        return self.genotype

    def identity(self) -> dict[str, Any]:
        """Returns the entries of ``run.json`` besides the recipe, as plain data."""
        what = identity(self.stage, self.seed, strategy=self.strategy, genotype=self.genotype, weights=self.weights)
        begun = {} if self.supernet is None else {SUPERNET: str(self.supernet)}
        planned = {} if self.plan is None else {PLAN: self.plan.to_dict()}
        if self.part is not None:
            begun[PART] = list(self.part)  # type: ignore[assignment]
        if self.continues:
            begun[CONTINUES] = self.continues
        return {**what, **begun, **planned}

    def to_dict(self) -> dict[str, Any]:
        """Returns the description as plain data, which :meth:`from_dict` reads."""
        return {**self.identity(), 'recipe': self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Reads the data of :meth:`to_dict`.

        Raises:
            InputError: for an invalid recipe.
            ValueError: for an invalid genotype.
        """
        return cls(
            values['stage'],
            Recipe.from_dict(values['recipe']),
            values['seed'],
            strategy=values.get('strategy', ''),
            genotype=genotype_from_dict(values['genotype']) if 'genotype' in values else None,
            weights=Path(values[FROM]) if FROM in values else None,
            supernet=Path(values[SUPERNET]) if SUPERNET in values else None,
            part=tuple(values[PART]) if PART in values else None,
            continues=values.get(CONTINUES, ''),
            plan=TimePlan(**values[PLAN]) if PLAN in values else None,
        )


def _silent(*_: Any) -> None:
    """Ignores its arguments."""


@dataclass(frozen=True)
class Watch:
    """The callbacks of a run, which serve progress bars, pages and reports to NNI.

    Attributes:
        on_start: called before training with one line about recipe, data, classes and sizes, and with a list of warnings.
        on_epoch: called with the measurements of each epoch, which are a line of ``metrics.jsonl``.
        on_decision: called with each decision of a selection during or after the search, which is a line of ``selection.jsonl``.

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
        genotype: the architecture that a search found or a training trained.
        result: measurements, as under ``result`` in ``result.json``.
    """

    genotype: AnyGenotype
    result: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The state of a run that has begun, which its parts share.

    Attributes:
        spec: the description of the run.
        recipe: the recipe with the number of epochs or cells that time and budget allow.
        output: folder for results and checkpoint.
        data: the data set that ``task_of(recipe).load(recipe)`` returns.
        resume: whether the run continues from the checkpoint in ``output``, if there is one.
        watch: callbacks of the run; workers have none.
        start: weights from which a training starts; None starts from scratch.
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
        """The task of the recipe, for images or for text."""
        return task_of(self.recipe)

    def order(self) -> dict[str, Any]:
        """Returns the order for a worker as plain data, which :meth:`from_order` reads."""
        return {
            'spec': replace(self.spec, recipe=self.recipe).to_dict(),
            'output': str(self.output),
            'resume': self.resume,
            'start': None if self.start is None else self.start.to_dict(),
        }

    @classmethod
    def from_order(cls, order: Mapping[str, Any]) -> Work:
        """Reads the data of :meth:`order` and loads the data set."""
        spec = RunSpec.from_dict(order['spec'])
        start = None if order['start'] is None else Start.from_dict(order['start'])
        return cls(spec, spec.recipe, Path(order['output']), task_of(spec.recipe).load(spec.recipe), order['resume'], start=start)
