"""A limit of time for one run: what it leaves room for, and when it is over. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.recipes import RUN, Recipe
from nni_darts.report.lines import duration
from nni_darts.runs.cells import with_cells
from nni_darts.runs.folder import RESULT, read_json
from nni_darts.strategies.registry import find

__all__ = ['MARGIN', 'PLAN', 'Deadline', 'TimeLimit', 'TimePlan']

PLAN = 'plan'
"""In ``run.json``: the plan of a run that was given a time."""

MARGIN = 0.9
"""The part of a time that is planned for; the rest is for a machine that gets slower."""


class Deadline:
    """The end of the time that a run may take. Time in which the run was interrupted does not count.

    Args:
        seconds: the whole time.
        spent: seconds of it that are over.

    Example:
        >>> Deadline(60, spent=20).left() <= 40
        True
    """

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._started = time.monotonic() - spent

    def left(self) -> float:
        """Seconds until the end; below 0 after it."""
        return self.seconds - (time.monotonic() - self._started)

    def allows(self, seconds: float) -> bool:
        """Returns whether ``seconds`` more seconds fit."""
        return seconds <= self.left()


@dataclass(frozen=True)
class TimePlan:
    """The number of epochs or cells that fit into a time limit. A resumed run keeps the plan that it started with.

    Attributes:
        time: seconds that the run may take.
        count: epochs; or cells, where cells are trained one by one.
        of: how many the recipe asks for.
        seconds: how long the run is expected to take in all.
        tail: seconds of these that follow the last epoch of a search: its selection.
        begun: when this process began with the run, in seconds since the epoch; it is not part of the plan that is kept.

    Example:
        >>> str(TimePlan(time=600, count=6, of=8, seconds=540, tail=0))
        'planned: 6 of 8, about 9 min of 10 min'
    """

    time: float
    count: int
    of: int
    seconds: float
    tail: float = 0.0
    begun: float = field(default_factory=time.time, compare=False)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f'planned: {self.count} of {self.of}, about {duration(self.seconds)} of {duration(self.time)}'

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which a resumed run makes its plan."""
        return {name: round(getattr(self, name), 2) for name in ('time', 'count', 'of', 'seconds', 'tail')}

    def applied(self, recipe: Recipe, stage: str, strategy: str = '') -> Recipe:
        """The recipe with as many epochs or cells as are planned.

        Args:
            stage: ``search``, ``select`` or ``retrain``.
            strategy: of a search.
        """
        if stage == 'search' and find(strategy).one_by_one:
            return with_cells(recipe, strategy, self.count)
        return recipe.with_epochs(stage, self.count)

    def deadline(self, before: float) -> Deadline:
        """The end of the time for this process.

        Args:
            before: seconds that the run worked before it was resumed.
        """
        return Deadline(self.time, before + time.time() - self.begun)


@dataclass(frozen=True)
class TimeLimit:
    """The time that a run is given, from now on, if it is given one.

    Attributes:
        output: folder of the run.
        resume: whether a run is continued.
        seconds: the whole time; None for no limit.
        begun: when the run began in this process, in seconds since the epoch.

    Example:
        ``TimeLimit(Path('out/search'), resume=False, seconds=600)``
    """

    output: Path
    resume: bool
    seconds: float | None = None
    begun: float = field(default_factory=time.time)

    def kept(self) -> TimePlan | None:
        """The plan of a run that is resumed; None if it was given no time, or there is no run.

        Raises:
            InputError: if it was given another time.
        """
        if not self.resume or not (self.output / RUN).is_file() or (self.output / RESULT).is_file():
            return None
        kept = read_json(self.output / RUN).get(PLAN)
        if kept is None:
            return None
        plan = TimePlan(**kept, begun=self.begun)
        if self.seconds is not None and self.seconds != plan.time:
            raise InputError(
                f'{self.output} holds a run with a time of {duration(plan.time)}: a resumed run keeps its plan, so leave --time out.'
            )
        return plan

    def plan(self, new: Callable[[float, float], TimePlan]) -> TimePlan | None:
        """The plan that is kept, or else a new one; None without a limit, and for a run that is finished.

        Args:
            new: called with ``seconds`` and ``begun``, if a plan is to be made.
        """
        plan = self.kept()
        finished = self.resume and (self.output / RESULT).is_file()
        return plan if plan is not None or self.seconds is None or finished else new(self.seconds, self.begun)
