"""Predicts how long a search or a training takes from a few of its real steps, and how many epochs fit into a given time."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_darts.activity import Activity, watched
from nni_darts.strategies.costs import EVALUATION

if TYPE_CHECKING:
    from nni_darts.genotypes import AnyGenotype
    from nni_darts.recipes import Recipe

__all__ = ['Pace', 'affordable', 'pace_of_search', 'pace_of_training', 'search_seconds', 'take_fastest_threads', 'training_seconds']

EPOCH_SECONDS = 0.3
"""Seconds at the end of each epoch for its checkpoint, its line of metrics.jsonl and its pages."""

SKIPPED, LEAST_STEPS, MOST_STEPS, LEAST_SECONDS = 2, 3, 30, 1.0
"""The first ``SKIPPED`` steps allocate memory and choose executors, so they are not timed. Timing ends after ``MOST_STEPS`` steps, or once
it has taken ``LEAST_STEPS`` steps and ``LEAST_SECONDS`` seconds."""


@dataclass(frozen=True)
class Pace:
    """The pace of a run, measured in a few real steps.

    Attributes:
        start: seconds until the first step, for reading data and building networks and kernels.
        step: median seconds of a training step; in a search, of a step of α (if it moves) and a step of the weights.
        peak_mib: peak memory so far, in MiB.

    Example:
        ``Pace(start=2.0, step=0.1, peak_mib=900)``
    """

    start: float
    step: float
    peak_mib: int


class _Timed(Exception):
    """Raised to end a run when enough steps have been timed."""


class _Stopwatch:
    """Records when training steps end, and ends the run after enough steps."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.ends: list[float] = []

    def __call__(self, activity: Activity) -> None:
        if activity.what != 'training' or not activity.done:
            return
        self.ends.append(time.monotonic())
        timed = len(self.ends) - 1 - SKIPPED
        if timed >= MOST_STEPS or (timed >= LEAST_STEPS and self.ends[-1] - self.ends[SKIPPED] >= LEAST_SECONDS):
            raise _Timed

    @property
    def pace(self) -> Pace:
        """Returns the pace of the recorded steps. If the epoch was shorter than the skipped steps, all steps count."""
        from nni_darts.training.run import peak_memory_mib

        ends = self.ends[SKIPPED:] if len(self.ends) > SKIPPED + 1 else self.ends
        steps = [after - before for before, after in zip(ends, ends[1:])] or [self.ends[0] - self.begun]
        return Pace(self.ends[0] - self.begun, statistics.median(steps), peak_memory_mib())


def _timed(run: Callable[[Path], Any]) -> Pace:
    """Times the steps of a run in a temporary folder."""
    stopwatch = _Stopwatch()
    with tempfile.TemporaryDirectory(prefix='nni-darts-') as folder, watched(stopwatch):
        try:
            run(Path(folder) / 'run')
        except _Timed:
            pass
    return stopwatch.pace


def pace_of_search(recipe: Recipe, strategy: str, seed: int = 1) -> Pace:
    """Times the first steps of a search in a temporary folder.

    Args:
        recipe: all settings.
        strategy: a name that :func:`nni_darts.strategies.find` knows.
        seed: seed of all random numbers.

    Raises:
        InputError: as :meth:`nni_darts.runs.run.Run.execute`.
    """
    from nni_darts.runs.run import Run
    from nni_darts.runs.spec import RunSpec

    return _timed(lambda folder: Run(RunSpec.search(recipe, strategy, seed), folder).execute())


def pace_of_training(recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int = 1) -> Pace:
    """Times the first steps of training a network from scratch. Arguments and errors as for :meth:`nni_darts.runs.run.Run.execute`."""
    from nni_darts.runs.run import Run
    from nni_darts.runs.spec import RunSpec

    return _timed(lambda folder: Run(RunSpec.training(recipe, stage, genotype, seed), folder).execute())


def search_seconds(recipe: Recipe, strategy: str, pace: Pace, data: Any) -> float:
    """Predicts how long a search takes, including the epochs of its selection.

    Args:
        recipe: all settings.
        strategy: a name that :func:`nni_darts.strategies.find` knows.
        pace: pace of the search, or of the short training of a cell if the strategy trains cells one by one.
        data: as ``task_of(recipe).load(recipe)`` returns it.
    """
    from nni_darts.runs.cells import number_of_cells
    from nni_darts.runs.costs import cost_of_search
    from nni_darts.runs.tasks import task_of
    from nni_darts.strategies.registry import find

    if find(strategy).one_by_one:
        return number_of_cells(recipe, strategy) * training_seconds(recipe, 'select', pace, data)
    cost = cost_of_search(recipe, strategy, data)
    # A step processes one batch of the weights' part of the data, as many times as it has passes.
    batches = task_of(recipe).batches(recipe, data)
    of_a_pass = pace.step * batches / cost.passes_of_first_epoch
    return pace.start + of_a_pass * (cost.passes + EVALUATION * cost.validated) + EPOCH_SECONDS * cost.epochs


def training_seconds(recipe: Recipe, stage: str, pace: Pace, data: Any) -> float:
    """Predicts how long it takes to train a network from scratch, with validation and, after ``retrain``, the test.

    Args:
        recipe: all settings.
        stage: ``select`` or ``retrain``.
        pace: pace of this training.
        data: as ``task_of(recipe).load(recipe)`` returns it.
    """
    from nni_darts.runs.tasks import task_of

    weights, validated, tested = task_of(recipe).batches_of_training(recipe, stage, data)
    epoch = pace.step * (weights + EVALUATION * validated) + EPOCH_SECONDS
    return pace.start + getattr(recipe, stage).epochs * epoch + EVALUATION * pace.step * tested


def affordable(seconds: float, cost: Callable[[int], float], bounds: tuple[int, int]) -> int | None:
    """Returns the most epochs whose cost is within a time; None if even the fewest take longer.

    Args:
        seconds: the time in seconds.
        cost: epochs → seconds; it must not decrease.
        bounds: fewest and most epochs.
    """
    low, high = bounds
    if cost(low) > seconds:
        return None
    while low < high:
        middle = math.ceil((low + high) / 2)
        low, high = (middle, high) if cost(middle) <= seconds else (low, middle - 1)
    return low


def take_fastest_threads(recipe: Recipe, strategy: str, seed: int) -> None:
    """Uses one thread from now on if that is faster: on a busy machine, threads wait for each other in every small operation.

    Arguments as for :func:`pace_of_search`.
    """
    import torch

    paces = {}
    for threads in {torch.get_num_threads(), 1}:
        torch.set_num_threads(threads)
        paces[threads] = pace_of_search(recipe, strategy, seed).step
    torch.set_num_threads(min(paces, key=lambda threads: paces[threads]))
