"""A network's forward pass, written from its genotype: the slow and obvious version."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_darts import Genotype


def reference_forward(network: torch.nn.Module, genotype: Genotype, images: Tensor) -> Tensor:
    """Logits of a network from ``network_from_genotype`` with the CIFAR stem, using its operations and nothing else of it."""
    older = previous = network.stem(images)
    cells = len(network.cells)
    for index, cell in enumerate(network.cells):
        kind = 'reduce' if index in (cells // 3, 2 * cells // 3) else 'normal'
        edges, concat = genotype.cell(kind)
        states = [cell.preprocess_0(older), cell.preprocess_1(previous)]
        for first in range(0, len(edges), 2):
            node = cell.nodes[first // 2]
            # The network keeps a node's edges in the order of their inputs.
            order = sorted(range(2), key=lambda position: edges[first + position][1])
            parts = [node.edges[slot](states[edges[first + position][1]]) for slot, position in enumerate(order)]
            states.append(parts[0] + parts[1])
        older, previous = previous, torch.cat([states[state] for state in concat], dim=1)
    return network.classifier(previous.mean(dim=(2, 3)))
