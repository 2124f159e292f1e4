"""The relaxed cells of our spaces, computed fast: the same numbers from the same parameters.

The plain execution computes edge by edge and candidate by candidate. Here computations are planned by state, and the outgoing edges of a
state are computed together (:mod:`.plan`; docs/performance.md has a picture). For convolutional cells there are three executors beside
``plain``:

- :mod:`.compiled`: kernels in C++, on the CPU where there is a compiler;
- :mod:`.piecewise`: torch's operations, which move little to and from memory and keep little for backward, on the CPU;
- :mod:`.joined`: few operations on many channels, for GPUs and small images, where each operation costs more than its arithmetic.

The first two make a cell one node of autograd's graph (:mod:`.streamed`); :mod:`.partial` adds the channels that bypass the operations in
PC-DARTS. Recurrent cells (:mod:`.recurrent`) have ``compiled``, ``joined`` and ``plain``. :mod:`.executors` chooses the executor that
computes the cells of a search, by timing.

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from torch import nn

from nni_darts.strategies.fast import convolutional, recurrent
from nni_darts.strategies.fast.convolutional import FastCell
from nni_darts.strategies.fast.executors import ExecutedCell, ExecutionSetting, ExecutorChoice, ExecutorRecord
from nni_darts.strategies.fast.recurrent import FastRecurrentCell
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['ExecutionSetting', 'ExecutorChoice', 'ExecutorRecord', 'FastCell', 'FastRecurrentCell', 'accelerate']


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
    replaced: list[ExecutedCell] = []
    partial = relaxation.portion is not None
    if relaxation.mixes_by_weights and (partial or not relaxation.weighted_edges):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if convolutional.is_suited(child) and not relaxation.sampled:
                    replaced.append(FastCell(child, choice, checkpoint=checkpoint))
                elif recurrent.is_suited(child) and not partial:
                    replaced.append(FastRecurrentCell(child, choice))
                else:
                    continue
                setattr(parent, name, replaced[-1])
    choice.check_cells(replaced, type(relaxation).__name__)
    if not replaced:
        choice.only_plain()
