"""What a policy over paths expects, by going through all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Scored = tuple[Mapping[str, tuple[int, ...]], Tensor]
"""A path and its log-probability"""


def scripted(follow: Callable[..., Scored], script: tuple[int, ...]) -> tuple[tuple[int, ...], list[int], Scored]:
    """Takes these positions at the first turns and the first at all others. Returns what was taken, of how many, and what came of it."""
    taken: list[int] = []
    sizes: list[int] = []

    def decide(log_probabilities: Tensor) -> int:
        taken.append(script[len(taken)] if len(taken) < len(script) else 0)
        sizes.append(len(log_probabilities))
        return taken[-1]

    result = follow(decide)
    return tuple(taken), sizes, result


def all_paths(follow: Callable[..., Scored]) -> list[Scored]:
    """Every sequence of turns of a policy: inputs that are taken in another order are another one."""
    found, open_scripts = [], [()]
    while open_scripts:
        script = open_scripts.pop()
        taken, sizes, result = scripted(follow, script)
        found.append(result)
        for turn in range(len(script), len(taken)):
            open_scripts += [(*taken[:turn], position) for position in range(1, sizes[turn])]
    return found


def objective(paths: list[Scored], reward: Callable[[Any], float], entropy_weight: float) -> Tensor:
    """E[R] + β·H, differentiable."""
    logs = torch.stack([log for _, log in paths])
    rewards = logs.new_tensor([reward(path) for path, _ in paths])
    return (logs.exp() * rewards).sum() - entropy_weight * (logs.exp() * logs).sum()
