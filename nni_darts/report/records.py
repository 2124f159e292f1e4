"""Records of a search's epochs, and their encoding in a trial's metrics. Imports no torch.

A record is a line of ``metrics.jsonl``: numbers, ``probabilities`` (label → operation → probability), ``genotype`` (the cell that would be
derived at this epoch) and ``decided`` (the decisions made at its end). NNI's metrics can only carry numbers and short strings, so a record
is packed into about 700 characters (for the DARTS space); :func:`unpack` restores it up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_dict
from nni_darts.genotypes.base import packed as deflated
from nni_darts.genotypes.base import unpacked as inflated
from nni_darts.genotypes.convolutional import OPERATION_NAMES
from nni_darts.genotypes.nasbench201 import OPERATIONS
from nni_darts.genotypes.recurrent import ACTIVATIONS

__all__ = ['OPERATION_ORDER', 'genotype_of', 'indicators', 'pack', 'skips', 'unpack']

OPERATION_ORDER = tuple(dict.fromkeys((*OPERATION_NAMES, *OPERATIONS, *ACTIVATIONS)))
"""All operations of all spaces; the packed text refers to an operation by its index here."""

_DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
_ONE = 64**2 - 1
_TEXTS = ('arch', 'probabilities', 'tables', 'decided')
_SKIPS = ('skip_connect', 'identity', 'skip')


def pack(record: Mapping[str, Any]) -> dict[str, float | str]:
    """Returns a record as NNI's metrics can carry it: numbers, the :func:`indicators`, and three strings without ``#`` and ``//``."""
    packed: dict[str, float | str] = {name: value for name, value in record.items() if isinstance(value, (int, float))}
    if 'genotype' not in record:
        return packed
    genotype = genotype_of(record)
    packed |= indicators(record)
    packed['arch'] = genotype.code()
    tables = record['probabilities']
    if all(name in OPERATION_ORDER for table in tables.values() for name in table):
        packed['probabilities'] = '.'.join(
            ''.join(_DIGITS[OPERATION_ORDER.index(name)] + _fraction(value) for name, value in tables.get(label, {}).items())
            for label in _labels(genotype)
        )
    else:  # the user's own operations have no digit
        packed['tables'] = deflated({label: {name: round(value, 4) for name, value in table.items()} for label, table in tables.items()})
    if record.get('decided'):
        packed['decided'] = ';'.join(
            f'{entry["stage"]}|{entry["label"]}|{entry["choice"]}|{"-" if entry["margin"] is None else format(entry["margin"], ".6g")}'
            for entry in record['decided']
        )
    return packed


def unpack(metric: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record from which :func:`pack` made a metric. Raises ValueError for strings that :func:`pack` did not write."""
    record = {name: value for name, value in metric.items() if name not in _TEXTS}
    if 'arch' not in metric or not {'probabilities', 'tables'} & metric.keys():
        return record
    genotype = genotype_from_code(metric['arch'])
    record['genotype'] = genotype.to_dict()
    if 'tables' in metric:
        record['probabilities'] = inflated(metric['tables'])
    else:
        labels, tables = _labels(genotype), metric['probabilities'].split('.')
        if len(tables) != len(labels):
            raise ValueError(f'{len(tables)} tables of probabilities do not fit {len(labels)} edges')
        record['probabilities'] = {label: _table(text) for label, text in zip(labels, tables) if text}
    record['decided'] = [_decision(text) for text in metric.get('decided', '').split(';') if text]
    return record


def _labels(genotype: AnyGenotype) -> list[str]:
    """Returns the labels of all choices among operations, in the order of the packed text."""
    return [label for cell in genotype.all_edges().values() for label, _, _ in cell.edges]


def _fraction(value: float) -> str:
    high, low = divmod(round(min(max(value, 0.0), 1.0) * _ONE), 64)
    return _DIGITS[high] + _DIGITS[low]


def _table(text: str) -> dict[str, float]:
    groups = [[_DIGITS.index(digit) for digit in text[start : start + 3]] for start in range(0, len(text), 3)]
    return {OPERATION_ORDER[name]: (64 * high + low) / _ONE for name, high, low in groups}


def _decision(text: str) -> dict[str, Any]:
    stage, label, choice, margin = text.split('|')
    return {'stage': stage, 'label': label, 'choice': choice, 'margin': None if margin == '-' else float(margin)}


def genotype_of(record: Mapping[str, Any]) -> AnyGenotype:
    """Returns the cell that the search would have derived at this epoch."""
    return genotype_from_dict(record['genotype'])


def indicators(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns indicators of how decided α is and how far the cell has collapsed.

    ``entropy`` is the mean over all edges of the entropy of the operations' probabilities, if there are any, scaled to 1 for equal
    probabilities. ``skips`` is the number of edges of the cell (of a pair, the normal cell) that carry a skip connection or identity.
    """
    entropy = {'entropy': round(_entropy(record['probabilities'].values()), 4)} if record['probabilities'] else {}
    return {**entropy, 'skips': next(iter(skips(genotype_of(record)).values()))}


def _entropy(tables: Iterable[Mapping[str, float]]) -> float:
    """Returns the mean over the tables of the entropy, divided by the entropy of equal probabilities."""
    values = [-sum(p * math.log(p) for p in table.values() if p > 0) / math.log(len(table)) for table in tables if len(table) > 1]
    return sum(values) / len(values) if values else 0.0


def skips(genotype: AnyGenotype) -> dict[str, int]:
    """Returns kind of cell → number of its edges that carry a skip connection or identity."""
    return {kind: sum(name.lower() in _SKIPS for _, name in edges) for kind, edges in genotype.edges().items()}
