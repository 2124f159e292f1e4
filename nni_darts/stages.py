"""The stages of the protocol (Liu et al., ICLR 2019, section 3): search, select, retrain. The command line and NNI's trials call these.

Each writes what a user wants to keep into its output folder: ``genotype.json``, ``metrics.jsonl`` (a line for each epoch),
``result.json`` (with all settings and versions), a checkpoint to resume from, of a search ``search.html`` with its data in
``search.json``, of a trained cell ``weights.pt``.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nni_darts import parallel
from nni_darts._nni import Lightning, ModelStatus, RawFormatModelSpace, SequentialExecutionEngine, TrainingEndEvent
from nni_darts.budget import affordable_epochs, training_passes, training_portion
from nni_darts.cells import cells_to_train, number_of_cells
from nni_darts.data import Description
from nni_darts.errors import InputError
from nni_darts.files import lock, replacing, write_text
from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_sample, genotype_from_text
from nni_darts.provenance import provenance
from nni_darts.ranks import together
from nni_darts.recipe import RUN, Recipe, with_split
from nni_darts.recurrent import RnnGenotype
from nni_darts.report.cautions import before_search
from nni_darts.report.searches import SEARCH, search_data, write_search
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.differentiable import EXECUTOR, DifferentiableStrategy
from nni_darts.strategies.fast import ExecutorChoice, ExecutorRecord
from nni_darts.strategies.presets import ALIASES, create_strategy, preset
from nni_darts.strategies.progressive_depth import ProgressiveDepth
from nni_darts.strategies.relaxations import SampledPaths
from nni_darts.tasks import task_of
from nni_darts.training.checkpoints import CHECKPOINT, PREVIOUS
from nni_darts.training.run import (
    METRICS,
    DecisionBar,
    OnEpoch,
    OnStep,
    create_trainer,
    device_type,
    epochs_of,
    last_checkpoint,
    peak_memory_mib,
    quiet_lightning,
)
from nni_darts.training.sharing import SharedSteps

__all__ = ['cautions', 'cost_of', 'kept_description', 'preflight', 'search', 'take_part', 'train_cell', 'trained_image_network']

OnStart = Callable[[str, list[str]], None]
"""Called before anything is trained: recipe, data, classes and sizes in a line, and what to be warned of."""

OnDecision = Callable[[dict[str, Any]], None]
"""Called with the record of a decision."""

RESULT, GENOTYPE, WEIGHTS, BY_MAGNITUDE = 'result.json', 'genotype.json', 'weights.pt', 'magnitude.json'
DATA = 'data.json'
"""Classes, channels, size, mean and deviation of the images: export needs no more of them."""
STAGE = 'stage-'
"""Begins the names of the folders with checkpoints of a search in stages."""
LOCK = 'run.lock'


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Makes the folder, if need be, and keeps other processes out of it.

    Raises:
        InputError: if it cannot be made, or another process is in there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        held = lock(output / LOCK)
    except OSError as error:
        raise InputError(f'cannot make the folder {output}: {error.strerror}') from None
    if held is None:
        raise InputError(f'another process is working in {output}')
    try:
        yield
    finally:
        os.close(held)


def _claim(output: Path, recipe: Recipe, what: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Makes the folder this run's own. Returns the result if the run that is resumed was finished.

    A run that ended before its first epoch has left nothing to lose: it is replaced.

    Raises:
        InputError: if the folder holds another run, or this one and it is not to be resumed, or files of the same names.
    """
    run = {**what, 'recipe': recipe.to_dict()}
    kept = sorted(
        file.name
        for file in output.iterdir()
        if file.name in (RESULT, GENOTYPE, WEIGHTS, METRICS, CHECKPOINT, PREVIOUS, 'cell-0', f'{STAGE}1')
    )
    before = _read_json(output / RUN) if (output / RUN).exists() and kept else None
    if before is not None:
        before['recipe'] = with_split(before.get('recipe', {}))
    if before is None and kept:
        raise InputError(f'{output} already holds {kept[0]}, which is not of a run that could go on; choose another folder')
    if before is not None and kept:
        if not resume:
            raise InputError(f'{output} already holds a run: go on with it with --resume, or choose another folder')
        different = _differences(run, before)
        if different:
            hint = f'; it splits its images by another rule: --set data.split={before["recipe"]["data"]["split"]} continues it'
            raise InputError(
                f'{output} holds a run with another {", ".join(different)}: a resumed run keeps its settings'
                + (hint if different == ['recipe.data.split'] else '')
            )
        if RESULT in kept:
            return _read_json(output / RESULT)['result']
        if EXECUTOR in before:
            run[EXECUTOR] = before[EXECUTOR]
    _write_json(output / RUN, run)
    return None


def _differences(one: Any, other: Any, path: str = '') -> list[str]:
    """The dotted keys under which two pieces of plain data differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [path]
    return [found for key in one for found in _differences(one[key], other.get(key), f'{path}.{key}'.lstrip('.'))]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} is damaged ({error}); start again in another folder') from None


def _reason(error: Exception) -> str:
    """The beginning of an error's text, which may be long, or empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:100]


def preflight(recipe: Recipe, strategies: Iterable[str], data: Any) -> list[str]:
    """Builds what the stages will build, without training: strategies, transforms, splits.

    Args:
        data: as ``task_of(recipe).load(recipe)`` gives it.

    Returns:
        What each strategy gets out of the recipe's budget, a line for each; none without a budget.

    Raises:
        InputError: for anything in the recipe that does not fit.
    """
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
    if recipe.budget is None:
        return recipe, ''

    def cost(epochs: int) -> float:
        return _search_passes(recipe, strategy, epochs, data)

    epochs = affordable_epochs(recipe, name, cost, strategy.least_epochs)
    tuning = first.selection.epochs(first.architecture)
    parts = f'{epochs} epochs of search' + (f' and {tuning} of tuning' if tuning else '')
    total = cost(epochs) + training_passes(recipe, 'select')
    return recipe.model_copy(update={'search': recipe.search.model_copy(update={'epochs': epochs})}), (
        f'{name}: {parts}, {total:.4g} passes with the short training of its cell'
    )


def _search_passes(recipe: Recipe, strategy: DifferentiableStrategy | ProgressiveDepth, epochs: int, data: Any) -> float:
    """What a search of so many epochs costs, in passes over the training data."""
    if isinstance(strategy, ProgressiveDepth):
        return sum(_search_passes(recipe, part, strategy.stage_epochs(epochs), data) for part in strategy.parts)
    task, scored = task_of(recipe), strategy.selection.scored(strategy.architecture)
    evaluated = sum(variants * task.evaluated_portion(recipe, data, batches) for variants, batches in scored)
    return training_portion(recipe, 'search') * strategy.passes(epochs) + EVALUATION * evaluated


def search(
    recipe: Recipe,
    strategy: str,
    seed: int,
    output: Path,
    *,
    resume: bool = False,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    on_decision: OnDecision | None = None,
    on_step: OnStep | None = None,
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Searches a cell with the strategy of that name.

    Args:
        recipe: all settings.
        strategy: a name of ``nni_darts.strategies.PRESETS``.
        seed: of everything that is drawn but the split of the data.
        output: folder for results and checkpoint.
        resume: go on from the checkpoint there, if there is one.
        on_start: called once the data is read, with recipe and data in a line and a list of warnings.
        on_epoch: called with each epoch's measurements.
        on_decision: called with each decision that a selection takes during or after the search: its line of ``selection.jsonl``.
        on_step: called after each batch of training, validation, testing or scoring.

    Returns:
        The genotype, and the result: validation accuracy of what was searched, cost of the found network at retraining size, seconds
        of all epochs, passes over the training data, peak memory (MiB).

    Raises:
        InputError: for an unknown strategy or setting, or missing data.
    """
    output = Path(output)
    try:
        chosen = preset(strategy)
    except ValueError as error:
        raise InputError(str(error)) from None
    data = task_of(recipe).load(recipe)
    fitted, _ = _checked_strategy(recipe, strategy, data)
    if on_start:
        on_start(_headline(recipe, data), cautions(recipe, [strategy], data, ('search',) if chosen.supernet else ('select',)))
    with _alone_in(output):
        finished = _claim(output, recipe, {'stage': 'search', 'strategy': strategy, 'seed': seed}, resume)
        if finished is not None:
            return genotype_from_text(json.dumps(_read_json(output / GENOTYPE))), finished
        if chosen.supernet:
            genotype, measured = _search_supernet(fitted, strategy, seed, output, data, resume, on_epoch, on_decision, on_step)
        else:
            genotype, measured = _search_cells(recipe, strategy, seed, output, resume, on_epoch, on_step)
        write_text(output / GENOTYPE, genotype.to_json() + '\n')
        _keep_data(output, recipe, data)
        return genotype, _finish(output, {**measured, **cost_of(genotype, recipe, data)})


def _search_supernet(
    recipe: Recipe,
    name: str,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    on_epoch: OnEpoch | None,
    on_decision: OnDecision | None,
    on_step: OnStep | None,
) -> tuple[AnyGenotype, dict[str, Any]]:
    with _on_its_devices(recipe, output, resume, {'stage': 'search', 'strategy': name, 'seed': seed}):
        whole, strategy = _train_supernet(recipe, name, seed, output, data, resume, on_epoch, on_decision, on_step)
    by_magnitude, stopped = strategy.architecture.by_magnitude, strategy.architecture.stopped
    if by_magnitude is not None:
        write_text(output / BY_MAGNITUDE, genotype_from_sample(by_magnitude).to_json() + '\n')
    _write_page(output, recipe, name, seed, over=True)
    early = {} if stopped is None else {'stopped_after': stopped['after'], 'cell_of_epoch': stopped['epoch']}
    valid, last = f'valid_{recipe.metric.name}', epochs_of(output)[-1]
    passes = round(_search_passes(recipe, whole, recipe.search.epochs, data), 3)
    share = task_of(recipe).largest_class(recipe, data, 'search')
    return _genotype(strategy), {valid: last[valid], **share, 'seconds': last['total_seconds'], 'passes': passes, **early}


def _on_its_devices(recipe: Recipe, output: Path, resume: bool, job: dict[str, Any]) -> AbstractContextManager[None]:
    """Within the block processes on the recipe's other devices do their parts of a job (:func:`take_part`)."""
    return together(recipe.devices, recipe.accelerator, {**job, 'recipe': recipe.to_dict(), 'output': str(output), 'resume': resume})


def take_part(job: Mapping[str, Any]) -> None:
    """The part of one of the other processes of a search or training on several devices: it does the same, and writes nothing.

    Args:
        job: ``stage``, ``recipe``, ``seed``, ``output``, ``resume``; for a search the ``strategy``, else ``arch``, the code of the cell.
    """
    recipe, output = Recipe.from_dict(job['recipe']), Path(job['output'])
    data = task_of(recipe).load(recipe)
    if job['stage'] == 'search':
        _train_supernet(recipe, job['strategy'], job['seed'], output, data, job['resume'])
    else:
        _train_network(recipe, job['stage'], genotype_from_code(job['arch']), job['seed'], output, data, job['resume'])


def _train_supernet(
    recipe: Recipe,
    name: str,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    on_epoch: OnEpoch | None = None,
    on_decision: OnDecision | None = None,
    on_step: OnStep | None = None,
) -> tuple[Any, DifferentiableStrategy]:
    """The search itself, on every rank. Returns the strategy, and the one of its last stage, which is the same where it has none."""
    task = task_of(recipe)
    seed_everything(seed)
    space = task.space(recipe, data)
    strategy = whole = _strategy(recipe, name)
    _keep_executor(strategy.executor_choice, output, resume)
    bar = DecisionBar()

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
            bar.close()
            _write_decisions(output, strategy)
            if on_decision:
                on_decision(record)

        module, datamodule = task.searching(recipe, data, seed)

        def scored(label: str, batches: int, total: int | None) -> None:
            bar.scored(label, batches, total)
            if on_step:
                on_step()

        if parallel.is_first():
            strategy.on_scored, strategy.on_decision = scored, decided
        with quiet_lightning():
            trainer = create_trainer(
                folder,
                epochs=recipe.search.epochs,
                accelerator=recipe.accelerator,
                precision=recipe.precision,
                checkpoint_steps=recipe.checkpoint_steps,
                on_epoch=described,
                on_step=on_step,
                extra=extra,
                around=around,
                metrics=output / METRICS,
            )
            evaluator = Lightning(module, trainer, datamodule=datamodule, fit_kwargs=_resume_arguments(folder, resume, output, around[0]))
            strategy(RawFormatModelSpace.from_model(space, evaluator), _InProcess())

    if isinstance(strategy, ProgressiveDepth):
        epochs = strategy.stage_epochs(recipe.search.epochs)
        short = recipe.model_copy(update={'search': recipe.search.model_copy(update={'epochs': epochs})})
        for number, (deeper, part) in enumerate(strategy.stages(space)):
            run(short, deeper, part, output / f'{STAGE}{number + 1}', (number * epochs, (len(strategy.parts) - number - 1) * epochs))
            # A resumed run does not repeat this stage, and must build the next one from the same random numbers.
            seed_everything(seed + _STAGE_SEED * (number + 1))
        strategy = part
    else:
        run(recipe, space, strategy, output)
    parallel.must_agree('cell', _genotype(strategy).code())
    return whole, strategy


def _keep_executor(choice: ExecutorChoice, output: Path, resume: bool) -> None:
    """Computes a resumed search as before, and notes in ``run.json``, from which ``result.json`` has it, how a search is computed."""
    kept = _read_json(output / RUN).get(EXECUTOR) if resume and parallel.is_first() else None
    choice.keep(parallel.agreed(kept))

    def noted(record: ExecutorRecord) -> None:
        _write_json(output / RUN, {**_read_json(output / RUN), EXECUTOR: record})

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
    settings: dict[str, Any] = {
        'learning_rate': recipe.search.architecture_learning_rate,
        'weight_decay': recipe.search.architecture_weight_decay,
        'gradient_clip_val': recipe.search.gradient_clip,
    }
    for other in recipe.search.settings:
        try:
            preset(other)
        except ValueError as error:
            raise InputError(f'search.settings: {error}') from None
    if recipe.search.warmup_epochs is not None:
        settings['warmup_epochs'] = recipe.search.warmup_epochs
    if '+' in ALIASES.get(name, name):
        settings['epochs_between'] = recipe.search.tuning_epochs
    with _as_input_error(f'search.settings of {name}'):
        return create_strategy(name, **{**settings, **recipe.search.settings.get(name, {})})


class _InProcess(SequentialExecutionEngine):
    """NNI's engine for one-shot strategies without its detour: that one takes over the channel on which a trial reports to NNI."""

    def _run_single_model(self, model: Any) -> None:
        model.execute()
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


def _search_cells(
    recipe: Recipe, name: str, seed: int, output: Path, resume: bool, on_epoch: OnEpoch | None, on_step: OnStep | None
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Random search and evolution: the cells one after the other through the select stage, best by validation."""
    valid = f'valid_{recipe.metric.name}'
    found: list[tuple[AnyGenotype, dict[str, Any]]] = []
    values: dict[int, float | None] = {}
    while len(found) < len(cells := cells_to_train(recipe, name, seed, values)):
        genotype, folder = cells[len(found)], output / f'cell-{len(found)}'
        found.append((genotype, train_cell(recipe, 'select', genotype, seed, folder, resume=resume, on_epoch=on_epoch, on_step=on_step)))
        values[len(found)] = found[-1][1][valid]
    best, result = recipe.metric.best(found, lambda entry: entry[1][valid])
    total = {name: round(sum(trained[name] for _, trained in found), 3) for name in ('seconds', 'passes')}
    share = {name: result[name] for name in ('largest_class',) if name in result}
    return best, {valid: result[valid], **share, **total}


def train_cell(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    *,
    resume: bool = False,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Trains the network of a genotype from scratch: briefly (``select``) or fully (``retrain``). Arguments as for :func:`search`.

    Test data is touched only by ``retrain``, once, after the last epoch.

    Returns:
        ``valid_accuracy`` where data is held out, ``train_accuracy``, after ``retrain`` also ``test_accuracy`` (or these three with
        ``perplexity``); cost, seconds, passes over the training data, peak memory (MiB).

    Raises:
        InputError: for missing data or a network that does not fit it.
    """
    task, output = task_of(recipe), Path(output)
    data = task.load(recipe)
    if on_start:
        on_start(_headline(recipe, data), task.cautions(recipe, data, (stage,)))
    with _alone_in(output):
        finished = _claim(output, recipe, {'stage': stage, 'seed': seed, 'genotype': json.loads(genotype.to_json())}, resume)
        if finished is not None:
            return finished
        with _on_its_devices(recipe, output, resume, {'stage': stage, 'seed': seed, 'arch': genotype.code()}):
            network, tested = _train_network(recipe, stage, genotype, seed, output, data, resume, on_epoch, on_step)
        epochs = epochs_of(output)
        passes = round(training_passes(recipe, stage), 3)
        accuracies = {**task.outcome(epochs), **tested, **task.largest_class(recipe, data, stage)}
        measured = {**accuracies, 'seconds': epochs[-1]['total_seconds'], 'passes': passes}
        with replacing(output / WEIGHTS) as file:
            torch.save(network.state_dict(), file)
        write_text(output / GENOTYPE, genotype.to_json() + '\n')
        _keep_data(output, recipe, data)
        return _finish(output, {**measured, **cost_of(genotype, recipe, data, stage)})


def _train_network(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    data: Any,
    resume: bool,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """The training itself, on every rank. Returns the network and, after ``retrain``, the metric on test data."""
    task, settings = task_of(recipe), getattr(recipe, stage)
    seed_everything(seed)
    with _as_input_error(stage):
        network = task.network(recipe, stage, genotype, data)
    module, datamodule = task.training(recipe, stage, data, seed)
    module.set_model(network)
    with quiet_lightning():
        trainer = create_trainer(
            output,
            epochs=settings.epochs,
            accelerator=recipe.accelerator,
            precision=recipe.precision,
            checkpoint_steps=recipe.checkpoint_steps,
            gradient_clip=settings.gradient_clip,
            on_epoch=on_epoch,
            on_step=on_step,
            callbacks=[SharedSteps()] if recipe.devices > 1 else [],
        )
        trainer.fit(module, datamodule=datamodule, **_resume_arguments(output, resume))
        if stage != 'retrain':
            return network, {}
        test = f'test_{recipe.metric.name}'
        return network, {test: trainer.test(module, datamodule=datamodule, verbose=False)[0][test]}


def trained_image_network(output: Path) -> tuple[nn.Module, AnyGenotype, Recipe, Any]:
    """What :func:`train_cell` left in a folder: the network with its weights (on the CPU, in evaluation mode), its cell, recipe and
    the description of its images. They need not be there any more, unless the folder is of a version that kept no description.

    Raises:
        InputError: if the folder holds no finished training of an image network, or its files are damaged.
    """
    output = Path(output)
    for name in (RUN, GENOTYPE, WEIGHTS):
        if not (output / name).is_file():
            raise InputError(f'{output} has no {name}: it is not the output folder of a finished nni-darts retrain')
    run = _read_json(output / RUN)
    recipe = Recipe.of_run(run['recipe'], source=str(output / RUN))
    try:
        genotype = genotype_from_text((output / GENOTYPE).read_text('utf-8'))
    except ValueError as error:
        raise InputError(f'{output / GENOTYPE}: {error}') from None
    if isinstance(genotype, RnnGenotype):
        raise InputError(f'{output} holds a language model, no image network')
    task = task_of(recipe)
    data = kept_description(output) or task.load(recipe).description
    with _as_input_error(run['stage']):
        network = task.network(recipe, run['stage'], genotype, data)
    try:
        network.load_state_dict(torch.load(output / WEIGHTS, map_location='cpu', weights_only=True))
    except Exception as error:  # torch, zipfile and pickle have a dozen kinds for a damaged file
        raise InputError(f'{output / WEIGHTS} does not hold the weights of this network ({_reason(error)})') from None
    return network.eval(), genotype, recipe, data


def kept_description(output: Path) -> Description | None:
    """The description of the images that a run left in its folder; None if it left none.

    Raises:
        InputError: if the file is damaged.
    """
    path = Path(output) / DATA
    if not path.is_file():
        return None
    try:
        return Description.from_dict(_read_json(path))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def _keep_data(output: Path, recipe: Recipe, data: Any) -> None:
    kept = task_of(recipe).kept(data)
    if kept:
        _write_json(output / DATA, kept)


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
    """A value that does not fit is the user's: one sentence that says where."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InputError(f'{what}: {error}') from None


def _resume_arguments(folder: Path, resume: bool, log: Path | None = None, before: int = 0) -> dict[str, Any]:
    """What ``fit`` is given to go on from the checkpoint in a folder. ``log``, ``before``: as for :func:`last_checkpoint`."""
    try:
        checkpoint = parallel.agreed(last_checkpoint(folder, log, before) if resume and parallel.is_first() else None)
    except ValueError as error:
        raise InputError(f'the checkpoint in {folder} is damaged ({error}); start again in another folder') from None
    return {'ckpt_path': str(checkpoint), 'weights_only': True} if checkpoint else {}


def _finish(output: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes ``result.json`` beside what the run was: settings, versions, command, state of the source."""
    result = {**result, 'peak_memory_mib': peak_memory_mib()}
    run = json.loads((output / RUN).read_text('utf-8'))
    _write_json(output / RESULT, {'result': result, **run, **provenance()})
    return result


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + '\n')
