"""How costs of a search are counted: in forward-and-backward passes of a batch. Imports no torch."""

from __future__ import annotations

__all__ = ['EVALUATION']

EVALUATION = 1 / 3
"""A forward pass as a part of a forward and a backward one."""
