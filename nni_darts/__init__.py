"""Differentiable architecture search for NNI. Names load when they are first used: ``import nni_darts`` imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_darts._lazy import lazy_names

if TYPE_CHECKING:
    from nni_darts.genotype import DARTS_OPERATIONS, Genotype
    from nni_darts.nasbench201 import NasBench201Genotype
    from nni_darts.published import PUBLISHED
    from nni_darts.recipe import Recipe
    from nni_darts.recurrent import RnnGenotype
    from nni_darts.runs.model import load_model

__version__ = '0.2.0.dev0'
__all__ = ['DARTS_OPERATIONS', 'PUBLISHED', 'Genotype', 'NasBench201Genotype', 'Recipe', 'RnnGenotype', '__version__', 'load_model']

_HOMES = {
    'DARTS_OPERATIONS': 'nni_darts.genotype',
    'Genotype': 'nni_darts.genotype',
    'NasBench201Genotype': 'nni_darts.nasbench201',
    'PUBLISHED': 'nni_darts.published',
    'Recipe': 'nni_darts.recipe',
    'RnnGenotype': 'nni_darts.recurrent',
    'load_model': 'nni_darts.runs.model',
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
