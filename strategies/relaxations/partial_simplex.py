"""GAEA PC-DARTS: partial channels with α and the weights of edges on simplices (Li, Khodak et al., ICLR 2021)."""

from __future__ import annotations

from nni_darts.strategies.relaxations.partial import PartialChannels
from nni_darts.strategies.relaxations.simplex import OnSimplex

__all__ = ['PartialSimplex']


class PartialSimplex(OnSimplex, PartialChannels):
    """:class:`PartialChannels` with θ in place of softmax(α), and edge weights that add up to 1 for each node in place of softmax(β).

    Both follow exponentiated gradients. Arguments as for :class:`PartialChannels`.
    """
