"""Times the executors that can compute a cell, without side effects."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nni_darts.strategies.architects.randomness import RandomState

if TYPE_CHECKING:
    from nni_darts.strategies.fast.executors import CellInputs, ExecutedCell

__all__ = ['timed']

BUDGET = 0.5
"""Time in seconds after which no further round of timing begins."""
ROUNDS = 5
PORTIONS = 1, 4
"""Relative sizes of the two samples; the second one exceeds the caches, as whole batches do."""
CLEARLY_SLOWER = 1.5
"""Ratio of times above which an executor is not timed again if the faster one is preferred, because larger samples favour that one."""
HOPELESS = 4.0
"""Ratio of times above which an executor is not timed again, whichever executor is faster."""


def timed(cell: ExecutedCell, candidates: Sequence[str], inputs: CellInputs) -> dict[str, float]:
    """Returns executor → shortest time, in seconds, of a few forward and backward passes of a cell on a part of its inputs.

    Executors that are clearly slower on a small part are not timed on a larger part; their times are multiplied by its relative size. The
    buffers, gradients and modes of the cell and the random state are unchanged afterwards.
    """
    end = time.perf_counter() + BUDGET
    best: dict[str, float] = {}
    with _unchanged(cell, inputs[0].device):
        small, large = (_Sample(cell, inputs, portion) for portion in PORTIONS)
        for _ in range(2):  # the first pass warms up
            small.time(candidates, best)
        remaining = _worth_timing(candidates, best)
        if len(remaining) > 1 and large.size > small.size:
            best = {name: seconds * large.size / small.size for name, seconds in best.items()}
            for name in remaining:
                del best[name]
            large.time(remaining, best)
        for _ in range(ROUNDS):
            remaining = _worth_timing(remaining, best)
            if len(remaining) < 2 or time.perf_counter() > end:
                break
            large.time(remaining, best)
    return {name: best[name] for name in candidates}


def _worth_timing(candidates: Sequence[str], seconds: Mapping[str, float]) -> list[str]:
    """Returns the candidates that may still be the fastest, in the order of preference."""
    least = min(seconds[name] for name in candidates)
    return [
        name
        for number, name in enumerate(candidates)
        if seconds[name] <= HOPELESS * least
        and all(seconds[name] <= CLEARLY_SLOWER * seconds[preferred] for preferred in candidates[:number])
    ]


class _Sample:
    """A part of a cell's inputs, with the tensors by which a search differentiates: inputs, weights and α."""

    def __init__(self, cell: ExecutedCell, inputs: CellInputs, portion: int) -> None:
        parts = [None if x is None else x.detach().clone() for x in cell.sample(*inputs, portion=portion)]
        self.size = next(len(x) for x in parts if x is not None)
        self._cell, self._parts = cell, parts
        self._wanted = [*(x.requires_grad_() for x in parts[:2] if x is not None), *_parameters(cell)]

    def time(self, candidates: Sequence[str], best: dict[str, float]) -> None:
        """Times each candidate once, and updates its shortest time in seconds."""
        for name in candidates:
            seconds = _one_pass(self._cell, name, self._parts, self._wanted)
            best[name] = min(best.get(name, seconds), seconds)


def _one_pass(cell: ExecutedCell, name: str, sample: Sequence[Tensor | None], wanted: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    output = cell.execute(name, *sample)
    outputs = output if isinstance(output, tuple) else (output,)
    torch.autograd.grad(outputs, wanted, [torch.ones_like(part) for part in outputs], allow_unused=True)
    if wanted[0].device.type != 'cpu':
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def _parameters(cell: ExecutedCell) -> list[Tensor]:
    """Returns the tensors by which a search differentiates: weights of the cell and all α."""
    return [*cell.parameters(), *cell.alphas()]


@contextmanager
def _unchanged(cell: ExecutedCell, device: torch.device) -> Iterator[None]:
    """Puts the cell in training mode, with gradients of weights and α, within the block, and restores its state afterwards."""
    modes = [(module, module.training) for module in cell.modules()]
    before = RandomState({device})
    kind = device.type
    autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), torch.autograd.set_detect_anomaly(False), autocast:
        buffers = [(buffer, buffer.clone()) for buffer in cell.buffers()]
        frozen = [parameter for parameter in _parameters(cell) if not parameter.requires_grad]
        try:
            cell.train()
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            before.restore()
