"""Saves and restores torch's random state on the devices that a computation uses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ['RandomState']


class RandomState:
    """The state of torch's generators at one moment, for the CPU and the given devices.

    After :meth:`restore`, the same dropout masks are drawn as after the state was saved.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = sorted(set(devices), key=str)
        self._cpu = torch.get_rng_state()
        self._others = _states(self._devices)

    def is_current(self) -> bool:
        """Returns whether no random number has been drawn since."""
        now = [torch.get_rng_state(), *(state for _, state in _states(self._devices))]
        return all(map(torch.equal, now, [self._cpu, *(state for _, state in self._others)]))

    def restore(self) -> None:
        """Restores the generators."""
        torch.set_rng_state(self._cpu)
        for device, state in self._others:
            if device.type == 'cuda':
                torch.cuda.set_rng_state(state, device)
            else:
                torch.mps.set_rng_state(state)


def _states(devices: Iterable[torch.device]) -> list[tuple[torch.device, Tensor]]:
    states = []
    for device in devices:
        if device.type == 'cuda':
            states.append((device, torch.cuda.get_rng_state(device)))
        elif device.type == 'mps':
            states.append((device, torch.mps.get_rng_state()))
    return states
