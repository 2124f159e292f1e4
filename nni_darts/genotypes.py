"""Cells of every kind, read from what they are written down as. No torch in here.

:class:`~nni_darts.genotype.Genotype`, :class:`~nni_darts.nasbench201.NasBench201Genotype` and
:class:`~nni_darts.recurrent.RnnGenotype` share ``to_json``, ``to_text``, ``to_sample`` and ``code``; here is the way back for whoever
does not know which of them it will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_darts.genotype import Genotype, input_label
from nni_darts.nasbench201 import NasBench201Genotype, edge_label
from nni_darts.recurrent import KIND, RnnGenotype

__all__ = ['AnyGenotype', 'genotype_from_code', 'genotype_from_sample', 'genotype_from_text']

AnyGenotype = Genotype | NasBench201Genotype | RnnGenotype


def genotype_from_text(text: str) -> AnyGenotype:
    """Reads JSON or the literature's text. Raises ValueError for anything else."""
    text = text.strip()
    if text.startswith('|'):
        return NasBench201Genotype.from_text(text)
    if not text.startswith('{'):
        return (RnnGenotype if 'recurrent' in text else Genotype).from_text(text)
    if '"nasbench201"' in text:
        return NasBench201Genotype.from_json(text)
    return (RnnGenotype if '"recurrent"' in text else Genotype).from_json(text)


def genotype_from_code(code: str) -> AnyGenotype:
    """Reads the short code of any kind of cell. Raises ValueError for anything else."""
    for prefix, kind in (('nb201.', NasBench201Genotype), ('rnn.', RnnGenotype)):
        if code.startswith(prefix):
            return kind.from_code(code)
    return Genotype.from_code(code)


def genotype_from_sample(sample: Mapping[str, Any]) -> AnyGenotype:
    """The cell of an NNI sample of one of our spaces. Raises ValueError if labels are missing."""
    for label, kind in ((edge_label(1, 0), NasBench201Genotype), (input_label(KIND, 1), RnnGenotype)):
        if label in sample:
            return kind.from_sample(sample)
    return Genotype.from_sample(sample)
