"""Differentiable architecture search for NNI. Names load when they are first used: ``import nni_darts`` imports no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nni_darts._lazy import FormerModules, lazy_names

if TYPE_CHECKING:
    from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, Genotype
    from nni_darts.genotypes.nasbench201 import NasBench201Genotype
    from nni_darts.genotypes.published import PUBLISHED
    from nni_darts.genotypes.recurrent import RnnGenotype
    from nni_darts.recipes import Recipe
    from nni_darts.runs.loading import load_search
    from nni_darts.runs.model import load_model

__version__ = '0.2.0.dev0'
__all__ = [
    'DARTS_OPERATIONS',
    'PUBLISHED',
    'Genotype',
    'NasBench201Genotype',
    'Recipe',
    'RnnGenotype',
    '__version__',
    'load_model',
    'load_search',
]

_HOMES = {
    'DARTS_OPERATIONS': 'nni_darts.genotypes.convolutional',
    'Genotype': 'nni_darts.genotypes.convolutional',
    'NasBench201Genotype': 'nni_darts.genotypes.nasbench201',
    'PUBLISHED': 'nni_darts.genotypes.published',
    'Recipe': 'nni_darts.recipes',
    'RnnGenotype': 'nni_darts.genotypes.recurrent',
    'load_model': 'nni_darts.runs.model',
    'load_search': 'nni_darts.runs.loading',
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

_MOVED = {
    'nni_darts.candidates': 'nni_darts.genotypes.candidates',
    'nni_darts.choices': 'nni_darts.genotypes.neighbours',
    'nni_darts.genotype': 'nni_darts.genotypes.convolutional',
    'nni_darts.metric': 'nni_darts.recipes.metric',
    'nni_darts.nasbench201': 'nni_darts.genotypes.nasbench201',
    'nni_darts.published': 'nni_darts.genotypes.published',
    'nni_darts.recipe': 'nni_darts.recipes',
    'nni_darts.recurrent': 'nni_darts.genotypes.recurrent',
    'nni_darts.tasks': 'nni_darts.runs.tasks',
}
sys.meta_path.append(FormerModules(_MOVED))
