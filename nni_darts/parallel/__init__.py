"""One search or training on several processes, each with its part of every batch: all that they say to each other.

The processes are the ranks of ``torch.distributed``'s group; where there is none, or one rank, nothing here does anything. Every
function is to be called by all ranks, in the same order. What it returns has the same bits on each of them.
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
    """How many processes there are."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if _grouped() else 0


def uses_gpu() -> bool:
    """Whether this process has computed on an NVIDIA GPU; that there is one, and that torch has looked at it, says nothing."""
    return torch.cuda.max_memory_allocated() > 0


def is_first() -> bool:
    """Whether this is the process that writes files and talks to people."""
    return rank() == 0


def part(values: Sliceable) -> Sliceable:
    """This rank's part of what all share: every N-th, so that parts differ by one in length at most."""
    return values[rank() :: world_size()]


def whole(parts: Sequence[Tensor]) -> Tensor:
    """Puts together what :func:`part` took apart.

    Args:
        parts: for each rank its part, (N / ranks, …).
    """
    joined = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for number, values in enumerate(parts):
        joined[number :: len(parts)] = values
    return joined


def too_small(count: int) -> bool:
    """Returns whether a batch of this size leaves a rank with one sample or none, which batch norm cannot normalise."""
    return 0 < count < 2 * world_size()


def shares(*counts: int) -> list[float]:
    """For several losses, each a mean over so many samples on this rank: by what it is multiplied, so that the mean of these over ranks is
    the mean over all samples. All are exactly one where parts are equal."""
    if world_size() == 1:
        return [1.0] * len(counts)
    sums = total(torch.tensor(counts, dtype=torch.float64)).tolist()
    return [count * world_size() / whole if whole else 1.0 for count, whole in zip(counts, sums)]


def average(tensors: Sequence[Tensor], weight: float = 1.0) -> list[Tensor]:
    """The mean over ranks of each tensor times the rank's ``weight``, in new tensors; without other ranks the tensors themselves."""
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
    """Replaces ``.grad`` of those that have one by its :func:`average`."""
    if world_size() > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_copy_(gradients, average(gradients, weight))


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """The mean of all buffers of floating point, the running statistics of batch norms: so they are the same on every rank."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if world_size() > 1 and buffers:
        torch._foreach_copy_(buffers, average(buffers))


def total(tensor: Tensor) -> Tensor:
    """The sum over ranks."""
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(tensor)
    return tensor


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrites the tensors with those of rank 0."""
    tensors = list(tensors)
    if world_size() > 1 and tensors:
        for tensor, first in zip(tensors, _flat(tensors, lambda flat: distributed.broadcast(flat, 0))):
            tensor.copy_(first)


def _flat(tensors: Sequence[Tensor], communicate: Callable[[Tensor], object]) -> list[Tensor]:
    """New tensors with what becomes of these in one call for all of a kind."""
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
    """Continues on every rank with the random numbers of rank 0, because ranks may have drawn different amounts for their parts."""
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
    """Plain data as rank 0 has it."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, 0)
    return values[0]


def gathered(value: T) -> list[T]:
    """Plain data of all ranks, in their order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def digest(value: Any) -> str:
    """A short text that is the same for the same numbers, bit for bit, or the same plain data."""
    if isinstance(value, Tensor):
        kind, value = f'{value.dtype}{tuple(value.shape)}', value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.blake2b(kind.encode() + value, digest_size=16).hexdigest()
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()


def must_agree(what: str, *values: Any) -> None:
    """Makes sure that tensors, or plain data, are the same on all ranks.

    Raises:
        RankLost: if they are not; it says ``what`` they are.
    """
    if len({tuple(digests) for digests in gathered([digest(value) for value in values])}) > 1:
        raise RankLost(f'the processes of this run do not have the same {what}: something on one of them computes differently')
