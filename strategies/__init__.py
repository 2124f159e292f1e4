"""How a model space is searched. Knows no data set and no particular space. Names load when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_darts._lazy import lazy_names

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableStrategy
    from nni_darts.strategies.evolution import Evolution
    from nni_darts.strategies.presets import PRESETS, create_strategy
    from nni_darts.strategies.progressive_depth import ProgressiveDepth
    from nni_darts.strategies.random_search import RandomSearch

__all__ = ['PRESETS', 'DifferentiableStrategy', 'Evolution', 'ProgressiveDepth', 'RandomSearch', 'create_strategy']

_HOMES = {
    'DifferentiableStrategy': 'nni_darts.strategies.differentiable',
    'Evolution': 'nni_darts.strategies.evolution',
    'PRESETS': 'nni_darts.strategies.presets',
    'ProgressiveDepth': 'nni_darts.strategies.progressive_depth',
    'RandomSearch': 'nni_darts.strategies.random_search',
    'create_strategy': 'nni_darts.strategies.presets',
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
