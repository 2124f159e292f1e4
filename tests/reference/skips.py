"""P-DARTS' limit on skip connections, written from the paper: probabilities of skips are set to zero until few enough are left."""

from __future__ import annotations

from collections.abc import Sequence

Edge = tuple[str, int]
"""(operation, state it comes from)"""


def node_edges(tables: Sequence[dict[str, float]]) -> list[Edge]:
    """The two strongest of a node's edges, each with its best operation other than ``none``, by the state they come from."""
    best = []
    for source, table in enumerate(tables):
        allowed = {name: value for name, value in table.items() if name != 'none'}
        name = max(allowed, key=lambda candidate: allowed[candidate])
        best.append((allowed[name], name, source))
    strongest = sorted(best, key=lambda entry: -entry[0])[:2]
    return sorted(((name, source) for _, name, source in strongest), key=lambda edge: edge[1])


def limited(tables: Sequence[Sequence[dict[str, float]]], most: int) -> list[list[Edge]]:
    """The cell of these tables (node → edge → operation → probability) with at most so many skips."""
    tables = [[dict(table) for table in node] for node in tables]
    while True:
        cell = [node_edges(node) for node in tables]
        skips = [(node, source) for node, edges in enumerate(cell) for name, source in edges if name == 'skip_connect']
        if len(skips) <= most:
            return cell
        node, source = min(skips, key=lambda place: tables[place[0]][place[1]]['skip_connect'])
        tables[node][source]['skip_connect'] = 0.0
