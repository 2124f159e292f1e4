"""Search strategies for model spaces. They do not depend on any data set or space. Names are imported when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_darts._lazy import lazy_names

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableStrategy
    from nni_darts.strategies.method import Method
    from nni_darts.strategies.methods import METHODS
    from nni_darts.strategies.progressive_depth import ProgressiveDepth
    from nni_darts.strategies.registry import create_strategy, find
    from nni_darts.strategies.trained.base import OneByOne
    from nni_darts.strategies.trained.in_process import Evolution, ProxySearch, RandomSearch

__all__ = [
    'METHODS',
    'DifferentiableStrategy',
    'Evolution',
    'Method',
    'OneByOne',
    'ProgressiveDepth',
    'ProxySearch',
    'RandomSearch',
    'create_strategy',
    'find',
]

_HOMES = {
    'DifferentiableStrategy': 'nni_darts.strategies.differentiable',
    'Evolution': 'nni_darts.strategies.trained.in_process',
    'METHODS': 'nni_darts.strategies.methods',
    'Method': 'nni_darts.strategies.method',
    'OneByOne': 'nni_darts.strategies.trained.base',
    'PRESETS': 'nni_darts.strategies.presets',  # for one version
    'ProgressiveDepth': 'nni_darts.strategies.progressive_depth',
    'ProxySearch': 'nni_darts.strategies.trained.in_process',
    'RandomSearch': 'nni_darts.strategies.trained.in_process',
    'create_strategy': 'nni_darts.strategies.registry',
    'find': 'nni_darts.strategies.registry',
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
