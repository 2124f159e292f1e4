"""Readers for genotypes of every kind, in all formats in which they are written. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_darts.genotypes.base import AnyGenotype, input_label, json_object
from nni_darts.genotypes.convolutional import KINDS, Genotype
from nni_darts.genotypes.nasbench201 import CODE_PREFIX as NASBENCH201_PREFIX
from nni_darts.genotypes.nasbench201 import NasBench201Genotype, edge_label
from nni_darts.genotypes.networks import KNOWN_PREFIX, KnownNetwork
from nni_darts.genotypes.notations import last_call, naslib_operations, nni_sample_fields, python_cells, reads_as_data
from nni_darts.genotypes.recurrent import CODE_PREFIX as RECURRENT_PREFIX
from nni_darts.genotypes.recurrent import KIND, RnnGenotype
from nni_darts.genotypes.sample import CODE_PREFIX as SAMPLE_PREFIX
from nni_darts.genotypes.sample import SampleGenotype

__all__ = ['genotype_from_code', 'genotype_from_dict', 'genotype_from_file', 'genotype_from_sample', 'genotype_from_text']

_BY_KEY: dict[str, type[AnyGenotype]] = {
    'network': KnownNetwork,
    'nasbench201': NasBench201Genotype,
    'recurrent': RnnGenotype,
    'sample': SampleGenotype,
    'space': SampleGenotype,
}
"""Distinctive key of the plain data → class of the genotype; data with none of these keys describes a pair of cells."""

_BY_PREFIX: dict[str, type[NasBench201Genotype] | type[RnnGenotype] | type[KnownNetwork] | type[SampleGenotype]] = {
    NASBENCH201_PREFIX: NasBench201Genotype,
    RECURRENT_PREFIX: RnnGenotype,
    KNOWN_PREFIX: KnownNetwork,
    SAMPLE_PREFIX: SampleGenotype,
}
"""Prefix of a code → class of the genotype; a code with none of these prefixes describes a pair of cells."""


def genotype_from_dict(value: Mapping[str, Any]) -> AnyGenotype:
    """Reads the plain data of any kind of genotype, as ``genotype.json`` holds it.

    Raises:
        ValueError: if a key is missing, unknown or wrong; the message names it.
    """
    return next((kind for key, kind in _BY_KEY.items() if key in value), Genotype).from_dict(value)


def genotype_from_text(text: str) -> AnyGenotype:
    """Reads a genotype from JSON, the literature's text, a sample of NNI's hub, NASLib's six numbers, or a log.

    From a log, the last ``Genotype(…)`` is read.

    Raises:
        ValueError: for any other text.
    """
    text = text.strip()
    if text.startswith('|'):
        return NasBench201Genotype.from_text(text)
    if text.startswith('{'):
        return _from_object(text)
    if text.startswith(('(', '[')) and isinstance(data := reads_as_data(text), tuple):
        if data and not any(isinstance(entry, (str, tuple, dict)) for entry in data):
            return NasBench201Genotype(naslib_operations(data))
        raise ValueError(f'{text[:60]!r} is a list that describes a graph cell or a cell of another space; {_FORMS}')
    text = last_call(text) or text
    return (RnnGenotype if 'recurrent' in text else Genotype).from_text(text)


_FORMS = 'cells are read as Genotype(normal=…, …), Genotype(recurrent=…, …), |operation~0|+…, JSON, a sample of NNI or six numbers'


def _from_object(text: str) -> AnyGenotype:
    """Reads the genotype of a JSON object, or of a dict as Python prints it."""
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
            return genotype_from_dict(data)
    return genotype_from_dict(json_object(text, Genotype.form))


def _from_own_sample(sample: Mapping[str, Any]) -> AnyGenotype:
    try:
        return genotype_from_sample(sample)
    except TypeError:  # a number instead of a list of inputs
        raise ValueError('this is not a sample of a known space: inputs must be lists of numbers, and operations must be names') from None


def genotype_from_file(text: str, name: str = '') -> AnyGenotype:
    """Reads a cell from the text of a Python file, which is parsed and never run.

    Args:
        text: content of the file.
        name: name of the cell; it may be empty if the file has a single cell.

    Raises:
        ValueError: if the file has no such cell, or several cells and no name is given.
    """
    cells = python_cells(text)
    if not name and len(set(cells.values())) == 1:
        name = next(iter(cells))
    if name not in cells:
        listed = ', '.join(list(cells)[:20]) or 'none'
        raise ValueError(f'no cell is called {name!r} here; there are {listed}' if name else f'say which cell, as FILE:NAME: {listed}')
    return genotype_from_text(cells[name])


def genotype_from_code(code: str) -> AnyGenotype:
    """Reads the code of any kind of genotype. Raises ValueError for any other text."""
    return next((kind for prefix, kind in _BY_PREFIX.items() if code.startswith(prefix)), Genotype).from_code(code)


def genotype_from_sample(sample: Mapping[str, Any]) -> AnyGenotype:
    """Returns the genotype of an NNI sample of one of this package's spaces. Raises ValueError if a label is missing."""
    for label, kind in ((edge_label(1, 0), NasBench201Genotype), (input_label(KIND, 1), RnnGenotype)):
        if label in sample:
            return kind.from_sample(sample)
    return Genotype.from_sample(sample)
