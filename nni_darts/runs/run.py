"""Execution of runs, for the command line, trials, workers and Python.

Every run writes ``genotype.json``, ``metrics.jsonl`` (a line for each epoch), ``result.json`` (with all settings and versions) and a
checkpoint into its output folder. A search adds ``search.html`` with its data in ``search.json``. A training adds ``weights.pt``, and
``training.html`` with its data in ``training.json``; a training that is tested also adds ``evaluation.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT
from nni_darts.genotypes import genotype_from_dict
from nni_darts.parallel.launch import together
from nni_darts.recipes import RUN, Recipe
from nni_darts.runs.checks import check_strategies, named_method
from nni_darts.runs.cost_limits import check_cost
from nni_darts.runs.costs import as_input_error, cautions, checked_recipe, cost_of
from nni_darts.runs.deadline import TimeLimit
from nni_darts.runs.derive import begun_from_supernet
from nni_darts.runs.folder import FROM, GENOTYPE, MORE, alone_in, check_amounts, claim, read_json, write_json
from nni_darts.runs.keeping import finish, keep_genotype
from nni_darts.runs.latencies import with_own_table
from nni_darts.runs.loggers import check_logger
from nni_darts.runs.ranking import ranked
from nni_darts.runs.search import finish_search, search_cells, train_supernet
from nni_darts.runs.spec import Outcome, RunSpec, Watch, Work
from nni_darts.runs.start import Start, finished_training
from nni_darts.runs.tasks import task_of
from nni_darts.runs.train import begun_from_part, continued, finish_training, page_of, train_network

__all__ = ['Run', 'take_part', 'train_longer']


class Run:
    """A search or a training that can be executed.

    Args:
        spec: description of the run.
        output: folder for results and checkpoint.
        watch: callbacks of the run; None for no callbacks.

    Example:
        ``Run(RunSpec.search(Recipe.load('digits'), 'darts-2nd', seed=1), Path('out')).execute()``
    """

    def __init__(self, spec: RunSpec, output: Path, watch: Watch | None = None) -> None:
        self.spec = spec
        self.output = Path(output)
        self.watch = watch or Watch()

    def execute(self, *, resume: bool = False) -> Outcome:
        """Carries out the run. If the folder already holds the finished run, its outcome is read.

        The result of a search has the validation metric of the supernet, or of the best cell if cells are trained one by one, and the
        cost of the found network at retraining size. The result of a training has, for the weights that are kept, ``train_accuracy``,
        ``valid_accuracy`` if data is held out, and ``test_accuracy`` after ``retrain``, and the same for another ``metric``; for text it
        has perplexities instead. Further keys are ``kept_epoch``, the epoch of these weights; ``epochs``, the number of epochs trained;
        and ``ended``, the reason for the end: ``planned``, ``patience`` or ``time``. Both results have seconds, passes over the training
        data, and peak memory in MiB. Only ``retrain`` uses test data, once, after the last epoch.

        Args:
            resume: continue from the checkpoint in the folder, if there is one.

        Raises:
            InputError: for an unknown strategy or setting, missing data, a network that does not fit the data, initial weights of which
                less than half fit, or a folder that holds another run.
        """
        spec = replace(self.spec, plan=self.spec.plan or TimeLimit(self.output, resume).kept())
        check_logger(spec.recipe)
        return self._search(spec, resume) if spec.stage == 'search' else self._train(spec, resume)

    def rank(self, *, resume: bool = False) -> Outcome:
        """Carries out only the ranking with which a search of cells one by one begins, by a zero-cost proxy.

        The genotype of the outcome is the best cell. ``ranked`` in the result has the codes of the cells to train, best first.

        Args:
            resume: as for :meth:`execute`.

        Raises:
            InputError: as for :meth:`execute`.
        """
        spec = self.spec
        check_strategies(spec.recipe, [spec.strategy])
        data = task_of(spec.recipe).load(spec.recipe)
        work = Work(spec, checked_recipe(spec.recipe, spec.strategy, data), self.output, data, resume, self.watch)
        self.watch.on_start(_headline(work), [])
        with alone_in(self.output):
            finished = claim(self.output, spec.recipe, spec.identity(), resume, work.task.amounts(data))
            if finished is not None:
                return Outcome(genotype_from_dict(read_json(self.output / GENOTYPE)), finished)
            ranking = ranked(work)
            assert ranking is not None  # the caller knows that the strategy has one
            keep_genotype(work, ranking.cells[0])
            return Outcome(ranking.cells[0], finish(work, {**ranking.result(), 'ranked': ' '.join(cell.code() for cell in ranking.cells)}))

    def _search(self, spec: RunSpec, resume: bool) -> Outcome:
        one_by_one = named_method(spec.strategy).one_by_one
        check_strategies(spec.recipe, [spec.strategy])
        data = task_of(spec.recipe).load(spec.recipe)
        spec = replace(spec, recipe=with_own_table(self._with_kept_table(spec.recipe, resume), data))
        planned = spec.recipe if spec.plan is None else spec.plan.applied(spec.recipe, 'search', spec.strategy)
        fitted = checked_recipe(planned, spec.strategy, data)
        work = Work(spec, planned if one_by_one else fitted, self.output, data, resume, self.watch)
        self.watch.on_start(_headline(work), cautions(planned, [spec.strategy], data, ('select',) if one_by_one else ('search',)))
        with alone_in(self.output):
            finished = claim(self.output, spec.recipe, spec.identity(), resume, work.task.amounts(data))
            if finished is not None:
                return Outcome(genotype_from_dict(read_json(self.output / GENOTYPE)), finished)
            work = begun_from_supernet(work)
            if one_by_one:
                genotype, measured = search_cells(work, self._train_found)
            else:
                with _on_its_devices(work):
                    found = train_supernet(work)
                genotype, measured = finish_search(work, *found)
            keep_genotype(work, genotype)
            costs = cost_of(genotype, spec.recipe, data)
            check_cost(spec.recipe, costs, spec.strategy)
            return Outcome(genotype, finish(work, {**measured, **costs}))

    def _with_kept_table(self, recipe: Recipe, resume: bool) -> Recipe:
        """Returns the recipe with the table of latencies that this run measured before it was interrupted."""
        begun = self.output / RUN
        run = read_json(begun) if resume and begun.is_file() else {}
        return recipe.with_kept_table(run['recipe']) if isinstance(run, dict) and isinstance(run.get('recipe'), dict) else recipe

    def _train_found(self, spec: RunSpec, folder: Path) -> dict[str, Any]:
        """Trains one of a search's cells in a subfolder of the search, which this process has claimed already."""
        return Run(spec, folder, replace(self.watch, on_start=Watch.on_start)).execute(resume=True).result

    def _train(self, spec: RunSpec, resume: bool) -> Outcome:
        data = task_of(spec.recipe).load(spec.recipe)
        planned = spec.recipe if spec.plan is None else spec.plan.applied(spec.recipe, spec.stage)
        work = Work(spec, planned, self.output, data, resume, self.watch)
        said = work.task.cautions(spec.recipe, data, (spec.stage,))
        if spec.weights is not None:
            start = Start(spec.weights.absolute())
            work = replace(work, start=start)
            said += _cautions_of_weights(work, start)
        self.watch.on_start(_headline(work), said)
        with alone_in(self.output):
            finished = claim(self.output, spec.recipe, spec.identity(), resume, work.task.amounts(data))
            if finished is not None:
                return Outcome(spec.architecture, finished)
            work = begun_from_part(work)
            if work.start is None and FROM in (begun := read_json(self.output / RUN)):
                work = replace(work, start=Start(Path(begun[FROM])))
            return Outcome(spec.architecture, _trained(work))


def _cautions_of_weights(work: Work, start: Start) -> list[str]:
    """Returns warnings about tensors that do not fit, and about test data on which the weights may have been trained."""
    said: list[str] = []
    spec, genotype = work.spec, work.spec.architecture
    if not (work.resume and (work.output / CHECKPOINT).exists()):  # a resumed run loaded them before, and the file may be gone
        with as_input_error(spec.stage), torch.device('meta'):
            said += start.misfits(work.task.network(spec.recipe, spec.stage, genotype, work.data), genotype)
        said += start.tested_on(spec.recipe, work.task.amounts(work.data)) if spec.stage == 'retrain' else []
    return said


def _trained(work: Work, **more: Any) -> dict[str, Any]:
    """Trains a network on all devices of the recipe, writes its files, and returns the result."""
    page = page_of(work)

    def shown(record: dict[str, Any]) -> None:
        page.write()
        work.watch.on_epoch(record)

    with _on_its_devices(work):
        done = train_network(replace(work, watch=replace(work.watch, on_epoch=shown)))
    return finish_training(work, done, page, **more)


def _on_its_devices(work: Work) -> AbstractContextManager[None]:
    """Returns a context in which worker processes on the recipe's other devices do their part (:func:`take_part`)."""
    part = f'{take_part.__module__}:{take_part.__name__}'
    return together(work.recipe.devices, work.recipe.accelerator, part, work.order())


def take_part(order: Mapping[str, Any]) -> None:
    """Does the part of a worker in a run on several devices: the same computation, without writing files.

    Args:
        order: the plain data that :meth:`Work.order` returned.
    """
    work = Work.from_order(order)
    if work.spec.stage == 'search':
        train_supernet(work)
    else:
        train_network(work)


def train_longer(output: Path, epochs: int, *, resume: bool = False, watch: Watch | None = None) -> dict[str, Any]:
    """Trains the network of a finished training for more epochs, in the same folder.

    Training starts from the kept weights at a tenth of the recipe's learning rate, which decays to ``min_learning_rate`` by a cosine (for
    text it is constant). If the recipe keeps the best epoch, it is the best of all epochs, including the earlier ones. ``weights.pt`` and
    ``result.json`` do not change before the end; then ``history`` in ``result.json`` has the earlier results.

    Args:
        output: output folder of the training.
        epochs: number of additional epochs.
        resume: continue this training if it was interrupted.
        watch: callbacks of the run; None for no callbacks.

    Returns:
        The result, as in :meth:`Run.execute`; epochs, seconds and passes include the earlier training.

    Raises:
        InputError: if the folder holds no finished training, or an unfinished continuation by another number of epochs.
    """
    output, watch = Path(output), watch or Watch()
    with alone_in(output):
        run, before = finished_training(output)
        done, pending = before.get(MORE, []), run.get(MORE, [])
        if len(pending) > len(done):
            if not resume:
                raise InputError(f'{output} was being trained for {pending[-1]} more epochs; continue that training with --resume.')
            if pending[-1] != epochs:
                raise InputError(f'{output} was being trained for {pending[-1]} more epochs, not {epochs}; give --more {pending[-1]}.')
        elif resume and done and done[-1] == epochs:
            return before['result']
        else:
            pending = [*done, epochs]
        recipe, stage = Recipe.of_run(run['recipe'], source=str(output / RUN)), run['stage']
        check_logger(recipe)
        with as_input_error(str(output / GENOTYPE)):
            genotype = genotype_from_dict(read_json(output / GENOTYPE))
        data = task_of(recipe).load(recipe)
        check_amounts(output, run, task_of(recipe).amounts(data))
        work = Work(RunSpec.training(recipe, stage, genotype, run['seed']), recipe, output, data, resume, watch)
        watch.on_start(_headline(work), work.task.cautions(recipe, data, (stage,)))
        run[MORE] = pending
        write_json(output / RUN, run)
        again, trained = continued(work, before, len(pending), epochs)
        history = [*before.get('history', []), {'epochs': trained, 'result': before['result']}]
        return _trained(again, history=history)


def _headline(work: Work) -> str:
    """Returns one line about recipe, data, classes, sizes and plan."""
    plan = '' if work.spec.plan is None else f'; {work.spec.plan}'
    return f'recipe {work.spec.recipe.name}; {work.task.describe(work.spec.recipe, work.data)}{plan}'
