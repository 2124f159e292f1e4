"""A time limit for a run: the epochs or cells that fit into it, and its end. Imports no torch."""

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
"""The key in ``run.json`` of the plan of a run with a time limit."""

MARGIN = 0.9
"""The fraction of a time limit that is planned for; the remainder is a reserve for a machine that becomes slower."""


class Deadline:
    """The end of the time limit of a run. Time during which the run was interrupted does not count.

    Args:
        seconds: the time limit in seconds.
        spent: seconds of it that have passed.

    Example:
        >>> Deadline(60, spent=20).left() <= 40
        True
    """

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._started = time.monotonic() - spent

    def left(self) -> float:
        """Returns the seconds until the end; negative after it."""
        return self.seconds - (time.monotonic() - self._started)

    def allows(self, seconds: float) -> bool:
        """Returns whether ``seconds`` more seconds fit."""
        return seconds <= self.left()


@dataclass(frozen=True)
class TimePlan:
    """The number of epochs or cells that fit into a time limit. A resumed run keeps the plan that it started with.

    Attributes:
        time: time limit of the run, in seconds.
        count: number of epochs, or of cells if cells are trained one by one.
        of: number of epochs or cells in the recipe.
        seconds: expected seconds of the whole run.
        tail: the part of these seconds that follows the last epoch of a search, for its selection.
        begun: start of the run in this process, in seconds since the epoch; it is not saved with the plan.

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
        """Returns plain data from which a resumed run restores its plan."""
        return {name: round(getattr(self, name), 2) for name in ('time', 'count', 'of', 'seconds', 'tail')}

    def applied(self, recipe: Recipe, stage: str, strategy: str = '') -> Recipe:
        """Returns the recipe with the planned number of epochs or cells.

        Args:
            recipe: all settings.
            stage: ``search``, ``select`` or ``retrain``.
            strategy: name of the strategy, for a search.
        """
        if stage == 'search' and find(strategy).one_by_one:
            return with_cells(recipe, strategy, self.count)
        return recipe.with_epochs(stage, self.count)

    def deadline(self, before: float) -> Deadline:
        """Returns the deadline for this process.

        Args:
            before: seconds for which the run worked before it was resumed.
        """
        return Deadline(self.time, before + time.time() - self.begun)


@dataclass(frozen=True)
class TimeLimit:
    """The time limit of a run, if it has one, from now on.

    Attributes:
        output: output folder of the run.
        resume: whether the run is resumed.
        seconds: the time limit in seconds; None for no limit.
        begun: start of the run in this process, in seconds since the epoch.

    Example:
        ``TimeLimit(Path('out/search'), resume=False, seconds=600)``
    """

    output: Path
    resume: bool
    seconds: float | None = None
    begun: float = field(default_factory=time.time)

    def kept(self) -> TimePlan | None:
        """Returns the plan of a resumed run; None if it had no time limit, or there is no run.

        Raises:
            InputError: if the run had another time limit.
        """
        if not self.resume or not (self.output / RUN).is_file() or (self.output / RESULT).is_file():
            return None
        kept = read_json(self.output / RUN).get(PLAN)
        if kept is None:
            return None
        plan = TimePlan(**kept, begun=self.begun)
        if self.seconds is not None and self.seconds != plan.time:
            raise InputError(
                f'{self.output} holds a run with a time limit of {duration(plan.time)}; a resumed run keeps its plan, so leave out --time.'
            )
        return plan

    def plan(self, new: Callable[[float, float], TimePlan]) -> TimePlan | None:
        """Returns the saved plan, or else a new one; None without a limit, or if the run is finished.

        Args:
            new: makes a plan from ``seconds`` and ``begun``; called only if a plan is needed.
        """
        plan = self.kept()
        finished = self.resume and (self.output / RESULT).is_file()
        return plan if plan is not None or self.seconds is None or finished else new(self.seconds, self.begun)
