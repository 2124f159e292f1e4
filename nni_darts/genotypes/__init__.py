"""Finished architectures as plain data, one class for each kind of space, and the settings of these spaces. Imports no torch.

Every class is an :class:`AnyGenotype`; the functions here read a genotype without knowing its class.
"""

from __future__ import annotations

from nni_darts.genotypes.base import AnyGenotype
from nni_darts.genotypes.formats import (
    genotype_from_code,
    genotype_from_dict,
    genotype_from_file,
    genotype_from_sample,
    genotype_from_text,
)

__all__ = [
    'AnyGenotype',
    'genotype_from_code',
    'genotype_from_dict',
    'genotype_from_file',
    'genotype_from_sample',
    'genotype_from_text',
]
