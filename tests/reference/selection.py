"""Perturbation scores the slow way: the supernet's forward pass written out with a table of weights for every edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture

Masked = tuple[str, int, bool] | None
"""(label, index, whether the other operations' weights are divided by their sum)"""


def operation_weights(architecture: Architecture, label: str, masked: Masked) -> Tensor:
    """The factors of the candidates on an edge: softmax, or one for a decided operation; zero for what is masked."""
    weights = torch.softmax(architecture.alpha(label).detach(), 0)
    if label in architecture.state.fixed:
        weights = functional.one_hot(torch.tensor(architecture.state.fixed[label]), len(weights)).to(weights)
    if masked is not None and masked[0] == label:
        rest = 1 - weights[masked[1]] if masked[2] else 1
        weights[masked[1]] = 0
        weights = weights / rest
    return weights


def edge_factor(architecture: Architecture, node: str, source: int, masked: Masked) -> Tensor:
    """What an edge is multiplied by: one, or its β where edges have weights; zero for what is masked or dropped."""
    if source in architecture.state.dropped.get(node, ()) or (masked is not None and masked[:2] == (node, source)):
        return torch.tensor(0.0)
    if architecture.decisions[node].weighted:
        return torch.softmax(architecture.alpha(node).detach(), 0)[source]
    return torch.tensor(1.0)


def searched_edge(operations: Sequence[nn.Module], weights: Tensor, features: Tensor, portion: int) -> Tensor:
    """Σ weight · operation on the first of ``portion`` parts of the channels; the others are halved in size where the operations halve it.

    Then channels are dealt like cards: the first of each part, the second of each part, …
    """
    part = features.shape[1] // portion
    mixed = sum(weight * operation(features[:, :part]) for weight, operation in zip(weights, operations))
    if portion == 1:
        return mixed
    rest = features[:, part:]
    if mixed.shape[2:] != rest.shape[2:]:
        rest = functional.max_pool2d(rest, 2, 2, ceil_mode=True)
    parts = torch.cat([mixed, rest], dim=1)
    return torch.stack([parts[:, group * part + place] for place in range(part) for group in range(portion)], dim=1)


def masked_forward(model: nn.Module, architecture: Architecture, images: Tensor, masked: Masked, portion: int = 1) -> Tensor:
    """Logits of a supernet of DartsSpace; ``portion`` is k of PC-DARTS."""
    older = previous = model.stem(images)
    for index, cell in enumerate(model.cells):
        kind = 'reduce' if index in (len(model.cells) // 3, 2 * len(model.cells) // 3) else 'normal'
        states = [cell.preprocess_0(older), cell.preprocess_1(previous)]
        for state, node in enumerate(cell.nodes, start=2):
            total = 0
            for source, edge in enumerate(node.edges):
                weights = operation_weights(architecture, f'{kind}_op_{state}_{source}', masked)
                factor = edge_factor(architecture, f'{kind}_input_{state}', source, masked)
                total = total + factor * searched_edge(edge.candidates(), weights, states[source], portion)
            states.append(total)
        older, previous = previous, torch.cat([states[state] for state in cell.concat], dim=1)
    return model.classifier(previous.mean(dim=(2, 3)))


@torch.no_grad()
def brute_force_score(
    model: nn.Module,
    architecture: Architecture,
    data: Sequence[Any],
    masked: Masked,
    criterion: str,
    train: bool,
    portion: int = 1,
) -> float:
    """Accuracy, or minus the mean loss, over all samples."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    model.train(train)
    logits = torch.cat([masked_forward(model, architecture, images, masked, portion) for images, _ in data])
    labels = torch.cat([labels for _, labels in data])
    for buffer, copy in zip(model.buffers(), buffers):
        buffer.copy_(copy)
    for module, mode in modes:
        module.training = mode
    if criterion == 'accuracy':
        return float((logits.argmax(1) == labels).double().mean())
    return -float(functional.cross_entropy(logits, labels))
