"""The two ways to search: in a supernet (Liu et al., ICLR 2019, section 3), and by training cells one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything

from nni_darts import parallel
from nni_darts._nni import Lightning, ModelStatus, RawFormatModelSpace, SequentialExecutionEngine, TrainingEndEvent
from nni_darts.activity import announce
from nni_darts.errors import InputError
from nni_darts.files import METRICS, write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.base import operation_name
from nni_darts.genotypes.kinds import OwnSpace
from nni_darts.recipes import RUN, Recipe
from nni_darts.report.searches import SEARCH, search_data, write_search
from nni_darts.runs.cells import Part, number_of_cells, parts_to_train, rungs_of
from nni_darts.runs.cost_limits import heed_costs
from nni_darts.runs.costs import configured_strategy, search_passes
from nni_darts.runs.folder import BY_MAGNITUDE, EXECUTOR, STAGE, read_json, write_json
from nni_darts.runs.keeping import callbacks_in_time, resume_arguments
from nni_darts.runs.loggers import create_logger
from nni_darts.runs.ranking import ranked
from nni_darts.runs.spec import RunSpec, Work
from nni_darts.runs.weights import fitting
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.fast import ExecutorChoice, ExecutorRecord
from nni_darts.strategies.mutables.checking import check_supernet
from nni_darts.training.run import EpochLog, create_trainer, epochs_of, quiet_lightning

__all__ = ['finish_search', 'search_cells', 'train_supernet']

_STAGE_SEED = 1_000_003
"""Difference between the seeds of two consecutive stages of a search."""


def finish_search(work: Work, whole: Any, strategy: DifferentiableStrategy) -> tuple[AnyGenotype, dict[str, Any]]:
    """Returns the genotype and the measurements of a search whose supernet has been trained, and writes its page.

    Args:
        work: the run.
        whole: strategy of the whole search, the first value of :func:`train_supernet`.
        strategy: strategy of the last stage, the second value of :func:`train_supernet`.
    """
    recipe, state = work.recipe, strategy.architecture.state
    if state.by_magnitude is not None:
        write_text(work.output / BY_MAGNITUDE, recipe.space.genotype_of(state.by_magnitude).to_json() + '\n')
    _write_page(work, over=True)
    stopped = state.stopped
    early: dict[str, Any] = {} if stopped is None else {'stopped_after': stopped['after'], 'cell_of_epoch': stopped['epoch']}
    if state.ended is not None:
        early |= {'ended': 'time', 'epochs': state.ended['all']}
    last = epochs_of(work.output)[-1]
    validated = {name: value for name, value in work.task.outcome(recipe, last).items() if name.startswith('valid_')}
    passes = round(search_passes(recipe, whole, recipe.search.epochs, work.data), 3)
    share = work.task.largest_class(recipe, work.data, 'search')
    genotype = recipe.space.genotype_of(strategy.select())
    return genotype, {**validated, **share, 'seconds': last['total_seconds'], 'passes': passes, **early}


def train_supernet(work: Work) -> tuple[Any, DifferentiableStrategy]:
    """Trains the supernet of a search, on every rank.

    Returns:
        The strategy of the whole search, and the strategy of its last stage, which is the same if the search has a single stage.
    """
    spec, recipe = work.spec, work.recipe
    if not work.resume:
        _check_own_space(work)
    seed_everything(spec.seed, verbose=False)
    space = work.task.space(recipe, work.data)
    whole = configured_strategy(recipe, spec.strategy)
    heed_costs(whole, recipe, work.data)
    _keep_executor(whole.executor_choice, work)
    stages, epochs = len(whole.parts), whole.stage_epochs(recipe.search.epochs)
    short = recipe.with_epochs('search', epochs)
    for number, (deeper, strategy) in enumerate(whole.stages(space)):
        folder = work.output / f'{STAGE}{number + 1}' if whole.in_stages else work.output
        _Stage(work, short, folder, (number * epochs, (stages - number - 1) * epochs)).search(deeper, strategy)
        # A resumed run does not repeat this stage, and must build the next one from the same random numbers.
        seed_everything(spec.seed + _STAGE_SEED * (number + 1), verbose=False)
    parallel.must_agree('cell', recipe.space.genotype_of(strategy.select()).code())
    return whole, strategy


def _check_own_space(work: Work) -> None:
    """Raises InputError if the strategy cannot search the user's own space, for which it builds one more supernet."""
    recipe, data = work.recipe, work.data
    if not isinstance(recipe.space, OwnSpace):
        return
    whole = configured_strategy(recipe, work.spec.strategy)
    if not isinstance(whole, DifferentiableStrategy):
        return  # P-DARTS, or a strategy of the user's own
    facts = work.task.facts(data)
    try:
        check_supernet(whole, work.task.space(recipe, data), torch.rand(2, facts['in_channels'], *facts['image_size']))
    except ValueError as error:
        raise InputError(f'strategy {work.spec.strategy}: {error}') from None


@dataclass(frozen=True)
class _Stage:
    """One stage of a search; most searches have a single one.

    Attributes:
        work: the run.
        recipe: the recipe with the epochs of the stage.
        folder: folder for the checkpoint of the stage.
        around: number of epochs before and after the stage.
    """

    work: Work
    recipe: Recipe
    folder: Path
    around: tuple[int, int]

    def search(self, space: Any, strategy: DifferentiableStrategy) -> None:
        """Searches a space, or loads the outcome if the stage is finished."""
        work, recipe = self.work, self.recipe
        module, datamodule = work.task.searching(recipe, work.data, work.spec.seed)
        logger = None

        def described() -> dict[str, Any]:
            return self._described(strategy, trainer.current_epoch + 1)

        if parallel.is_first():
            logger = create_logger(recipe, self.folder, {'stage': 'search', 'strategy': work.spec.strategy, 'seed': work.spec.seed})
            strategy.on_decision = lambda record: self._decided(strategy, record)
        with quiet_lightning():
            trainer = create_trainer(
                self.folder,
                recipe,
                recipe.search.epochs,
                log=EpochLog(work.output / METRICS, self._epoch_ended, described, self.around),
                logger=logger,
                callbacks=callbacks_in_time(work) if not self.around[1] else [],  # with several stages, the last one can end early
            )
            resumed = resume_arguments(work, self.folder, work.output, self.around[0])
            evaluator = Lightning(module, trainer, datamodule=datamodule, fit_kwargs=resumed)
            with fitting(self.folder):
                strategy(RawFormatModelSpace.from_model(space, evaluator), _InProcess())

    def _epoch_ended(self, record: dict[str, Any]) -> None:
        _write_page(self.work, over=False)
        self.work.watch.on_epoch(record)

    def _decided(self, strategy: DifferentiableStrategy, record: dict[str, Any]) -> None:
        """Appends a decision to ``selection.jsonl``: the scores, the choice and its margin, which explain the cell."""
        lines = ''.join(json.dumps(entry) + '\n' for entry in strategy.architecture.state.history)
        write_text(self.work.output / 'selection.jsonl', lines)
        self.work.watch.on_decision(record)

    def _described(self, strategy: DifferentiableStrategy, epoch: int) -> dict[str, Any]:
        """Returns the entries of ``metrics.jsonl`` for an epoch of a search, besides its measurements."""
        return {
            **self._decisions(strategy, epoch),
            **_eigenvalue(strategy, epoch),
            'probabilities': _named(strategy.probabilities()),
            'genotype': self.recipe.space.genotype_of(strategy.select()).to_dict(),
        }

    def _decisions(self, strategy: DifferentiableStrategy, epoch: int) -> dict[str, Any]:
        """Returns the progress of a progressive selection, the margin of its last decision, and the decisions since the epoch before.

        Other selections have no such entries."""
        total, history = strategy.selection.decisions(strategy.architecture), strategy.architecture.state.history
        if not total:
            return {}
        earlier = [line for line in epochs_of(self.work.output) if line['epoch'] < epoch]
        before = earlier[-1].get('decisions', 0) if earlier else 0
        margin = history[-1]['margin'] if history else None
        counts = {'decisions': len(history), 'of_decisions': total}
        return {**counts, **({} if margin is None else {'margin': margin}), 'decided': history[before:]}


def _keep_executor(choice: ExecutorChoice, work: Work) -> None:
    """Restores the executor of a resumed search, and records the executor in ``run.json``, from which ``result.json`` copies it."""
    run = work.output / RUN
    kept = read_json(run).get(EXECUTOR) if work.resume and parallel.is_first() else None
    choice.keep(parallel.agreed(kept))

    def noted(record: ExecutorRecord) -> None:
        write_json(run, {**read_json(run), EXECUTOR: record})

    if parallel.is_first() and run.exists():
        choice.on_settled = noted
        if choice.record is not None:
            noted(choice.record)


def _write_page(work: Work, *, over: bool) -> None:
    """Writes ``search.html`` and ``search.json``, which show the search so far."""
    about = {'strategy': work.spec.strategy, 'seed': work.spec.seed, 'recipe': work.recipe.name, 'metric': work.recipe.metric.name}
    write_search(work.output, SEARCH, search_data(epochs_of(work.output), **about, over=over))


def _eigenvalue(strategy: DifferentiableStrategy, epoch: int) -> dict[str, float]:
    """Returns the dominant eigenvalue, the sharpness of α's minimum after an epoch; empty without early stopping."""
    measured = strategy.architecture.state.curvature
    return {'eigenvalue': round(measured[-1]['eigenvalue'], 6)} if measured and measured[-1]['epoch'] == epoch else {}


def _named(tables: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns tables of probabilities in which operations have the names of genotypes."""
    return {label: {operation_name(name): value for name, value in table.items()} for label, table in tables.items()}


class _InProcess(SequentialExecutionEngine):
    """NNI's engine for one-shot strategies, without taking over the channel on which a trial reports to NNI."""

    def _run_single_model(self, model: Any) -> None:
        model.execute()
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


def search_cells(work: Work, train: Any) -> tuple[AnyGenotype, dict[str, Any]]:
    """Trains the cells of a strategy without a supernet one by one in the select stage, and returns the best by validation.

    With successive halving, the best is chosen among the cells that reach the highest rung.

    Args:
        work: the run.
        train: (description of a training, folder) → its result.
    """
    recipe, spec, output = work.recipe, work.spec, work.output
    valid = f'valid_{recipe.metric.name}'
    deadline, lasted = None if spec.plan is None else spec.plan.deadline(_seconds_before(work)), [0.0]
    ranking = ranked(work)
    number = number_of_cells(recipe, spec.strategy)
    if ranking is not None and number == 1:
        return ranking.cells[0], ranking.result()
    halving = rungs_of(recipe, spec.strategy)
    of = number if halving is None else sum(halving.counts(number))
    found: list[tuple[Part, dict[str, Any]]] = []
    values: dict[tuple[int, int], float | None] = {}
    folders: dict[int, Path] = {}
    early: dict[str, Any] = {}
    while True:
        parts = parts_to_train(recipe, spec.strategy, spec.seed, values, ranking.cells if ranking else ())
        part = next((part for part in parts if (part.number, part.rung) not in values), None)
        if part is None:
            break
        if deadline is not None and found and not deadline.allows(max(lasted)):
            early = {'ended': 'time', 'cells': len(folders)}
            break
        begun = time.monotonic()
        announce('cells', len(found), of, lasting=True)
        folder = output / (f'cell-{part.number - 1}' + (f'-{part.rung}' if part.rung else ''))
        described = RunSpec.training(
            recipe, 'select', part.genotype, spec.seed, part=part.epochs, continues=folders[part.number].name if part.rung else ''
        )
        found.append((part, train(described, folder)))
        folders[part.number] = folder
        values[part.number, part.rung] = found[-1][1][valid]
        lasted.append(time.monotonic() - begun)
    announce('cells', len(found), len(found), lasting=True)
    highest = max(part.rung for part, _ in found)
    best, result = recipe.metric.best([entry for entry in found if entry[0].rung == highest], lambda entry: entry[1][valid])
    before = {} if ranking is None else ranking.result()
    total = {name: round(before.pop(name, 0) + sum(trained[name] for _, trained in found), 3) for name in ('seconds', 'passes')}
    kept = {name: value for name, value in result.items() if name.startswith('valid_') or name in ('largest_class', 'images')}
    if not early and len(folders) < number:  # the space has no further cells
        early = {'ended': 'time', 'cells': len(folders)}
    return best.genotype, {**kept, **total, **{name: before[name] for name in ('proxy', 'drawn') if name in before}, **early}


def _seconds_before(work: Work) -> float:
    """Returns the seconds for which a resumed search has trained cells; parts that continue each other repeat their measurements."""
    seconds: dict[str, float] = {}
    for folder in work.output.glob('cell-*') if work.resume else ():
        if lines := epochs_of(folder):
            cell = folder.name.split('-')[1]
            seconds[cell] = max(seconds.get(cell, 0.0), lines[-1]['total_seconds'])
    return sum(seconds.values())
