"""How a model space is searched. Knows no data set and no particular space. Names load when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableStrategy
    from nni_darts.strategies.presets import PRESETS, create_strategy
    from nni_darts.strategies.random_search import RandomSearch

__all__ = ['PRESETS', 'DifferentiableStrategy', 'RandomSearch', 'create_strategy']

_HOMES = {
    'DifferentiableStrategy': 'nni_darts.strategies.differentiable',
    'PRESETS': 'nni_darts.strategies.presets',
    'RandomSearch': 'nni_darts.strategies.random_search',
    'create_strategy': 'nni_darts.strategies.presets',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
