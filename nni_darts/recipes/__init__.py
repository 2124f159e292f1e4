"""Recipes: every setting of data, space, search and training in one typed, validated, frozen object. Imports no torch."""

from __future__ import annotations

from nni_darts.recipes.loading import load_yaml, recipe_names, recipe_text
from nni_darts.recipes.recipe import RUN, Recipe, TextRecipe, with_split
from nni_darts.recipes.sections import DATA_NAMES, DataSettings, SearchSettings, TrainSettings
from nni_darts.recipes.text import TEXT_NAMES, TextSearchSettings, TextSettings, TextTrainSettings

__all__ = [
    'DATA_NAMES',
    'RUN',
    'TEXT_NAMES',
    'DataSettings',
    'Recipe',
    'SearchSettings',
    'TextRecipe',
    'TextSearchSettings',
    'TextSettings',
    'TextTrainSettings',
    'TrainSettings',
    'load_yaml',
    'recipe_names',
    'recipe_text',
    'with_split',
]
