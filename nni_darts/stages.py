"""The stages of the protocol (Liu et al., ICLR 2019, section 3): search, select, retrain. The command line and NNI's trials call these.

Each writes what a user wants to keep into its output folder: ``genotype.json``, ``metrics.jsonl`` (a line for each epoch),
``result.json`` (with all settings and versions), a checkpoint to resume from and, of a trained cell, ``weights.pt``.
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nni_darts import __version__
from nni_darts._nni import Lightning, ModelStatus, RawFormatModelSpace, SequentialExecutionEngine, TrainingEndEvent
from nni_darts.budget import affordable_epochs, training_passes, training_portion
from nni_darts.cells import cells_to_train, number_of_cells
from nni_darts.errors import InputError
from nni_darts.files import write_text
from nni_darts.genotypes import AnyGenotype, genotype_from_sample, genotype_from_text
from nni_darts.recipe import Recipe
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.presets import ALIASES, create_strategy, preset
from nni_darts.tasks import task_of
from nni_darts.training.run import (
    CHECKPOINT,
    METRICS,
    DecisionBar,
    OnEpoch,
    create_trainer,
    epochs_of,
    last_checkpoint,
    peak_memory_mib,
    quiet_lightning,
)

__all__ = ['cost_of', 'preflight', 'search', 'train_cell']

OnDecision = Callable[[dict[str, Any]], None]
"""Called with the record of a decision."""

RUN, RESULT, GENOTYPE, WEIGHTS, BY_MAGNITUDE = 'run.json', 'result.json', 'genotype.json', 'weights.pt', 'magnitude.json'


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _claim(output: Path, recipe: Recipe, what: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Makes the folder this run's own. Returns the result if the run that is resumed was finished.

    A run that ended before its first epoch has left nothing to lose: it is replaced.

    Raises:
        InputError: if the folder holds another run, or this one and it is not to be resumed, or files of the same names.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot make the folder {output}: {error.strerror}') from None
    run = {**what, 'recipe': recipe.to_dict()}
    kept = sorted(file.name for file in output.iterdir() if file.name in (RESULT, GENOTYPE, WEIGHTS, METRICS, CHECKPOINT, 'cell-0'))
    before = _read_json(output / RUN) if (output / RUN).exists() and kept else None
    if before is None and kept:
        raise InputError(f'{output} already holds {kept[0]}, which is not of a run that could go on; choose another folder')
    if before is not None and kept:
        if not resume:
            raise InputError(f'{output} already holds a run: go on with it with --resume, or choose another folder')
        different = _differences(run, before)
        if different:
            raise InputError(f'{output} holds a run with another {", ".join(different)}: a resumed run keeps its settings')
        if RESULT in kept:
            return _read_json(output / RESULT)['result']
        _check_checkpoint(output)
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


def _check_checkpoint(output: Path) -> None:
    """Finds damage before Lightning runs into it."""
    if (output / CHECKPOINT).exists():
        try:
            torch.load(output / CHECKPOINT, map_location='meta', weights_only=True)
            if not epochs_of(output):
                raise ValueError(f'{METRICS} is missing')
        except Exception as error:  # torch, zipfile and pickle have a dozen kinds for a damaged file
            reason = str(error).splitlines()[0][:100]
            raise InputError(f'the checkpoint in {output} is damaged ({reason}); start again in another folder') from None


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


def _checked_strategy(recipe: Recipe, name: str, data: Any) -> tuple[Recipe, str]:
    """The recipe as a strategy follows it, with as many epochs as the budget pays for, if there is one; and that in words.

    Builds the supernet that it would search, on torch's meta device: nothing is allocated. Others have settings only.
    """
    if not preset(name).supernet:
        count = number_of_cells(recipe, name)
        return recipe, f'{name}: {count} cells, {count * training_passes(recipe, "select"):.4g} passes'
    strategy, task = _strategy(recipe, name), task_of(recipe)
    with _as_input_error(f'{name} in the space {recipe.space.name}'), torch.device('meta'):
        task.check(strategy)
        strategy.mutate_model(task.space(recipe, data))
    if recipe.budget is None:
        return recipe, ''

    def cost(epochs: int) -> float:
        return _search_passes(recipe, strategy, epochs, data)

    least = 1 if strategy.warmup_epochs < 1 else int(strategy.warmup_epochs) + 1
    epochs = affordable_epochs(recipe, name, cost, least)
    tuning = strategy.selection.epochs(strategy.architecture)
    parts = f'{epochs} epochs of search' + (f' and {tuning} of tuning' if tuning else '')
    total = cost(epochs) + training_passes(recipe, 'select')
    return recipe.model_copy(update={'search': recipe.search.model_copy(update={'epochs': epochs})}), (
        f'{name}: {parts}, {total:.4g} passes with the short training of its cell'
    )


def _search_passes(recipe: Recipe, strategy: DifferentiableStrategy, epochs: int, data: Any) -> float:
    """What a search of so many epochs costs, in passes over the training data."""
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
    on_epoch: OnEpoch | None = None,
    on_decision: OnDecision | None = None,
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Searches a cell with the strategy of that name.

    Args:
        recipe: all settings.
        strategy: a name of ``nni_darts.strategies.PRESETS``.
        seed: of everything that is drawn but the split of the data.
        output: folder for results and checkpoint.
        resume: go on from the checkpoint there, if there is one.
        on_epoch: called with each epoch's measurements.
        on_decision: called with each decision that a selection takes during or after the search: its line of ``selection.jsonl``.

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
    finished = _claim(output, recipe, {'stage': 'search', 'strategy': strategy, 'seed': seed}, resume)
    if finished is not None:
        return genotype_from_text(json.dumps(_read_json(output / GENOTYPE))), finished
    if chosen.supernet:
        genotype, measured = _search_supernet(fitted, strategy, seed, output, data, resume, on_epoch, on_decision)
    else:
        genotype, measured = _search_cells(recipe, strategy, seed, output, resume, on_epoch)
    write_text(output / GENOTYPE, genotype.to_json() + '\n')
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
) -> tuple[AnyGenotype, dict[str, Any]]:
    task = task_of(recipe)
    seed_everything(seed)
    space = task.space(recipe, data)
    strategy = _strategy(recipe, name)
    module, datamodule = task.searching(recipe, data, seed)
    with quiet_lightning():
        trainer = create_trainer(
            output,
            epochs=recipe.search.epochs,
            accelerator=recipe.accelerator,
            precision=recipe.precision,
            on_epoch=on_epoch,
            extra=lambda: {
                **_decided(strategy),
                'probabilities': strategy.probabilities(),
                'genotype': json.loads(_genotype(strategy).to_json()),
            },
        )
        bar = DecisionBar()

        def decided(record: dict[str, Any]) -> None:
            bar.close()
            _write_decisions(output, strategy)
            if on_decision:
                on_decision(record)

        strategy.on_scored, strategy.on_decision = bar.scored, decided
        evaluator = Lightning(module, trainer, datamodule=datamodule, fit_kwargs=_resume_arguments(output, resume))
        strategy(RawFormatModelSpace.from_model(space, evaluator), _InProcess())
    by_magnitude = strategy.architecture.by_magnitude
    if by_magnitude is not None:
        write_text(output / BY_MAGNITUDE, genotype_from_sample(by_magnitude).to_json() + '\n')
    last = epochs_of(output)[-1]
    valid = f'valid_{recipe.metric.name}'
    passes = round(_search_passes(recipe, strategy, recipe.search.epochs, data), 3)
    return _genotype(strategy), {valid: last[valid], 'seconds': last['total_seconds'], 'passes': passes}


def _decided(strategy: DifferentiableStrategy) -> dict[str, Any]:
    """How far a selection that decides one by one has come, and how clear its last decision was; nothing for other selections."""
    total, history = strategy.selection.decisions(strategy.architecture), strategy.architecture.history
    if not total:
        return {}
    margin = history[-1]['margin'] if history else None
    return {'decisions': len(history), 'of_decisions': total, **({} if margin is None else {'margin': margin})}


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
    recipe: Recipe, name: str, seed: int, output: Path, resume: bool, on_epoch: OnEpoch | None
) -> tuple[AnyGenotype, dict[str, Any]]:
    """Random search and evolution: the cells one after the other through the select stage, best by validation."""
    valid = f'valid_{recipe.metric.name}'
    found: list[tuple[AnyGenotype, dict[str, Any]]] = []
    values: dict[int, float | None] = {}
    while len(found) < len(cells := cells_to_train(recipe, name, seed, values)):
        genotype, folder = cells[len(found)], output / f'cell-{len(found)}'
        found.append((genotype, train_cell(recipe, 'select', genotype, seed, folder, resume=resume, on_epoch=on_epoch)))
        values[len(found)] = found[-1][1][valid]
    best, result = recipe.metric.best(found, lambda entry: entry[1][valid])
    total = {name: round(sum(trained[name] for _, trained in found), 3) for name in ('seconds', 'passes')}
    return best, {valid: result[valid], **total}


def train_cell(
    recipe: Recipe,
    stage: str,
    genotype: AnyGenotype,
    seed: int,
    output: Path,
    *,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Trains the network of a genotype from scratch: briefly (``select``) or fully (``retrain``). Arguments as for :func:`search`.

    Test data is touched only by ``retrain``, once, after the last epoch.

    Returns:
        ``valid_accuracy`` where data is held out, ``train_accuracy``, after ``retrain`` also ``test_accuracy`` (or these three with
        ``perplexity``); cost, seconds, passes over the training data, peak memory (MiB).

    Raises:
        InputError: for missing data or a network that does not fit it.
    """
    task, settings = task_of(recipe), getattr(recipe, stage)
    output = Path(output)
    data = task.load(recipe)
    finished = _claim(output, recipe, {'stage': stage, 'seed': seed, 'genotype': json.loads(genotype.to_json())}, resume)
    if finished is not None:
        return finished
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
            gradient_clip=settings.gradient_clip,
            on_epoch=on_epoch,
        )
        trainer.fit(module, datamodule=datamodule, **_resume_arguments(output, resume))
        epochs = epochs_of(output)
        measured = {**task.outcome(epochs), 'seconds': epochs[-1]['total_seconds'], 'passes': round(training_passes(recipe, stage), 3)}
        if stage == 'retrain':
            test = f'test_{recipe.metric.name}'
            measured[test] = trainer.test(module, datamodule=datamodule, verbose=False)[0][test]
    torch.save(network.state_dict(), output / WEIGHTS)
    write_text(output / GENOTYPE, genotype.to_json() + '\n')
    return _finish(output, {**measured, **cost_of(genotype, recipe, data, stage)})


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


def _resume_arguments(output: Path, resume: bool) -> dict[str, Any]:
    checkpoint = last_checkpoint(output) if resume else None
    return {'ckpt_path': str(checkpoint), 'weights_only': True} if checkpoint else {}


def _finish(output: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes ``result.json`` beside what the run was: settings, versions."""
    result = {**result, 'peak_memory_mib': peak_memory_mib()}
    versions = {name: metadata.version(name) for name in ('nni', 'torch', 'torchvision', 'pytorch-lightning')}
    run = json.loads((output / RUN).read_text('utf-8'))
    versions = {'nni-darts': __version__, 'python': platform.python_version(), **versions}
    _write_json(output / RESULT, {'result': result, **run, 'versions': versions})
    return result


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + '\n')
