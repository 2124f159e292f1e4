"""How an architecture is read out of α."""

from nni_darts.strategies.selections.magnitude import Magnitude, Selection

__all__ = ['Magnitude', 'Selection']
