"""The recurrent network of DARTS, written from the equations of Liu et al., ICLR 2019: the slow and obvious version.

Everything is a sum over candidates for one edge, one time step at a time; nothing is shared between edges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ACTIVATIONS = ('none', 'tanh', 'relu', 'sigmoid', 'identity')


def activation(name: str, x: Tensor) -> Tensor:
    if name == 'tanh':
        return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))
    if name == 'relu':
        return torch.where(x > 0, x, torch.zeros_like(x))
    return 1 / (1 + torch.exp(-x)) if name == 'sigmoid' else x


def normalise(x: Tensor) -> Tensor:
    """Batch statistics: (B, H) → (B, H)"""
    return (x - x.mean(dim=0)) / torch.sqrt(((x - x.mean(dim=0)) ** 2).mean(dim=0) + 1e-5)


def edge(name: str, state: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """sⱼ + σ(c) ⊙ (f(h) − sⱼ); zeros for none."""
    if name == 'none':
        return torch.zeros_like(state)
    size = state.shape[1]
    both = (state * mask) @ weight
    gate, update = both[:, :size], both[:, size:]
    return state + activation('sigmoid', gate) * (activation(name, update) - state)


def softmax(alpha: Tensor) -> Tensor:
    return torch.exp(alpha) / torch.exp(alpha).sum()


def reference_forward(
    weights: Mapping[str, Tensor],
    tokens: Tensor,
    hidden: Tensor,
    *,
    alphas: Sequence[Sequence[Tensor]] | None = None,
    genotype: Sequence[tuple[str, int]] | None = None,
    concat: Sequence[int] | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (T, B, vocabulary) and the last hidden state (B, H).

    Args:
        weights: a network's tensors by their names.
        tokens: (T, B).
        alphas: node → input → α of its activations: a relaxed cell, whose states are normalised over the batch.
        genotype: or a fixed cell, whose states are not.
        concat: its output states; all nodes by default.
        masks: embedding (vocabulary,), input, x, hidden, output (each (B, H)); ones by default.
    """
    size = hidden.shape[1]
    ones = torch.ones_like(hidden)
    masks = {'input': ones, 'x': ones, 'hidden': ones, 'output': ones, **(masks or {})}
    relaxed = alphas is not None
    nodes = len(alphas) if relaxed else len(genotype)
    logits = []
    for row in tokens:
        word = torch.stack([weights['embedding.weight'][token] for token in row])
        if 'embedding' in masks:
            word = word * torch.stack([masks['embedding'][token] for token in row])[:, None]
        word = word * masks['input'] * masks['x']
        both = torch.cat([word, hidden * masks['hidden']], dim=1) @ weights['cell.weight']
        gate, update = activation('sigmoid', both[:, :size]), activation('tanh', both[:, size:])
        states = [hidden + gate * (update - hidden)]
        if relaxed:
            states[0] = normalise(states[0])
        for index in range(nodes):
            weight = weights[f'cell.nodes.{index}.weight']
            if relaxed:
                total = torch.zeros_like(hidden)
                for source, alpha in enumerate(alphas[index]):
                    for name, probability in zip(ACTIVATIONS, softmax(alpha)):
                        total = total + probability * edge(name, states[source], weight, masks['hidden'])
                states.append(normalise(total))
            else:
                name, source = genotype[index]
                states.append(edge(name, states[source], weight, masks['hidden']))
        chosen = [states[index] for index in (concat or range(1, nodes + 1))]
        hidden = sum(chosen) / len(chosen)
        logits.append((hidden * masks['output']) @ weights['embedding.weight'].T + weights['decoder.bias'])
    return torch.stack(logits), hidden


def reference_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean −log p of the targets (T, B)."""
    total = logits.new_zeros(())
    for step in range(len(targets)):
        for row in range(targets.shape[1]):
            z = logits[step, row]
            total = total + torch.log(torch.exp(z).sum()) - z[targets[step, row]]
    return total / targets.numel()


def perplexity(losses: Sequence[float], counts: Sequence[int]) -> float:
    """exp of the mean loss of all tokens."""
    return math.exp(sum(loss * count for loss, count in zip(losses, counts)) / sum(counts))
