"""The candidate operations on each edge of the convolutional search spaces, as data. Imports no torch.

S1–S4: Zela et al., ICLR 2020 (RobustDARTS). S5: the DARTS space without ``none`` (Wang et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, KINDS, check_operation

__all__ = ['REDUCED', 'Candidates', 'edge_candidates']

Candidates = Mapping[str, tuple[tuple[str, ...], ...]]
"""Kind of cell → for each edge (node 0: inputs 0, 1; node 1: inputs 0, 1, 2; …) the names of its operations."""

_SHORT = {
    'skip': 'skip_connect',
    'max': 'max_pool_3x3',
    'avg': 'avg_pool_3x3',
    'sep3': 'sep_conv_3x3',
    'dil3': 'dil_conv_3x3',
    'dil5': 'dil_conv_5x5',
}


def _pairs(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(_SHORT[name] for name in edge.split()) for edge in text.split(';'))


def _edges(nodes: int) -> int:
    """Returns the number of edges of a cell, where node i may read the two inputs and all earlier nodes."""
    return sum(range(2, 2 + nodes))


def _uniform(operations: Sequence[str], nodes: int = 4) -> Candidates:
    return {kind: (tuple(operations),) * _edges(nodes) for kind in KINDS}


REDUCED: Mapping[str, Candidates] = MappingProxyType(
    {
        's1': {
            'normal': _pairs(
                'skip dil3; skip dil5; skip dil5; skip sep3; skip dil3; max skip; skip sep3; skip sep3; skip dil3; skip sep3; '
                'max skip; skip dil3; dil3 dil5; dil3 dil5'
            ),
            'reduce': _pairs(
                'max avg; max dil3; max avg; max avg; skip dil5; max avg; max sep3; skip dil3; skip dil5; max avg; max avg; '
                'skip dil5; skip dil5; skip dil5'
            ),
        },
        's2': _uniform(('skip_connect', 'sep_conv_3x3')),
        's3': _uniform(('none', 'skip_connect', 'sep_conv_3x3')),
        's4': _uniform(('noise', 'sep_conv_3x3')),
        's5': _uniform(DARTS_OPERATIONS[1:]),
    }
)
"""The reduced spaces by name; all have four nodes."""


def edge_candidates(operations: Sequence[str] | Candidates, nodes: int) -> Candidates:
    """Returns the candidates edge by edge, from one list for all edges or from a table with a list for each edge.

    Raises:
        ValueError: for an unknown or repeated operation, an edge with no operation besides ``none``, or a table of the wrong size.
    """
    table = dict(operations) if isinstance(operations, Mapping) else dict(_uniform(operations, nodes))
    if set(table) != set(KINDS):
        raise ValueError(f'a table of operations has the keys {" and ".join(KINDS)}, not {", ".join(map(str, table))}')
    for kind, edges in table.items():
        if len(edges) != _edges(nodes):
            raise ValueError(f'{kind} cells of {nodes} nodes have {_edges(nodes)} edges; the table of operations has {len(edges)}')
        for names in set(map(tuple, edges)):
            for name in names:
                check_operation(name)
            if len(set(names)) != len(names) or not set(names) - {'none'}:
                raise ValueError(f"the operations of an edge must be different and include one besides 'none', not {list(names)}")
    return {kind: tuple(map(tuple, edges)) for kind, edges in table.items()}
