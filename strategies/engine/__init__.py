"""The Lightning module of a search, with its loaders, its epochs and its scoring mode."""

from __future__ import annotations

from nni_darts.strategies.engine.loaders import SearchLoaders
from nni_darts.strategies.engine.module import DifferentiableModule

__all__ = ['DifferentiableModule', 'SearchLoaders']
