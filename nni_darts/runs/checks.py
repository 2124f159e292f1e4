"""Checks of a recipe before torch is imported: its strategies, their settings, and the location of the data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from nni_darts._lazy import check_module
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.sample import SampleGenotype
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.runs.cells import number_of_cells, own_settings
from nni_darts.strategies.catalogue import stage_epochs
from nni_darts.strategies.method import Method
from nni_darts.strategies.registry import check_name, find

__all__ = ['check_data_path', 'check_genotype', 'check_strategies', 'check_strategy', 'named_method', 'strategy_settings']

_DOWNLOADED = ('cifar10', 'cifar100', 'svhn', 'fashion-mnist')
_FILES = ('npz', 'csv')
_FOLDERS = ('folder', 'imagenet', 'text')
_MANY = 1_000_000_000


def named_method(name: str) -> Method:
    """Returns a method by its name. Raises InputError for an unknown name; the message lists the known names."""
    try:
        if ' ' in name:
            raise ValueError(f'a strategy has no space in its name: {name!r}')
        return find(name)
    except ValueError as error:
        raise InputError(str(error)) from None


def check_strategy(name: str, where: str = '') -> None:
    """Raises InputError for an unknown strategy. A user's module is located, but not imported.

    Args:
        name: name of the strategy.
        where: key or option that names the strategy, for the message.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f'{where}: {error}' if where else str(error)) from None


def strategy_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    """Returns a recipe's arguments for a strategy with a supernet, from ``search`` and from its entry in ``search.settings``."""
    listed = named_method(name).settings()
    values = {entry.name: getattr(recipe.search, entry.recipe.removeprefix('search.')) for entry in listed if entry.recipe}
    if values.get('warmup_epochs', 0) is None:
        del values['warmup_epochs']  # keep the default of the strategy's authors
    if recipe.metric not in (ACCURACY, PERPLEXITY) and any(entry.name == 'criterion' for entry in listed):
        values['criterion'] = 'loss'  # other metrics mean little on a batch
    return {**values, **own_settings(recipe, name)}


def check_strategies(recipe: Recipe, names: Iterable[str]) -> None:
    """Checks all of ``search.settings``, and that each strategy that will run has epochs in which α is trained.

    Args:
        recipe: all settings.
        names: names of the strategies that will run.

    Raises:
        InputError: for an unknown strategy or setting, or an impossible value.
    """
    for name, settings in recipe.search.settings.items():
        try:
            known = find(name)
        except ValueError as error:
            raise InputError(f'search.settings: {error}') from None
        if known.cells_key:
            number_of_cells(recipe, name)  # the error names the key that holds the number of its cells
            continue
        # A budget decides how many cells are trained one by one, whatever the settings say.
        bought = {'cells': _MANY} if known.one_by_one and recipe.budget is not None else {}
        try:
            known.check({**settings, **bought})
        except ValueError as error:
            raise InputError(f'search.settings of {name}: {error}') from None
    for name in names:
        chosen = named_method(name)
        if chosen.one_by_one:
            number_of_cells(recipe, name)
        else:
            _check_supernet(recipe, chosen, name)


def _check_supernet(recipe: Recipe, chosen: Method, name: str) -> None:
    epochs, settings = recipe.search.epochs, strategy_settings(recipe, name)
    warmup = settings.get('warmup_epochs', 0)
    try:
        chosen.check(settings)  # a user's own strategy may have settings without a default
        if recipe.budget is not None:
            return
        if chosen.in_stages:
            stage_epochs(epochs, warmup)
        elif warmup >= max(1, epochs):
            raise ValueError(f'warmup_epochs is {warmup}, which leaves none of the {epochs} epochs to train α in')
    except ValueError as error:
        raise InputError(f'search.settings of {name}: {error}') from None


def check_data_path(recipe: Recipe) -> None:
    """Raises InputError if the path of the data does not exist, or is a file instead of a folder or the reverse."""
    name, path = recipe.data.name, recipe.data.path
    if name.partition(':')[1]:
        check_module(name, 'data set')
    if not path or name not in (*_DOWNLOADED, *_FILES, *_FOLDERS):  # a user's own function may take any path
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
    """Raises InputError for a genotype whose network a stage of the recipe cannot train.

    Such genotypes are a recurrent cell in a recipe for images, a convolutional cell in a recipe for text, an architecture of a space other
    than the recipe's, and a cell of NAS-Bench-201 if the number of cells is not a multiple of 3.
    """
    if not recipe.space.accepts(genotype):
        wanted = recipe.space.cells_in_words
        hint = f'; set space.name to {genotype.space} to train it' if isinstance(genotype, SampleGenotype) else ''
        raise InputError(f'the recipe {recipe.name} trains {wanted}, and {genotype.to_text()[:60]}… is {genotype.in_words}{hint}')
    cells = getattr(getattr(recipe, stage), 'cells', None)
    if cells and cells % genotype.stages:
        raise InputError(
            f'{stage}.cells must be a multiple of {genotype.stages} for a cell of {genotype.kind}, which has three stages, not {cells}'
        )
