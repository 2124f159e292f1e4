"""FairDARTS' derivation of one cell from tables of probabilities, written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Edge = tuple[str, int]


def sparse_cell(nodes: Sequence[Sequence[Mapping[str, float]]], threshold: float) -> list[list[Edge]]:
    """The two strongest edges of each node with their best operation; ``none`` where its probability is below the threshold.

    Args:
        nodes: for each node and each state that it may read, operation → probability.
        threshold: smallest probability of an edge that is kept.
    """
    cell, reads_input = [], False
    for tables in nodes:
        best = []
        for source, table in enumerate(tables):
            name = max((name for name in table if name != 'none'), key=lambda candidate: table[candidate])
            best.append((table[name], source, name))
        chosen = sorted(sorted(best, key=lambda entry: -entry[0])[:2], key=lambda entry: entry[1])
        cell.append([(name if strength >= threshold else 'none', source) for strength, source, name in chosen])
        reads_input |= any(strength >= threshold and source < 2 for strength, source, _ in chosen)
    return cell if reads_input else sparse_cell(nodes, 0.0)
