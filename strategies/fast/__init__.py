"""The relaxed cells of our spaces, computed fast: the same numbers from the same parameters.

What the plain execution does edge by edge and candidate by candidate is arranged by state here, and what leaves a state is computed
together (docs/performance.md has a picture). For convolutional cells there are three executors beside ``plain``:

- :mod:`.compiled`: kernels in C++, on the CPU where there is a compiler;
- :mod:`.piecewise`: little to move to and from memory, and little to keep for backward, on the CPU;
- :mod:`.joined`: few operations on many channels, where each costs more than what it computes: GPUs, and small images without a compiler.

The first two make a cell one node of autograd's graph (:mod:`.streamed`); :mod:`.partial` is the cell of PC-DARTS.
Recurrent cells are in :mod:`.recurrent`. Which executor computes the cells of a search is chosen in :mod:`.executors`.

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from torch import nn

from nni_darts.strategies.fast import convolutional, recurrent
from nni_darts.strategies.fast.convolutional import FastCell
from nni_darts.strategies.fast.executors import ExecutionSetting, ExecutorChoice, ExecutorRecord
from nni_darts.strategies.fast.partial import FastPartialCell
from nni_darts.strategies.fast.recurrent import FastRecurrentCell
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['ExecutionSetting', 'ExecutorChoice', 'ExecutorRecord', 'FastCell', 'FastPartialCell', 'FastRecurrentCell', 'accelerate']


def accelerate(model: nn.Module, relaxation: Relaxation, choice: ExecutorChoice, *, checkpoint: bool = False) -> None:
    """Replaces the cells of a supernet that other executors than ``plain`` can compute, in place. Other cells stay as they are.

    A relaxation must mix candidates by weights (softmax and what differs from it only in its weights), and edges have no weights of
    their own, but for convolutional cells of PC-DARTS. Of convolutional cells a single path has nothing to share.

    Args:
        choice: of the executor that computes the cells.
        checkpoint: keep only the states of a convolutional cell for backward, and compute the rest again there.

    Raises:
        ValueError: if an executor is pinned that cannot compute these cells.
    """
    replaced: list[FastCell | FastRecurrentCell] = []
    partial = relaxation.portion is not None
    if relaxation.mixes_by_weights and (partial or not relaxation.weighted_edges):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if convolutional.is_suited(child) and not relaxation.sampled:
                    replaced.append((FastPartialCell if partial else FastCell)(child, choice, checkpoint=checkpoint))
                    setattr(parent, name, replaced[-1])
                elif recurrent.is_suited(child) and not partial:
                    replaced.append(FastRecurrentCell(child, choice))
                    setattr(parent, name, replaced[-1])
    choice.check_cells(replaced, type(relaxation).__name__)
    if not replaced:
        choice.only_plain()
