"""Collectives for one search or training in several processes, each of which has a part of every batch.

The processes are the ranks of ``torch.distributed``'s default group; without a group, or with one rank, the functions here do nothing.
All ranks must call each function, in the same order. Its result is bit-identical on all of them, except where it is one rank's part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from nni_darts.errors import RankLost

__all__ = [
    'agreed',
    'average',
    'average_buffers',
    'average_gradients',
    'broadcast',
    'digest',
    'gathered',
    'is_first',
    'must_agree',
    'part',
    'rank',
    'share_random_state',
    'shares',
    'too_small',
    'total',
    'uses_gpu',
    'whole',
    'world_size',
]

T = TypeVar('T')
Sliceable = TypeVar('Sliceable', list[Any], tuple[Any, ...], Tensor)


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """Returns the number of processes."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """Returns the index of this process, from 0."""
    return distributed.get_rank() if _grouped() else 0


def uses_gpu() -> bool:
    """Returns whether this process has computed on an NVIDIA GPU, rather than whether one is present or visible to torch."""
    return torch.cuda.max_memory_allocated() > 0


def is_first() -> bool:
    """Returns whether this is the process that writes files and prints messages."""
    return rank() == 0


def part(values: Sliceable) -> Sliceable:
    """Returns this rank's part of shared values: every N-th value for N ranks, so that the parts differ in length by at most one."""
    return values[rank() :: world_size()]


def whole(parts: Sequence[Tensor]) -> Tensor:
    """Combines the parts that :func:`part` returned.

    Args:
        parts: the part of each rank, (N / ranks, …).
    """
    joined = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for number, values in enumerate(parts):
        joined[number :: len(parts)] = values
    return joined


def too_small(count: int) -> bool:
    """Returns whether a batch of this size leaves a rank with one sample or none, which batch norm cannot normalise."""
    return 0 < count < 2 * world_size()


def shares(*counts: int) -> list[float]:
    """Returns factors for losses that are means over different numbers of samples on each rank.

    The mean over ranks of a loss times its factor is the mean over all samples. All factors are exactly one if the parts are equal.

    Args:
        counts: number of samples of each loss on this rank.
    """
    if world_size() == 1:
        return [1.0] * len(counts)
    sums = total(torch.tensor(counts, dtype=torch.float64)).tolist()
    return [count * world_size() / whole if whole else 1.0 for count, whole in zip(counts, sums)]


def average(tensors: Sequence[Tensor], weight: float = 1.0) -> list[Tensor]:
    """Returns the mean over ranks of each tensor times the rank's ``weight``, in new tensors; with one rank, the tensors themselves."""
    tensors = list(tensors)
    if world_size() == 1:
        return tensors

    def mean(flat: Tensor) -> None:
        if weight != 1:
            flat.mul_(weight)
        distributed.all_reduce(flat)
        flat.div_(world_size())

    return _flat(tensors, mean)


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Replaces each ``.grad`` that is not None by its :func:`average`."""
    if world_size() > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_copy_(gradients, average(gradients, weight))


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Averages all floating-point buffers, such as running statistics of batch norm, so that they are the same on every rank."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if world_size() > 1 and buffers:
        torch._foreach_copy_(buffers, average(buffers))


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over ranks."""
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(tensor)
    return tensor


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors with those of rank 0."""
    tensors = list(tensors)
    if world_size() > 1 and tensors:
        for tensor, first in zip(tensors, _flat(tensors, lambda flat: distributed.broadcast(flat, 0))):
            tensor.copy_(first)


def _flat(tensors: Sequence[Tensor], communicate: Callable[[Tensor], object]) -> list[Tensor]:
    """Returns new tensors after a collective, which is called once for all tensors of the same type and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(index)
    results: list[Any] = [None] * len(tensors)
    for indices in kinds.values():
        flat = torch.cat([tensors[index].detach().reshape(-1) for index in indices])
        communicate(flat)
        for index, values in zip(indices, flat.split([tensors[index].numel() for index in indices])):
            results[index] = values.view(tensors[index].shape)
    return results


def share_random_state() -> None:
    """Continues on every rank with the random state of rank 0, because ranks may have drawn different amounts for their parts."""
    if world_size() == 1:
        return
    state = torch.get_rng_state()
    broadcast([state])
    torch.set_rng_state(state)
    if torch.cuda.is_initialized():
        state = torch.cuda.get_rng_state()
        broadcast([state])
        torch.cuda.set_rng_state(state)


def agreed(value: T) -> T:
    """Returns plain data from rank 0."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, 0)
    return values[0]


def gathered(value: T) -> list[T]:
    """Returns plain data from all ranks, in the order of ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def digest(value: Any) -> str:
    """Returns a short string that is equal for bit-identical tensors or equal plain data."""
    if isinstance(value, Tensor):
        kind, value = f'{value.dtype}{tuple(value.shape)}', value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.blake2b(kind.encode() + value, digest_size=16).hexdigest()
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()


def must_agree(what: str, *values: Any) -> None:
    """Checks that tensors, or plain data, are the same on all ranks.

    Args:
        what: description of the values, for the message.
        values: the tensors or plain data.

    Raises:
        RankLost: if the values differ.
    """
    if len({tuple(digests) for digests in gathered([digest(value) for value in values])}) > 1:
        raise RankLost(f'the processes of this run do not have the same {what}: something on one of them computes differently')
