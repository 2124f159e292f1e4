"""Differentiable architecture search for NNI. Names load when they are first used: ``import nni_darts`` imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_darts._lazy import lazy_names

if TYPE_CHECKING:
    from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, Genotype
    from nni_darts.genotypes.nasbench201 import NasBench201Genotype
    from nni_darts.genotypes.published import PUBLISHED
    from nni_darts.genotypes.recurrent import RnnGenotype
    from nni_darts.recipes import Recipe
    from nni_darts.runs.model import load_model

__version__ = '0.2.0.dev0'
__all__ = ['DARTS_OPERATIONS', 'PUBLISHED', 'Genotype', 'NasBench201Genotype', 'Recipe', 'RnnGenotype', '__version__', 'load_model']

_HOMES = {
    'DARTS_OPERATIONS': 'nni_darts.genotypes.convolutional',
    'Genotype': 'nni_darts.genotypes.convolutional',
    'NasBench201Genotype': 'nni_darts.genotypes.nasbench201',
    'PUBLISHED': 'nni_darts.genotypes.published',
    'Recipe': 'nni_darts.recipes',
    'RnnGenotype': 'nni_darts.genotypes.recurrent',
    'load_model': 'nni_darts.runs.model',
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
