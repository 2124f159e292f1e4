"""The unit of a search's cost: forward-and-backward passes of a batch. Imports no torch."""

from __future__ import annotations

__all__ = ['EVALUATION']

EVALUATION = 1 / 3
"""The cost of a forward pass as a fraction of a forward and a backward pass."""
