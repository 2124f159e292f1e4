"""Cells of every kind, read from what they are written down as. No torch in here.

:class:`~nni_darts.genotype.Genotype`, :class:`~nni_darts.nasbench201.NasBench201Genotype` and
:class:`~nni_darts.recurrent.RnnGenotype` share ``to_json``, ``to_text``, ``to_sample`` and ``code``; here is the way back for whoever
does not know which of them it will be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nni_darts.genotype import KINDS, Genotype, input_label
from nni_darts.known import KNOWN_PREFIX, KnownNetwork
from nni_darts.nasbench201 import NasBench201Genotype, edge_label
from nni_darts.notations import last_call, naslib_operations, nni_sample_fields, python_cells, reads_as_data
from nni_darts.recurrent import KIND, RnnGenotype

__all__ = ['AnyGenotype', 'genotype_from_code', 'genotype_from_file', 'genotype_from_sample', 'genotype_from_text']

AnyGenotype = Genotype | NasBench201Genotype | RnnGenotype | KnownNetwork


def genotype_from_text(text: str) -> AnyGenotype:
    """Reads JSON, the literature's text, a sample of NNI's hub, NASLib's six numbers, or a log: then the last ``Genotype(…)`` in it.

    Raises:
        ValueError: for anything else.
    """
    text = text.strip()
    if text.startswith('|'):
        return NasBench201Genotype.from_text(text)
    if text.startswith('{'):
        return _from_object(text)
    if text.startswith(('(', '[')) and isinstance(data := reads_as_data(text), tuple):
        if data and not any(isinstance(entry, (str, tuple, dict)) for entry in data):
            return NasBench201Genotype(naslib_operations(data))
        raise ValueError(f'{text[:60]!r} is a list of a graph cell or of another space; {_FORMS}')
    text = last_call(text) or text
    return (RnnGenotype if 'recurrent' in text else Genotype).from_text(text)


_FORMS = 'cells are read as Genotype(normal=…, …), Genotype(recurrent=…, …), |operation~0|+…, JSON, a sample of NNI or six numbers'


def _from_object(text: str) -> AnyGenotype:
    """The cell of a JSON object, or of a dict as Python prints it."""
    data = reads_as_data(text)
    if isinstance(data, dict):
        fields = nni_sample_fields(data)
        if fields is not None:
            return (NasBench201Genotype if 'operations' in fields else Genotype)(**fields)
        if any(label in data for label in (edge_label(1, 0), input_label(KIND, 1), input_label(KINDS[0], 2))):
            return _from_own_sample(data)
        if 'module_adjacency' in data or 'matrix' in data or 'adjacency_matrix' in data:
            raise ValueError('this is a cell of NAS-Bench-101, a graph with operations on its nodes; ' + _FORMS)
        if "'" in text:
            text = json.dumps(data)
    if isinstance(data, dict) and 'network' in data:
        return KnownNetwork.from_json(text)
    if '"nasbench201"' in text:
        return NasBench201Genotype.from_json(text)
    return (RnnGenotype if '"recurrent"' in text else Genotype).from_json(text)


def _from_own_sample(sample: Mapping[str, Any]) -> AnyGenotype:
    try:
        return genotype_from_sample(sample)
    except TypeError:  # a number where a list of inputs must be
        raise ValueError('this is no sample of a space here: inputs must be lists of numbers, operations names') from None


def genotype_from_file(text: str, name: str = '') -> AnyGenotype:
    """The cell of that name in a Python file, which is parsed and never run; without a name, the only one in it.

    Raises:
        ValueError: if there is none, or which one is not said.
    """
    cells = python_cells(text)
    if not name and len(set(cells.values())) == 1:
        name = next(iter(cells))
    if name not in cells:
        listed = ', '.join(list(cells)[:20]) or 'none'
        raise ValueError(f'no cell is called {name!r} here; there are {listed}' if name else f'say which cell, as FILE:NAME: {listed}')
    return genotype_from_text(cells[name])


def genotype_from_code(code: str) -> AnyGenotype:
    """Reads the short code of any kind of cell. Raises ValueError for anything else."""
    for prefix, kind in (('nb201.', NasBench201Genotype), ('rnn.', RnnGenotype), (KNOWN_PREFIX, KnownNetwork)):
        if code.startswith(prefix):
            return kind.from_code(code)
    return Genotype.from_code(code)


def genotype_from_sample(sample: Mapping[str, Any]) -> AnyGenotype:
    """The cell of an NNI sample of one of our spaces. Raises ValueError if labels are missing."""
    for label, kind in ((edge_label(1, 0), NasBench201Genotype), (input_label(KIND, 1), RnnGenotype)):
        if label in sample:
            return kind.from_sample(sample)
    return Genotype.from_sample(sample)
