"""Conversion of other programs' notations for cells to the fields of this package's genotypes. Imports no torch and runs no input.

DARTS and its descendants print ``Genotype(…)``, NNI's hub has samples, and NASLib has six numbers for a cell of NAS-Bench-201.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nni_darts.genotypes.literals import literal, parsed
from nni_darts.genotypes.nasbench201 import EDGES, OPERATIONS

__all__ = ['NASLIB_NUMBERING', 'last_call', 'naslib_operations', 'nni_sample_fields', 'python_cells', 'reads_as_data']

_NASLIB_OPERATIONS = ('skip_connect', 'none', 'nor_conv_3x3', 'nor_conv_1x1', 'avg_pool_3x3')
_NASLIB_EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))
_NNI_NASBENCH201 = {'conv_1x1': 'nor_conv_1x1', 'conv_3x3': 'nor_conv_3x3'}
_MAX_CALL = 20_000  # no published genotype is a tenth as long
_MAX_NODES = 100

NASLIB_NUMBERING = (
    'six numbers are read in the numbering of NASLib: '
    + ', '.join(f'{number} {name}' for number, name in enumerate(_NASLIB_OPERATIONS))
    + '; on the edges '
    + ', '.join(f'{source}→{node}' for node, source in _NASLIB_EDGES)
)
"""States NASLib's numbering in one sentence, because other programs number the same operations differently."""


# Genotype(…) --------------------------------------------------------------------------------------------------------------------------


def last_call(text: str) -> str | None:
    """Returns the last complete ``Genotype(…)`` in a text, such as a log; None if it contains none."""
    for start in reversed([match.start() for match in re.finditer(r'\bGenotype\s*\(', text)]):
        end = _closing(text, text.index('(', start))
        if end is not None:
            return text[start : end + 1]
    return None


def _closing(text: str, opening: int) -> int | None:
    """Returns the index of the parenthesis that closes the one at ``opening``; None if it is not found nearby."""
    depth, quote = 0, ''
    for position in range(opening, min(len(text), opening + _MAX_CALL)):
        character = text[position]
        if quote:
            quote = '' if character == quote else quote
        elif character in '\'"':
            quote = character
        elif character in '([{':
            depth += 1
        elif character in ')]}':
            depth -= 1
            if depth == 0:
                return position
    return None


# Python files -------------------------------------------------------------------------------------------------------------------------


def python_cells(text: str) -> dict[str, str]:
    """Returns name → text of each cell that a Python file assigns to a name or a key of a dict. The file is parsed, never run.

    Raises:
        ValueError: if the text is not valid Python.
    """
    try:
        tree = ast.Module(parsed(text), [])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError('this is not a Python file') from None
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _keep(found, target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            _keep(found, node.target, node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    _keep(found, ast.Name(key.value), value)
    return found


def _keep(found: dict[str, str], target: ast.expr, value: ast.expr) -> None:
    if not isinstance(target, ast.Name):
        return
    if isinstance(value, ast.Name) and value.id in found:  # DARTS = DARTS_V2
        found[target.id] = found[value.id]
    elif isinstance(value, ast.Call) and (getattr(value.func, 'id', '') or getattr(value.func, 'attr', '')) == 'Genotype':
        found[target.id] = ast.unparse(value)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        text = value.value.strip()
        if text.startswith('|') or last_call(text) is not None:
            found[target.id] = text


# Other programs' data -----------------------------------------------------------------------------------------------------------------


def reads_as_data(text: str) -> Any:
    """Returns the dict, list or tuple that a text represents, with quotes of either kind; None if it represents none."""
    if len(text) > _MAX_CALL:
        return None
    try:
        (statement,) = parsed(text.strip())
        return literal(statement.value) if isinstance(statement, ast.Expr) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def naslib_operations(numbers: Sequence[Any]) -> tuple[str, ...]:
    """Returns the operations on the ``EDGES`` from NASLib's six numbers. Raises ValueError that states the numbering."""
    if len(numbers) != len(EDGES) or not all(type(number) is int and 0 <= number < len(OPERATIONS) for number in numbers):
        raise ValueError(f'{tuple(numbers)!r} is no cell of NAS-Bench-201: {NASLIB_NUMBERING}')
    chosen = {edge: _NASLIB_OPERATIONS[number] for edge, number in zip(_NASLIB_EDGES, numbers)}
    return tuple(chosen[edge] for edge in EDGES)


def nni_sample_fields(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """Converts a sample of NNI's hub to the fields of a genotype.

    Returns:
        ``operations`` for NasBench201, the fields of two cells for hub.DARTS, or None for a sample of any other space.

    Raises:
        ValueError: if the sample lacks a label.
    """
    ends = {label.rpartition('/')[2]: value for label, value in sample.items()}
    labels = [f'{source}_{node}' for node, source in EDGES]
    if any(re.fullmatch(r'\d_\d', label) for label in ends):
        for label in labels:
            if label not in ends:
                raise ValueError(f"the sample of NNI's NasBench201 has no value for {label!r}")
        return {'operations': tuple(_NNI_NASBENCH201.get(str(ends[label]), ends[label]) for label in labels)}
    if not any(re.fullmatch(r'(normal|reduce)/op_\d+_\d+', label) for label in sample):
        return None
    fields: dict[str, Any] = {}
    for kind in ('normal', 'reduce'):
        edges, state = [], 2
        while f'{kind}/op_{state}_0' in sample and state < _MAX_NODES:
            for position in range(2):
                edges.append(_nni_edge(sample, f'{kind}/op_{state}_{position}', f'{kind}/input_{state}_{position}'))
            state += 1
        fields[kind], fields[f'{kind}_concat'] = tuple(edges), tuple(range(2, state))
    return fields


def _nni_edge(sample: Mapping[str, Any], operation: str, source: str) -> tuple[Any, Any]:
    for label in (operation, source):
        if label not in sample:
            raise ValueError(f"the sample of NNI's hub.DARTS has no value for {label!r}")
    chosen = sample[source]
    return sample[operation], chosen[0] if isinstance(chosen, (list, tuple)) and len(chosen) == 1 else chosen
