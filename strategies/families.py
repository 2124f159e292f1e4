"""The families of methods, under which the command line lists them. Imports no torch."""

from __future__ import annotations

__all__ = ['FAMILIES', 'GRADIENTS', 'PARTIAL', 'PATHS', 'ROBUST', 'SAMPLING', 'STEPWISE', 'TRAINED']

GRADIENTS = 'Gradients of α'
ROBUST = 'Against the collapse to skip connections'
SAMPLING = 'Sampled operations'
PARTIAL = 'A part of the channels'
STEPWISE = 'Decisions while searching'
PATHS = 'Single paths with shared weights'
TRAINED = 'Without a supernet'

FAMILIES = (GRADIENTS, ROBUST, SAMPLING, PARTIAL, STEPWISE, PATHS, TRAINED)
"""All families, in the order in which they are listed."""
