"""The relaxed cells of our spaces, computed fast: the same numbers from the same parameters.

What the plain execution does edge by edge and candidate by candidate is arranged by state here, and what leaves a state is computed
together (docs/performance.md has a picture). For convolutional cells there are three ways:

- :mod:`.compiled`: kernels in C++, on the CPU where there is a compiler;
- :mod:`.joined`: few operations on many channels, where each costs more than what it computes: GPUs, and small images without a compiler;
- :mod:`.piecewise`: little to move to and from memory, and little to keep for backward: large images on the CPU without a compiler.

The first and the last make a cell one node of autograd's graph (:mod:`.streamed`); :mod:`.partial` is the cell of PC-DARTS.
Recurrent cells are in :mod:`.recurrent`.

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from torch import nn

from nni_darts.strategies.fast import convolutional, recurrent
from nni_darts.strategies.fast.convolutional import FastCell
from nni_darts.strategies.fast.partial import FastPartialCell
from nni_darts.strategies.fast.recurrent import FastRecurrentCell
from nni_darts.strategies.relaxations import PartialChannels, Relaxation

__all__ = ['FastCell', 'FastPartialCell', 'FastRecurrentCell', 'accelerate']


def accelerate(model: nn.Module, relaxation: Relaxation, *, checkpoint: bool = False) -> None:
    """Replaces the cells of a supernet that can be computed fast, in place. Others stay as they are.

    A relaxation must mix candidates by weights (softmax and what differs from it only in its weights), and edges have no weights of
    their own, but for convolutional cells of PC-DARTS. Of convolutional cells a single path has nothing to share.

    Args:
        checkpoint: keep only the states of a convolutional cell for backward, and compute the rest again there.
    """
    kind = type(relaxation)
    partial = kind is PartialChannels
    if not partial and (kind.mix is not Relaxation.mix or kind.around is not Relaxation.around or relaxation.weighted_edges):
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if convolutional.is_suited(child) and not relaxation.sampled:
                setattr(parent, name, (FastPartialCell if partial else FastCell)(child, checkpoint=checkpoint))
            elif recurrent.is_suited(child) and not partial:
                setattr(parent, name, FastRecurrentCell(child))
