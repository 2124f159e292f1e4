"""Checks that can refuse a recipe before torch is imported: strategies, their settings, the location of the data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from nni_darts._lazy import check_module
from nni_darts.cells import number_of_cells
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.strategies.catalogue import stage_epochs
from nni_darts.strategies.presets import ALIASES, Preset, preset

__all__ = ['check_data_path', 'check_genotype', 'check_strategies', 'named_preset', 'strategy_settings']

_DOWNLOADED = ('cifar10', 'cifar100', 'svhn', 'fashion-mnist')
_FILES = ('npz', 'csv')
_FOLDERS = ('folder', 'imagenet', 'text')
_MANY = 1_000_000_000


def named_preset(name: str) -> Preset:
    """The preset of that name. Raises InputError for an unknown one; the message lists the known ones."""
    try:
        return preset(name)
    except ValueError as error:
        raise InputError(str(error)) from None


def strategy_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    """The arguments that a recipe gives a strategy with a supernet: those of ``search``, and its own under ``search.settings``."""
    settings: dict[str, Any] = {
        'learning_rate': recipe.search.architecture_learning_rate,
        'weight_decay': recipe.search.architecture_weight_decay,
        'gradient_clip_val': recipe.search.gradient_clip,
    }
    if recipe.search.warmup_epochs is not None:
        settings['warmup_epochs'] = recipe.search.warmup_epochs
    if '+' in _full_name(name):
        settings['epochs_between'] = recipe.search.tuning_epochs
    if recipe.metric not in (ACCURACY, PERPLEXITY) and any('criterion' in part.model_fields for part in preset(name).own):
        settings['criterion'] = 'loss'  # other metrics mean little on a batch
    same = [other for other in recipe.search.settings if _full_name(other) == _full_name(name)]
    own = name if name in same else next(iter(same), None)  # under its other name, if not under this one
    return {**settings, **(recipe.search.settings[own] if own is not None else {})}


def check_strategies(recipe: Recipe, names: Iterable[str]) -> None:
    """Checks the settings of all strategies in ``search.settings`` and that every strategy that will run has epochs to train α in.

    Args:
        names: the strategies that will run.

    Raises:
        InputError: for an unknown strategy, a setting that it does not have, or a value that it cannot have.
    """
    for name, settings in recipe.search.settings.items():
        try:
            known = preset(name)
        except ValueError as error:
            raise InputError(f'search.settings: {error}') from None
        if name == 'random':
            number_of_cells(recipe, name)  # says where its only setting is
            continue
        # A budget decides how many cells evolution trains, whatever its settings say.
        bought = {'cells': _MANY} if name == 'evolution' and recipe.budget is not None else {}
        try:
            known.check({**settings, **bought})
        except ValueError as error:
            raise InputError(f'search.settings of {name}: {error}') from None
    for name in names:
        chosen = named_preset(name)
        if not chosen.supernet:
            number_of_cells(recipe, name)
        elif recipe.budget is None:
            _check_warmup(recipe, chosen, name)


def _check_warmup(recipe: Recipe, chosen: Preset, name: str) -> None:
    epochs, warmup = recipe.search.epochs, strategy_settings(recipe, name).get('warmup_epochs', 0)
    try:
        if chosen.built_by == 'ProgressiveDepth':
            stage_epochs(epochs, warmup)
        elif warmup >= max(1, epochs):
            raise ValueError(f'warmup_epochs is {warmup}, which leaves none of the {epochs} epochs to train α in')
    except ValueError as error:
        raise InputError(f'search.settings of {name}: {error}') from None


def check_data_path(recipe: Recipe) -> None:
    """Raises InputError for a path of data where nothing is, or a file where a folder belongs, or the reverse."""
    name, path = recipe.data.name, recipe.data.path
    if name.partition(':')[1]:
        check_module(name, 'data set')
    if not path or name not in (*_DOWNLOADED, *_FILES, *_FOLDERS):  # a function of the user's may be given anything
        return
    if not os.path.exists(path):
        download = (
            f' {name} is read from a folder into which torchvision has downloaded it: download it once.' if name in _DOWNLOADED else ''
        )
        raise InputError(f'data.path: there is no file or folder {path}.{download}')
    if os.path.isdir(path) == (name in _FILES):
        raise InputError(
            f'data.path: {path} is a {"folder" if name in _FILES else "file"}; the data set {name} is read from a '
            f'{"file" if name in _FILES else "folder"}'
        )


def check_genotype(recipe: Recipe, genotype: AnyGenotype, stage: str) -> None:
    """Raises InputError for a cell whose network a stage of the recipe cannot train.

    That is a recurrent cell where the recipe is about images, a convolutional one where it is about text, an architecture of another space
    than the recipe's, or a cell of NAS-Bench-201 where the number of cells is no multiple of 3.
    """
    if not recipe.space.accepts(genotype):
        wanted = recipe.space.cells_in_words
        raise InputError(f'the recipe {recipe.name} trains {wanted}, and {genotype.to_text()[:60]}… is {genotype.in_words}')
    cells = getattr(getattr(recipe, stage), 'cells', None)
    if cells and cells % genotype.stages:
        raise InputError(
            f'{stage}.cells must be a multiple of {genotype.stages} for a cell of {genotype.kind}, which has three stages, not {cells}'
        )


def _full_name(name: str) -> str:
    return str(ALIASES.get(name, name))
