"""The stages of the protocol (Liu et al., ICLR 2019, section 3): search, select, retrain. The command line and NNI's trials call these.

Each writes what a user wants to keep into its output folder: ``genotype.json``, ``metrics.jsonl`` (a line for each epoch),
``result.json`` (with all settings and versions), a checkpoint to resume from, of a search ``search.html`` with its data in
``search.json``, of a trained cell ``weights.pt``, ``training.html`` with its data in ``training.json``, and of a tested one
``evaluation.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts._nni import Lightning, ModelStatus, RawFormatModelSpace, SequentialExecutionEngine, TrainingEndEvent
from nni_darts.activity import announce
from nni_darts.budget import affordable_epochs, training_passes, training_portion
from nni_darts.cells import cells_to_train, number_of_cells
from nni_darts.data import Description
from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, METRICS, write_text
from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_sample, genotype_from_text
from nni_darts.provenance import provenance
from nni_darts.ranks import together
from nni_darts.recipe import RUN, Recipe
from nni_darts.report.cautions import before_search
from nni_darts.report.searches import SEARCH, search_data, write_search
from nni_darts.runs.checks import check_strategies, named_preset, strategy_settings
from nni_darts.runs.deadline import PLAN, TimeLimit, TimePlan
from nni_darts.runs.folder import (
    BY_MAGNITUDE,
    DATA,
    EXECUTOR,
    FROM,
    GENOTYPE,
    MORE,
    RESULT,
    STAGE,
    WEIGHTS,
    alone_in,
    check_amounts,
    claim,
    identity,
    read_json,
    write_json,
)
from nni_darts.runs.loggers import check_logger, create_logger
from nni_darts.runs.start import Start, finished_training
from nni_darts.runs.training_page import TrainingPage
from nni_darts.runs.weights import SavedNetwork, write_weights
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.fast import ExecutorChoice, ExecutorRecord
from nni_darts.strategies.presets import create_strategy, preset
from nni_darts.strategies.progressive_depth import ProgressiveDepth
from nni_darts.strategies.relaxations import SampledPaths
from nni_darts.tasks import task_of
from nni_darts.training.best_epoch import BestEpoch
from nni_darts.training.divergence import not_finite
from nni_darts.training.run import (
    OnEpoch,
    create_trainer,
    device_type,
    epochs_of,
    last_checkpoint,
    peak_memory_mib,
    quiet_lightning,
)
from nni_darts.training.sharing import SharedSteps
from nni_darts.training.time_limit import EndInTime

__all__ = [
    'SearchCost',
    'cautions',
    'cost_of',
    'cost_of_search',
    'kept_description',
    'least_epochs',
    'preflight',
    'search',
    'take_part',
    'train_cell',
    'train_longer',
]

OnStart = Callable[[str, list[str]], None]
"""Called before anything is trained: recipe, data, classes and sizes in a line, and what to be warned of."""

OnDecision = Callable[[dict[str, Any]], None]
"""Called with the record of a decision."""


def preflight(recipe: Recipe, strategies: Iterable[str], data: Any) -> list[str]:
    """Builds what the stages will build, without training: strategies, transforms, splits.

    Args:
        data: as ``task_of(recipe).load(recipe)`` gives it.

    Returns:
        What each strategy gets out of the recipe's budget, a line for each; none without a budget.

    Raises:
        InputError: for anything in the recipe that does not fit.
    """
    strategies = list(strategies)
    check_strategies(recipe, strategies)
    bought = [_checked_strategy(recipe, name, data)[1] for name in strategies]
    task = task_of(recipe)
    task.searching(recipe, data, 1)
    for stage in ('select', 'retrain'):
        task.training(recipe, stage, data, 1)
    return bought if recipe.budget else []


def cautions(recipe: Recipe, strategies: Iterable[str], data: Any, stages: Iterable[str] = ('search', 'select', 'retrain')) -> list[str]:
    """Warns of results that would look right and not be: too few steps of α, classes that a part of the data lacks, files left out.

    Args:
        data: as ``task_of(recipe).load(recipe)`` gives it.
        stages: the stages that will run.

    Returns:
        A sentence for each. Call it after :func:`preflight`, which raises for whatever does not fit at all.
    """
    found = task_of(recipe).cautions(recipe, data, tuple(stages))
    for name in strategies:
        found += _alpha_caution(_checked_strategy(recipe, name, data)[0], name, data) if preset(name).supernet else []
    return found


def _alpha_caution(recipe: Recipe, name: str, data: Any) -> list[str]:
    """A sentence if the strategy's α cannot move far; none for α that is not moved by gradients of batches."""
    whole, epochs = _strategy(recipe, name), recipe.search.epochs
    strategy = whole.parts[-1] if isinstance(whole, ProgressiveDepth) else whole
    if isinstance(whole, ProgressiveDepth):
        epochs = whole.stage_epochs(epochs)
    if not strategy.relaxation.trains_alpha or isinstance(strategy.relaxation, SampledPaths):
        return []
    steps = task_of(recipe).batches(recipe, data) * (epochs - strategy.warmup(epochs))
    return before_search(name, steps, strategy.optimizer_settings['lr'])


def _checked_strategy(recipe: Recipe, name: str, data: Any) -> tuple[Recipe, str]:
    """The recipe as a strategy follows it, with as many epochs as the budget pays for, if there is one; and that in words.

    Builds the supernet that it would search, on torch's meta device: nothing is allocated. Others have settings only.
    """
    if not preset(name).supernet:
        count = number_of_cells(recipe, name)
        return recipe, f'{name}: {count} cells, {count * training_passes(recipe, "select"):.4g} passes'
    strategy, first = _with_supernet(recipe, name, data)
    if recipe.budget is None:
        return recipe, ''

    def cost(epochs: int) -> float:
        return _search_passes(recipe, strategy, epochs, data)

    epochs = affordable_epochs(recipe, name, cost, strategy.least_epochs)
    tuning = first.selection.epochs(first.architecture)
    parts = f'{epochs} epochs of search' + (f' and {tuning} of tuning' if tuning else '')
    total = cost(epochs) + training_passes(recipe, 'select')
    return recipe.with_epochs('search', epochs), (f'{name}: {parts}, {total:.4g} passes with the short training of its cell')


def _with_supernet(recipe: Recipe, name: str, data: Any) -> tuple[Any, DifferentiableStrategy]:
    """The strategy, and that of its first stage, which is the same where it has none, with its supernet on torch's meta device."""
    strategy, task = _strategy(recipe, name), task_of(recipe)
    with _as_input_error(f'{name} in the space {recipe.space.name}'), torch.device('meta'):
        space, first = task.space(recipe, data), strategy
        if isinstance(strategy, ProgressiveDepth):
            if recipe.budget is None:
                strategy.stage_epochs(recipe.search.epochs)
            space, first = next(strategy.stages(space))
        task.check(first)
        first.mutate_model(space)
        first.check_executor(device_type(recipe.accelerator), recipe.precision)
    return strategy, first


def _search_passes(recipe: Recipe, strategy: DifferentiableStrategy | ProgressiveDepth, epochs: int, data: Any) -> float:
    """Returns the cost of a search of ``epochs`` epochs, in passes over the training data."""
    if isinstance(strategy, ProgressiveDepth):
        return sum(_search_passes(recipe, part, strategy.stage_epochs(epochs), data) for part in strategy.parts)
    task, scored = task_of(recipe), strategy.selection.scored(strategy.architecture)
    evaluated = sum(variants * task.evaluated_portion(recipe, data, batches) for variants, batches in scored)
    return training_portion(recipe, 'search') * strategy.passes(epochs) + EVALUATION * evaluated


@dataclass(frozen=True)
class SearchCost:
    """The cost of a search, in passes over the training data.

    Attributes:
        passes: of the whole search with its selection, without the validation after each epoch.
        validated: validation after each epoch, as portions of the training data that are evaluated.
        epochs: number of epochs, those of the selection included.
        passes_of_first_epoch: passes of the first epoch.
    """

    passes: float
    validated: float
    epochs: int
    passes_of_first_epoch: float


def cost_of_search(recipe: Recipe, strategy: str, data: Any) -> SearchCost:
    """Counts what a search with a supernet costs.

    Args:
        recipe: all settings.
        strategy: name of a strategy with a supernet.
        data: as ``task_of(recipe).load(recipe)`` returns it.

    Raises:
        InputError: for a strategy or setting that does not fit.
    """
    fitted, _ = _checked_strategy(recipe, strategy, data)
    whole, first = _with_supernet(fitted, strategy, data)
    epochs = each = total = fitted.search.epochs
    if isinstance(whole, ProgressiveDepth):
        each = whole.stage_epochs(epochs)
        total = each * len(whole.parts)
    total += first.selection.epochs(first.architecture)
    held_out = task_of(fitted).evaluated_portion(fitted, data, None)
    # The first epoch moves α only if α does not rest in it.
    trains = first.relaxation.trains_alpha and not first.warmup(each)
    passes = first.relaxation.passes + (first.architect.passes if trains else 0)
    portion = training_portion(fitted, 'search')
    of_first = portion * passes * (2 if first.architect.union else 1)
    return SearchCost(_search_passes(fitted, whole, epochs, data), total * held_out, total, of_first)


def search(
    recipe: Recipe,
    strategy: str,
    seed: int,
    output: Path,
    *,
    plan: TimePlan | None = None,
    resume: bool = False,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    on_decision: OnDecision | None = None,
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Searches a cell with the strategy of that name.

    Args:
        recipe: all settings.
        strategy: a name of ``nni_darts.strategies.PRESETS``.
        seed: of everything that is drawn but the split of the data.
        output: folder for results and checkpoint.
        plan: how many epochs or cells there are in a limited time, and how long that is; left out on resume, that of the run.
        resume: continue from the checkpoint there, if there is one.
        on_start: called once the data is read, with recipe and data in a line and a list of warnings.
        on_epoch: called with each epoch's measurements.
        on_decision: called with each decision that a selection takes during or after the search: its line of ``selection.jsonl``.

    Returns:
        The genotype, and the result: validation metric of what was searched, cost of the found network at retraining size, seconds
        of all epochs, passes over the training data, peak memory (MiB).

    Raises:
        InputError: for an unknown strategy or setting, or missing data.
    """
    output, chosen = Path(output), named_preset(strategy)
    check_strategies(recipe, [strategy])
    check_logger(recipe)
    data = task_of(recipe).load(recipe)
    plan = plan or TimeLimit(output, resume).kept()
    planned = recipe if plan is None else plan.applied(recipe, 'search', strategy)
    fitted, _ = _checked_strategy(planned, strategy, data)
    if on_start:
        about = cautions(planned, [strategy], data, ('search',) if chosen.supernet else ('select',))
        on_start(_headline(recipe, data) + ('' if plan is None else f'; {plan}'), about)
    with alone_in(output):
        what = {**identity('search', seed, strategy=strategy), **_noted(plan)}
        finished = claim(output, recipe, what, resume, task_of(recipe).amounts(data))
        if finished is not None:
            return genotype_from_text(json.dumps(read_json(output / GENOTYPE))), finished
        if chosen.supernet:
            genotype, measured = _search_supernet(fitted, strategy, seed, output, data, resume, plan, on_epoch, on_decision)
        else:
            genotype, measured = _search_cells(planned, strategy, seed, output, resume, plan, on_epoch)
        write_text(output / GENOTYPE, genotype.to_json() + '\n')
        _keep_data(output, recipe, data)
        return genotype, _finish(output, {**measured, **cost_of(genotype, recipe, data)}, task_of(recipe).kept(data))


def _search_supernet(
    recipe: Recipe,
    name: str,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    plan: TimePlan | None,
    on_epoch: OnEpoch | None,
    on_decision: OnDecision | None,
) -> tuple[AnyGenotype, dict[str, Any]]:
    with _on_its_devices(recipe, output, resume, {'stage': 'search', 'strategy': name, 'seed': seed, **_noted(plan)}):
        whole, strategy = _train_supernet(recipe, name, seed, output, data, resume, plan, on_epoch, on_decision)
    by_magnitude, stopped = strategy.architecture.by_magnitude, strategy.architecture.stopped
    if by_magnitude is not None:
        write_text(output / BY_MAGNITUDE, genotype_from_sample(by_magnitude).to_json() + '\n')
    _write_page(output, recipe, name, seed, over=True)
    early: dict[str, Any] = {} if stopped is None else {'stopped_after': stopped['after'], 'cell_of_epoch': stopped['epoch']}
    if strategy.architecture.ended is not None:
        early |= {'ended': 'time', 'epochs': strategy.architecture.ended['all']}
    last = epochs_of(output)[-1]
    validated = {name: value for name, value in task_of(recipe).outcome(recipe, last).items() if name.startswith('valid_')}
    passes = round(_search_passes(recipe, whole, recipe.search.epochs, data), 3)
    share = task_of(recipe).largest_class(recipe, data, 'search')
    return _genotype(strategy), {**validated, **share, 'seconds': last['total_seconds'], 'passes': passes, **early}


def _on_its_devices(recipe: Recipe, output: Path, resume: bool, job: dict[str, Any]) -> AbstractContextManager[None]:
    """Within the block processes on the recipe's other devices do their parts of a job (:func:`take_part`)."""
    part = f'{take_part.__module__}:{take_part.__name__}'
    return together(recipe.devices, recipe.accelerator, part, {**job, 'recipe': recipe.to_dict(), 'output': str(output), 'resume': resume})


def take_part(job: Mapping[str, Any]) -> None:
    """The part of one of the other processes of a search or training on several devices: it does the same, and writes nothing.

    Args:
        job: ``stage``, ``recipe``, ``seed``, ``output``, ``resume``; for a search the ``strategy``, else ``arch``, the code of the cell,
            and ``start``, what :meth:`Start.to_dict` returns, or None.
    """
    recipe, output = Recipe.from_dict(job['recipe']), Path(job['output'])
    data = task_of(recipe).load(recipe)
    plan = TimePlan(**job[PLAN]) if PLAN in job else None
    if job['stage'] == 'search':
        _train_supernet(recipe, job['strategy'], job['seed'], output, data, job['resume'], plan)
    else:
        start = None if job.get('start') is None else Start.from_dict(job['start'])
        _train_network(
            recipe, job['stage'], genotype_from_code(job['arch']), job['seed'], output, data, job['resume'], start=start, plan=plan
        )


def _train_supernet(
    recipe: Recipe,
    name: str,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    plan: TimePlan | None = None,
    on_epoch: OnEpoch | None = None,
    on_decision: OnDecision | None = None,
) -> tuple[Any, DifferentiableStrategy]:
    """The search itself, on every rank. Returns the strategy, and the one of its last stage, which is the same where it has none."""
    task = task_of(recipe)
    seed_everything(seed, verbose=False)
    space = task.space(recipe, data)
    strategy = whole = _strategy(recipe, name)
    _keep_executor(strategy.executor_choice, output, resume)

    def described(record: dict[str, Any]) -> None:
        _write_page(output, recipe, name, seed, over=False)
        if on_epoch:
            on_epoch(record)

    def run(recipe: Recipe, space: Any, strategy: DifferentiableStrategy, folder: Path, around: tuple[int, int] = (0, 0)) -> None:
        """Searches a space; if that was finished before, it only loads what came out."""

        def extra() -> dict[str, Any]:
            found = json.loads(_genotype(strategy).to_json())
            epoch = trainer.current_epoch + 1
            return {
                **_decided(strategy, epoch),
                **_eigenvalue(strategy, epoch),
                'probabilities': strategy.probabilities(),
                'genotype': found,
            }

        def decided(record: dict[str, Any]) -> None:
            _write_decisions(output, strategy)
            if on_decision:
                on_decision(record)

        module, datamodule = task.searching(recipe, data, seed)
        logger = create_logger(recipe, folder, {'stage': 'search', 'strategy': name, 'seed': seed}) if parallel.is_first() else None

        if parallel.is_first():
            strategy.on_decision = decided
        with quiet_lightning():
            trainer = create_trainer(
                folder,
                epochs=recipe.search.epochs,
                accelerator=recipe.accelerator,
                precision=recipe.precision,
                checkpoint_steps=recipe.checkpoint_steps,
                on_epoch=described,
                extra=extra,
                around=around,
                metrics=output / METRICS,
                logger=logger,
                callbacks=_in_time(plan, output, resume) if not around[1] else [],  # of several stages the last one can end early
            )
            evaluator = Lightning(module, trainer, datamodule=datamodule, fit_kwargs=_resume_arguments(folder, resume, output, around[0]))
            strategy(RawFormatModelSpace.from_model(space, evaluator), _InProcess())

    if isinstance(strategy, ProgressiveDepth):
        epochs = strategy.stage_epochs(recipe.search.epochs)
        short = recipe.with_epochs('search', epochs)
        for number, (deeper, part) in enumerate(strategy.stages(space)):
            run(short, deeper, part, output / f'{STAGE}{number + 1}', (number * epochs, (len(strategy.parts) - number - 1) * epochs))
            # A resumed run does not repeat this stage, and must build the next one from the same random numbers.
            seed_everything(seed + _STAGE_SEED * (number + 1), verbose=False)
        strategy = part
    else:
        run(recipe, space, strategy, output)
    parallel.must_agree('cell', _genotype(strategy).code())
    return whole, strategy


def _keep_executor(choice: ExecutorChoice, output: Path, resume: bool) -> None:
    """Computes a resumed search as before, and notes in ``run.json``, from which ``result.json`` has it, how a search is computed."""
    kept = read_json(output / RUN).get(EXECUTOR) if resume and parallel.is_first() else None
    choice.keep(parallel.agreed(kept))

    def noted(record: ExecutorRecord) -> None:
        write_json(output / RUN, {**read_json(output / RUN), EXECUTOR: record})

    if parallel.is_first() and (output / RUN).exists():
        choice.on_settled = noted
        if choice.record is not None:
            noted(choice.record)


_STAGE_SEED = 1_000_003
"""Between the seeds of two stages of one search."""


def _write_page(output: Path, recipe: Recipe, strategy: str, seed: int, *, over: bool) -> None:
    """``search.html`` and ``search.json``: the search so far, to be looked at."""
    about = {'strategy': strategy, 'seed': seed, 'recipe': recipe.name, 'metric': recipe.metric.name}
    write_search(output, SEARCH, search_data(epochs_of(output), **about, over=over))


def _decided(strategy: DifferentiableStrategy, epoch: int) -> dict[str, Any]:
    """How far a selection that decides one by one has come, how clear its last decision was, and which it took at the end of an epoch;
    nothing for other selections."""
    total, history = strategy.selection.decisions(strategy.architecture), strategy.architecture.history
    if not total:
        return {}
    margin = history[-1]['margin'] if history else None
    decided = [record for record in history if record.get('epoch') == epoch]
    return {'decisions': len(history), 'of_decisions': total, **({} if margin is None else {'margin': margin}), 'decided': decided}


def _eigenvalue(strategy: DifferentiableStrategy, epoch: int) -> dict[str, float]:
    """How sharp the minimum was that α had found at the end of an epoch, where early stopping measures it."""
    measured = strategy.architecture.curvature
    return {'eigenvalue': round(measured[-1]['eigenvalue'], 6)} if measured and measured[-1]['epoch'] == epoch else {}


def _write_decisions(output: Path, strategy: DifferentiableStrategy) -> None:
    """``selection.jsonl``: why this cell. A line for each decision: what was scored, what was chosen, by which margin."""
    write_text(output / 'selection.jsonl', ''.join(json.dumps(record) + '\n' for record in strategy.architecture.history))


def _genotype(strategy: DifferentiableStrategy) -> AnyGenotype:
    return genotype_from_sample(strategy.select())


def _strategy(recipe: Recipe, name: str) -> Any:
    """The strategy with the recipe's settings for it."""
    with _as_input_error(f'search.settings of {name}'):
        return create_strategy(name, **strategy_settings(recipe, name))


class _InProcess(SequentialExecutionEngine):
    """NNI's engine for one-shot strategies without its detour: that one takes over the channel on which a trial reports to NNI."""

    def _run_single_model(self, model: Any) -> None:
        model.execute()
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


def _search_cells(
    recipe: Recipe, name: str, seed: int, output: Path, resume: bool, plan: TimePlan | None, on_epoch: OnEpoch | None
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Random search and evolution: the cells one after the other through the select stage, best by validation."""
    valid = f'valid_{recipe.metric.name}'
    found: list[tuple[AnyGenotype, dict[str, Any]]] = []
    values: dict[int, float | None] = {}
    earlier = [lines[-1]['total_seconds'] for folder in output.glob('cell-*') if (lines := epochs_of(folder))] if resume else []
    deadline, lasted = None if plan is None else plan.deadline(sum(earlier)), [0.0]
    while len(found) < len(cells := cells_to_train(recipe, name, seed, values)):
        if deadline is not None and found and not deadline.allows(max(lasted)):
            break
        begun = time.monotonic()
        announce('cells', len(found), number_of_cells(recipe, name), lasting=True)
        genotype, folder = cells[len(found)], output / f'cell-{len(found)}'
        found.append((genotype, train_cell(recipe, 'select', genotype, seed, folder, resume=resume, on_epoch=on_epoch)))
        values[len(found)] = found[-1][1][valid]
        lasted.append(time.monotonic() - begun)
    announce('cells', len(found), len(found), lasting=True)
    best, result = recipe.metric.best(found, lambda entry: entry[1][valid])
    total = {name: round(sum(trained[name] for _, trained in found), 3) for name in ('seconds', 'passes')}
    kept = {name: value for name, value in result.items() if name.startswith('valid_') or name in ('largest_class', 'images')}
    early = {'ended': 'time', 'cells': len(found)} if len(found) < number_of_cells(recipe, name) else {}
    return best, {**kept, **total, **early}


def train_cell(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    *,
    weights: Path | None = None,
    plan: TimePlan | None = None,
    resume: bool = False,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Trains the network of a genotype from scratch: briefly (``select``) or fully (``retrain``). Arguments as for :func:`search`.

    Test data is touched only by ``retrain``, once, after the last epoch.

    Args:
        weights: output folder of a finished training of the same cell, whose weights the network starts from as far as they fit.
        plan: as for :func:`search`.

    Returns:
        ``valid_accuracy`` where data is held out, ``train_accuracy``, after ``retrain`` also ``test_accuracy``, and the same of another
        ``metric`` (or these three with ``perplexity``), of the weights that are kept; ``kept_epoch``, theirs; ``epochs``, how many were
        trained; ``ended``, why no more were: ``planned``, ``patience`` or ``time``; cost, seconds, passes over the training data, peak
        memory (MiB).

    Raises:
        InputError: for missing data or a network that does not fit it, or weights of which less than half fits.
    """
    task, output = task_of(recipe), Path(output)
    check_logger(recipe)
    data = task.load(recipe)
    said = task.cautions(recipe, data, (stage,))
    plan = plan or TimeLimit(output, resume).kept()
    start = None
    if weights is not None:
        start = Start(Path(weights).absolute())
        if not (resume and (output / CHECKPOINT).exists()):  # else they were loaded, and may be gone
            with _as_input_error(stage), torch.device('meta'):
                said += start.misfits(task.network(recipe, stage, genotype, data), genotype)
            said += start.tested_on(recipe, task.amounts(data)) if stage == 'retrain' else []
    if on_start:
        on_start(_headline(recipe, data) + ('' if plan is None else f'; {plan}'), said)
    what = identity(stage, seed, genotype=genotype, weights=None if start is None else start.folder)
    with alone_in(output):
        finished = claim(output, recipe, {**what, **_noted(plan)}, resume, task.amounts(data))
        if finished is not None:
            return finished
        if start is None and FROM in (begun := read_json(output / RUN)):
            start = Start(Path(begun[FROM]))
        planned = recipe if plan is None else plan.applied(recipe, stage)
        return _trained(planned, stage, genotype, seed, output, data, resume, on_epoch, start, plan)


def _trained(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    on_epoch: OnEpoch | None,
    start: Start | None,
    plan: TimePlan | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Trains a network on all its devices, writes everything into its folder, and returns the result.

    Args:
        more: what ``result.json`` has besides.
    """
    task = task_of(recipe)
    page = TrainingPage(output, recipe, stage, genotype, read_json(output / RUN)['seed'])

    def shown(record: dict[str, Any]) -> None:
        page.write()
        if on_epoch:
            on_epoch(record)

    job = {'stage': stage, 'seed': seed, 'arch': genotype.code(), 'start': None if start is None else start.to_dict(), **_noted(plan)}
    with _on_its_devices(recipe, output, resume, job):
        network, tested, answers, best = _train_network(recipe, stage, genotype, seed, output, data, resume, shown, start, plan)
    epochs = epochs_of(output)
    last = epochs[-1]['epoch']
    kept = best.epoch if best is not None and best.keep and best.epoch is not None else last
    accuracies = {**task.outcome(recipe, epochs[kept - 1]), **tested, **task.largest_class(recipe, data, stage)}
    asked = getattr(recipe, stage).epochs + (0 if start is None else start.trained)
    ended = 'patience' if best is not None and best.ended else 'time' if last < asked else 'planned'
    course = {'kept_epoch': kept, 'epochs': last, 'ended': ended}
    spent = {'seconds': epochs[-1]['total_seconds'], 'passes': round(last * training_portion(recipe, stage), 3)}
    _keep_network(output, recipe, stage, genotype, network, data)
    write_text(output / GENOTYPE, genotype.to_json() + '\n')
    _keep_data(output, recipe, data)
    cost = cost_of(genotype, recipe, data, stage)
    measured = {**accuracies, **course, **spent, **cost, 'peak_memory_mib': peak_memory_mib()}
    page.finish(measured, answers, data)
    return _finish(output, measured, task.kept(data), **more)


def train_longer(
    output: Path,
    epochs: int,
    *,
    resume: bool = False,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Trains the network of a finished training for some more epochs, in the same folder.

    It starts from the weights that were kept, at a tenth of the recipe's learning rate, which falls to ``min_learning_rate`` by a cosine
    (for text it is constant). Where the best epoch is kept, that is the best of all epochs, the earlier ones included. Until it is
    finished, ``weights.pt`` and ``result.json`` are those from before; afterwards ``history`` in ``result.json`` has the earlier results.

    Args:
        output: the folder of the training.
        epochs: how many more.
        resume: continue this training if it was interrupted.
        on_start, on_epoch: as for :func:`search`.

    Returns:
        As :func:`train_cell`; epochs, seconds and passes count from the very beginning.

    Raises:
        InputError: if the folder holds no finished training, or one that is being continued otherwise.
    """
    output = Path(output)
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
        with _as_input_error(str(output / GENOTYPE)):
            genotype = genotype_from_text((output / GENOTYPE).read_text('utf-8'))
        data = task_of(recipe).load(recipe)
        check_amounts(output, run, task_of(recipe).amounts(data))
        if on_start:
            on_start(_headline(recipe, data), task_of(recipe).cautions(recipe, data, (stage,)))
        run[MORE] = pending
        write_json(output / RUN, run)
        trained = before['result'].get('epochs', getattr(recipe, stage).epochs)
        start = Start(output, trained, _best_before(recipe, stage, output, before['result'], trained), f'{MORE}-{len(pending)}')
        seed = run['seed'] + _MORE_SEED * len(pending)
        again = _gently(recipe, stage, epochs)
        history = [*before.get('history', []), {'epochs': trained, 'result': before['result']}]
        return _trained(again, stage, genotype, seed, output, data, resume, on_epoch, start, history=history)


def least_epochs(recipe: Recipe, strategy: str) -> int:
    """How long the shortest search with a supernet is that trains α."""
    return int(_strategy(recipe, strategy).least_epochs)


def _noted(plan: TimePlan | None) -> dict[str, Any]:
    """The plan for ``run.json``."""
    return {} if plan is None else {PLAN: plan.to_dict()}


def _in_time(plan: TimePlan | None, output: Path, resume: bool) -> list[EndInTime]:
    """Returns the callbacks that end a run within its time limit; none if it has no limit."""
    if plan is None:
        return []
    lines = epochs_of(output) if resume else []
    return [EndInTime(plan.deadline(lines[-1]['total_seconds'] if lines else 0.0), plan.tail)]


def _best_before(recipe: Recipe, stage: str, output: Path, result: Mapping[str, Any], trained: int) -> tuple[int, float] | None:
    """The epoch whose weights were kept, and its metric, where the best is kept."""
    lines = epochs_of(output)[:trained]
    values = [(line['epoch'], recipe.metric.of(line, 'valid')) for line in lines if recipe.metric.of(line, 'valid') is not None]
    if not recipe.keeps_best(stage) or not values:
        return None
    kept = result.get('kept_epoch')  # results of earlier versions lack it
    return next((value for value in values if value[0] == kept), None) or (trained, values[-1][1])


def _gently(recipe: Recipe, stage: str, epochs: int) -> Recipe:
    """The recipe for some more epochs of a finished training."""
    settings = getattr(recipe, stage)
    rate = settings.learning_rate / 10
    changes: dict[str, Any] = {'epochs': epochs, 'learning_rate': rate}
    if hasattr(settings, 'schedule'):
        changes |= {'schedule': 'cosine', 'min_learning_rate': min(settings.min_learning_rate, rate)}
    return recipe.model_copy(update={stage: settings.model_copy(update=changes)})


_MORE_SEED = 10_007
"""Between the seeds of a training and of its continuation: batches come in another order."""


def _train_network(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    on_epoch: OnEpoch | None = None,
    start: Start | None = None,
    plan: TimePlan | None = None,
) -> tuple[nn.Module, dict[str, float], tuple[Tensor, Tensor] | None, BestEpoch | None]:
    """The training itself, on every rank.

    Returns:
        The network; after ``retrain`` the metric on test data, and the answers to it; what followed validation.
    """
    task, settings = task_of(recipe), getattr(recipe, stage)
    seed_everything(seed, verbose=False)
    with _as_input_error(stage):
        network = task.network(recipe, stage, genotype, data)
    trained = 0 if start is None else start.trained
    folder = output if start is None else output / start.checkpoints
    arguments = _resume_arguments(folder, resume, output, trained)
    if start is not None and not arguments:
        start.load(network)
    module, datamodule = task.training(recipe, stage, data, seed, trained=trained > 0)
    module.set_model(network)
    logger = create_logger(recipe, folder, {'stage': stage, 'seed': seed}) if parallel.is_first() else None
    keep, best = recipe.keeps_best(stage), None
    if keep or settings.patience is not None:
        best = BestEpoch(recipe.metric, keep=keep, patience=settings.patience, before=trained)
        if start is not None and start.best is not None:
            best.start_from(*start.best, {name: value.clone() for name, value in network.state_dict().items()})
    with quiet_lightning():
        trainer = create_trainer(
            folder,
            epochs=settings.epochs,
            accelerator=recipe.accelerator,
            precision=recipe.precision,
            checkpoint_steps=recipe.checkpoint_steps,
            gradient_clip=settings.gradient_clip,
            on_epoch=on_epoch,
            around=(trained, 0),
            metrics=output / METRICS,
            logger=logger,
            callbacks=[
                *([SharedSteps()] if recipe.devices > 1 else []),
                *([best] if best is not None else []),
                *_in_time(plan, output, resume),
            ],
        )
        trainer.fit(module, datamodule=datamodule, **arguments)
        name = not_finite(network.state_dict())  # of an average over steps, or of the checkpoint of a run that had ended
        if name:
            raise ArithmeticError(
                f'the trained network holds NaN or infinite numbers ({name}): the training has diverged; start again with a lower '
                'learning rate'
            )
        if stage != 'retrain':
            return network, {}, None, best
        tested = trainer.test(module, datamodule=datamodule, verbose=False)[0]
        names = dict.fromkeys((f'test_{recipe.metric.name}', 'test_accuracy'))
        answers = module.answers()
        if answers is not None and not torch.isfinite(answers[0]).all():
            raise ArithmeticError(
                f'the network answers to test images with NaN in precision {recipe.precision}: the training has diverged; start again '
                'with a lower learning rate, or with precision: 32-true'
            )
        return network, {name: tested[name] for name in names if name in tested}, answers, best


def kept_description(output: Path) -> Description | None:
    """The description of the images that a run left in its folder; None if it left none.

    Raises:
        InputError: if the file is damaged.
    """
    path = Path(output) / DATA
    if not path.is_file():
        return None
    try:
        return Description.from_dict(read_json(path))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def _keep_network(output: Path, recipe: Recipe, stage: str, genotype: AnyGenotype, network: nn.Module, data: Any) -> None:
    """``weights.pt``, which can be used without the other files."""
    task = task_of(recipe)
    saved = SavedNetwork(
        kind=task.kind,
        genotype=genotype.to_json(),
        network=task.network_options(recipe, stage, data),
        description=task.kept(data),
        data=recipe.data.name,
        state_dict=network.state_dict(),
    )
    write_weights(output / WEIGHTS, saved)


def _keep_data(output: Path, recipe: Recipe, data: Any) -> None:
    kept = task_of(recipe).kept(data)
    if kept:
        write_json(output / DATA, kept)


def _headline(recipe: Recipe, data: Any) -> str:
    """Recipe, data, classes and sizes in a line."""
    return f'recipe {recipe.name}; {task_of(recipe).describe(recipe, data)}'


def cost_of(genotype: AnyGenotype, recipe: Recipe, data: Any, stage: str = 'retrain') -> dict[str, int]:
    """Parameters and multiply-adds (for one image, or one word) of the network that a stage trains.

    Args:
        data: as ``task_of(recipe).load(recipe)`` gives it, or its shape.
    """
    with _as_input_error(stage):
        cost = task_of(recipe).cost(recipe, stage, genotype, data)
    return {'parameters': cost.parameters, 'multiply_adds': cost.multiply_adds}


@contextmanager
def _as_input_error(what: str) -> Iterator[None]:
    """A value that does not fit is the user's: one sentence that says where, unless it says so already."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f'{what}: {error}') from None


def _resume_arguments(folder: Path, resume: bool, log: Path | None = None, before: int = 0) -> dict[str, Any]:
    """Returns the arguments with which ``fit`` continues from a checkpoint. ``log``, ``before``: as for :func:`last_checkpoint`."""
    try:
        checkpoint = parallel.agreed(last_checkpoint(folder, log, before) if resume and parallel.is_first() else None)
    except ValueError as error:
        raise InputError(f'the checkpoint in {folder} is damaged ({error}); start again in another folder') from None
    return {'ckpt_path': str(checkpoint), 'weights_only': True} if checkpoint else {}


def _finish(output: Path, result: dict[str, Any], description: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Writes ``result.json`` beside what the run was: settings, versions, command, state of the source.

    Args:
        output: folder of the run.
        result: what was measured.
        description: of the images, as plain data; empty for text.
        more: what else belongs into the file.
    """
    result = {**result}
    result.setdefault('peak_memory_mib', peak_memory_mib())
    run = json.loads((output / RUN).read_text('utf-8'))
    described = {'description': dict(description)} if description else {}
    write_json(output / RESULT, {'result': result, **described, **more, **run, **provenance()})
    return result
