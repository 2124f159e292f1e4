"""Strategies without a supernet, which train cells one by one: random search, evolution, proxies, and their common interface."""

from nni_darts.strategies.trained.aging import Aging
from nni_darts.strategies.trained.base import CellSpace, OneByOne, Scores
from nni_darts.strategies.trained.prior import Prior
from nni_darts.strategies.trained.proxy_cells import ProxyCells
from nni_darts.strategies.trained.random_cells import RandomCells

__all__ = ['Aging', 'CellSpace', 'OneByOne', 'Prior', 'ProxyCells', 'RandomCells', 'Scores']
