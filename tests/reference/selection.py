"""Perturbation scores the slow way: the supernet's forward pass written out with a table of weights for every edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture


def edge_weights(architecture: Architecture, kind: str, state: int, source: int, masked: tuple[str, int] | None) -> Tensor:
    """The factors of the candidates on an edge: softmax, or one for a decided operation; zero for what is masked or dropped."""
    label, node = f'{kind}_op_{state}_{source}', f'{kind}_input_{state}'
    weights = torch.softmax(architecture.alpha(label).detach(), 0)
    if label in architecture.fixed:
        weights = functional.one_hot(torch.tensor(architecture.fixed[label]), len(weights)).to(weights)
    if masked is not None and masked[0] == label:
        weights[masked[1]] = 0
    if source in architecture.dropped.get(node, ()) or masked == (node, source):
        weights = torch.zeros_like(weights)
    return weights


def masked_forward(model: nn.Module, architecture: Architecture, images: Tensor, masked: tuple[str, int] | None) -> Tensor:
    """Logits of a supernet of DartsSpace."""
    older = previous = model.stem(images)
    for index, cell in enumerate(model.cells):
        kind = 'reduce' if index in (len(model.cells) // 3, 2 * len(model.cells) // 3) else 'normal'
        states = [cell.preprocess_0(older), cell.preprocess_1(previous)]
        for state, node in enumerate(cell.nodes, start=2):
            total = 0
            for source, edge in enumerate(node.edges):
                weights = edge_weights(architecture, kind, state, source, masked)
                for weight, operation in zip(weights, edge.candidates()):
                    total = total + weight * operation(states[source])
            states.append(total)
        older, previous = previous, torch.cat([states[state] for state in cell.concat], dim=1)
    return model.classifier(previous.mean(dim=(2, 3)))


@torch.no_grad()
def brute_force_score(
    model: nn.Module, architecture: Architecture, data: Sequence[Any], masked: tuple[str, int], criterion: str, train: bool
) -> float:
    """Accuracy, or minus the mean loss, over all samples."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    model.train(train)
    logits = torch.cat([masked_forward(model, architecture, images, masked) for images, _ in data])
    labels = torch.cat([labels for _, labels in data])
    for buffer, copy in zip(model.buffers(), buffers):
        buffer.copy_(copy)
    for module, mode in modes:
        module.training = mode
    if criterion == 'accuracy':
        return float((logits.argmax(1) == labels).double().mean())
    return -float(functional.cross_entropy(logits, labels))
