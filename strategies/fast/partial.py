"""Fast computation of PC-DARTS' cell on the CPU: some channels go through the operations, and all other channels bypass them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nni_darts.strategies.fast.plan import nchw, nhwc
from nni_darts.strategies.fast.streamed import Stream, streamed_state

__all__ = ['partial_channels']


def partial_channels(stream: Stream, weights: Tensor, edges: Sequence[Sequence[Tensor]], older: Tensor, previous: Tensor) -> Tensor:
    """Computes a cell that searches 1 / portion of the channels.

    Args:
        stream: the plan's computation of the searched channels.
        weights: weights of all candidates in the plan's order, each multiplied by the weight of its edge.
        edges: state → weights of its outgoing edges.
        older: preprocessed output of the cell before the preceding one, (B, C, H, W).
        previous: preprocessed output of the preceding cell, (B, C, H, W).
    """
    plan = stream.plan
    portion = plan.portion or 1
    states = [nhwc(older), nhwc(previous)]
    searched: list[Tensor] = []  # partial sum of each unfinished node, (B, H, W, C / portion)
    passed: list[Tensor] = []  # (B, H, W, C − C / portion)
    for state, outgoing in enumerate(plan.outgoing):
        if state >= 2:
            states.append(_shuffled(searched.pop(0), passed.pop(0), portion))
        x = states[state]
        part = x.shape[3] // portion
        outputs = streamed_state(stream, state, weights, x[..., :part].contiguous())
        rest = _resized(x[..., part:], outgoing.stride)
        weighted = [weight * rest for weight in edges[state]]
        searched = [a + b for a, b in zip(searched, outputs)] if searched else list(outputs)
        passed = [a + b for a, b in zip(passed, weighted)] if passed else weighted
    states.append(_shuffled(searched.pop(0), passed.pop(0), portion))
    return nchw(torch.cat([states[index] for index in plan.concat], dim=3))


def _resized(x: Tensor, stride: int) -> Tensor:
    """Returns the channels that bypass the operations, resized to the height and width of the outputs."""
    if not x.shape[3]:
        return x.new_zeros(())
    return x if stride == 1 else nhwc(functional.max_pool2d(nchw(x), 2, 2, ceil_mode=True))


def _shuffled(searched: Tensor, passed: Tensor, portion: int) -> Tensor:
    """Shuffles channels as :meth:`.PartialChannels.around` does; returns (B, H, W, C)."""
    if portion == 1:
        return searched
    return torch.cat([searched, passed], dim=3).unflatten(3, (portion, -1)).transpose(3, 4).flatten(3)
