"""Training of a network: from scratch, from the weights of another training, or for additional epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.files import METRICS
from nni_darts.recipes import RUN, Recipe
from nni_darts.runs.budget import training_portion
from nni_darts.runs.costs import as_input_error, cost_of
from nni_darts.runs.folder import MORE, read_json
from nni_darts.runs.keeping import begun_from, callbacks_in_time, finish, keep_genotype, keep_network, resume_arguments
from nni_darts.runs.loggers import create_logger
from nni_darts.runs.spec import Work
from nni_darts.runs.start import Start
from nni_darts.runs.training_page import TrainingPage
from nni_darts.runs.weights import fitting
from nni_darts.training.best_epoch import BestEpoch
from nni_darts.training.divergence import not_finite
from nni_darts.training.run import EpochLog, create_trainer, epochs_of, peak_memory_mib, quiet_lightning
from nni_darts.training.sharing import SharedSteps

__all__ = ['begun_from_part', 'continued', 'finish_training', 'page_of', 'train_network']

_MORE_SEED = 10_007
"""Difference between the seeds of a training and its continuation, so that the order of batches differs."""


@dataclass(frozen=True)
class Trained:
    """A network that has been trained.

    Attributes:
        network: the network with the kept weights.
        tested: metrics on test data; empty in the stage ``select``.
        answers: predicted probabilities and labels of the test images; None without test images.
        best: callback that followed validation; None if none did.
    """

    network: nn.Module
    tested: dict[str, float]
    answers: tuple[Tensor, Tensor] | None
    best: BestEpoch | None


def page_of(work: Work) -> TrainingPage:
    """Returns the page of a training."""
    return TrainingPage(work.output, work.recipe, work.spec.stage, work.spec.architecture, read_json(work.output / RUN)['seed'])


def train_network(work: Work) -> Trained:
    """Trains a network, on every rank.

    Raises:
        InputError: if the network does not fit the data.
        ArithmeticError: if the training diverges.
    """
    recipe, stage, start = work.recipe, work.spec.stage, work.start
    settings = getattr(recipe, stage)
    seed_everything(work.spec.seed, verbose=False)
    with as_input_error(stage):
        network = work.task.network(recipe, stage, work.spec.genotype, work.data)
    trained = 0 if start is None else start.trained
    folder = work.output if start is None else work.output / start.checkpoints
    arguments = resume_arguments(work, folder, work.output, trained)
    if start is not None and not arguments:
        start.load(network)
    module, datamodule = work.task.training(recipe, stage, work.data, work.spec.seed, trained=trained > 0)
    module.set_model(network)
    best = _best_epoch(recipe, stage, network, start)
    with quiet_lightning():
        trainer = create_trainer(
            folder,
            recipe,
            settings.epochs if work.spec.part is None else work.spec.part[1],
            log=EpochLog(work.output / METRICS, work.watch.on_epoch, around=(trained, 0)),
            gradient_clip=settings.gradient_clip,
            logger=create_logger(recipe, folder, {'stage': stage, 'seed': work.spec.seed}) if parallel.is_first() else None,
            callbacks=[
                *([SharedSteps()] if recipe.devices > 1 else []),
                *([best] if best is not None else []),
                *callbacks_in_time(work),
            ],
        )
        with fitting(folder):
            trainer.fit(module, datamodule=datamodule, **arguments)
        name = not_finite(network.state_dict())  # the weights may be an average over steps, or come from the checkpoint of a finished run
        if name:
            raise ArithmeticError(
                f'the trained network holds NaN or infinite numbers ({name}): the training has diverged; start again with a lower '
                'learning rate'
            )
        if stage != 'retrain':
            return Trained(network, {}, None, best)
        tested = trainer.test(module, datamodule=datamodule, verbose=False)[0]
        names = dict.fromkeys((f'test_{recipe.metric.name}', 'test_accuracy'))
        answers = module.answers()
        if answers is not None and not torch.isfinite(answers[0]).all():
            raise ArithmeticError(
                f'the network answers to test images with NaN in precision {recipe.precision}: the training has diverged; start again '
                'with a lower learning rate, or with precision: 32-true'
            )
        return Trained(network, {name: tested[name] for name in names if name in tested}, answers, best)


def _best_epoch(recipe: Recipe, stage: str, network: nn.Module, start: Start | None) -> BestEpoch | None:
    """Returns the callback that follows validation to keep the best epoch or to apply ``patience``; None if neither is set."""
    settings, keep = getattr(recipe, stage), recipe.keeps_best(stage)
    if not keep and settings.patience is None:
        return None
    best = BestEpoch(recipe.metric, keep=keep, patience=settings.patience, before=0 if start is None else start.trained)
    if start is not None and start.best is not None:
        best.start_from(*start.best, {name: value.clone() for name, value in network.state_dict().items()})
    return best


def begun_from_part(work: Work) -> Work:
    """Puts the state at the end of a part of a training into the folder of the part that continues it, unless that has begun already.

    Returns:
        The work, which resumes from that state.

    Raises:
        InputError: if the folder of the earlier part has no checkpoint any more.
    """
    earlier = work.output.parent / work.spec.continues if work.spec.continues else None
    return begun_from(work, earlier, 'the first epochs of this training')


def finish_training(work: Work, done: Trained, page: TrainingPage, **more: Any) -> dict[str, Any]:
    """Writes the files of a training into its folder and returns the result.

    Args:
        work: the run.
        done: the trained network, as :func:`train_network` returns it.
        page: the page of the training.
        more: additional entries of ``result.json``.
    """
    recipe, stage, start, genotype, best = work.recipe, work.spec.stage, work.start, work.spec.architecture, done.best
    epochs = epochs_of(work.output)
    last = epochs[-1]['epoch']
    kept = best.epoch if best is not None and best.keep and best.epoch is not None else last
    accuracies = {**work.task.outcome(recipe, epochs[kept - 1]), **done.tested, **work.task.largest_class(recipe, work.data, stage)}
    asked = getattr(recipe, stage).epochs + (0 if start is None else start.trained)
    before, asked = (0, asked) if work.spec.part is None else work.spec.part
    ended = 'patience' if best is not None and best.ended else 'time' if last < asked else 'planned'
    course = {'kept_epoch': kept, 'epochs': last, 'ended': ended}
    earlier = epochs[before - 1]['total_seconds'] if before else 0.0  # other parts of the training have a cost of their own
    passes = (last - before) * training_portion(recipe, stage)
    spent = {'seconds': round(epochs[-1]['total_seconds'] - earlier, 2), 'passes': round(passes, 3)}
    keep_network(work, genotype, done.network)
    keep_genotype(work, genotype)
    measured = {**accuracies, **course, **spent, **cost_of(genotype, recipe, work.data, stage), 'peak_memory_mib': peak_memory_mib()}
    page.finish(measured, done.answers, work.data)
    return finish(work, measured, **more)


# Additional epochs ---------------------------------------------------------------------------------------------------------------------


def continued(work: Work, before: Mapping[str, Any], number: int, epochs: int) -> tuple[Work, int]:
    """Returns the run that continues a finished training, and the number of epochs trained so far.

    Args:
        work: the finished run, with the seed in ``run.json``.
        before: content of the finished run's ``result.json``.
        number: number of this continuation of the training, from 1.
        epochs: number of additional epochs.
    """
    stage, recipe = work.spec.stage, work.recipe
    trained = before['result'].get('epochs', getattr(recipe, stage).epochs)
    best = _best_before(recipe, stage, work.output, before['result'], trained)
    spec = replace(work.spec, seed=work.spec.seed + _MORE_SEED * number)
    start = Start(work.output, trained, best, f'{MORE}-{number}')
    return replace(work, spec=spec, recipe=_gently(recipe, stage, epochs), start=start), trained


def _best_before(recipe: Recipe, stage: str, output: Path, result: Mapping[str, Any], trained: int) -> tuple[int, float] | None:
    """Returns the epoch whose weights were kept, and its metric; None unless the best epoch is kept."""
    lines = epochs_of(output)[:trained]
    values = [(line['epoch'], recipe.metric.of(line, 'valid')) for line in lines if recipe.metric.of(line, 'valid') is not None]
    if not recipe.keeps_best(stage) or not values:
        return None
    kept = result.get('kept_epoch')  # results of earlier versions lack this entry
    return next((value for value in values if value[0] == kept), None) or (trained, values[-1][1])


def _gently(recipe: Recipe, stage: str, epochs: int) -> Recipe:
    """Returns the recipe for additional epochs of a finished training, at a lower learning rate."""
    settings = getattr(recipe, stage)
    rate = settings.learning_rate / 10
    changes: dict[str, Any] = {'epochs': epochs, 'learning_rate': rate}
    if hasattr(settings, 'schedule'):
        changes |= {'schedule': 'cosine', 'min_learning_rate': min(settings.min_learning_rate, rate)}
    return recipe.model_copy(update={stage: settings.model_copy(update=changes)})
