"""Differentiable architecture search for NNI. Names load when they are first used: ``import nni_darts`` imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nni_darts.genotype import DARTS_OPERATIONS, Genotype
    from nni_darts.published import PUBLISHED
    from nni_darts.recipe import Recipe

__version__ = '0.1.0'
__all__ = ['DARTS_OPERATIONS', 'PUBLISHED', 'Genotype', 'Recipe', '__version__']

_HOMES = {
    'DARTS_OPERATIONS': 'nni_darts.genotype',
    'Genotype': 'nni_darts.genotype',
    'PUBLISHED': 'nni_darts.published',
    'Recipe': 'nni_darts.recipe',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
