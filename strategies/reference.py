"""References from one module to another that leave the other one out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ['Reference']

T = TypeVar('T')


@dataclass(frozen=True)
class Reference(Generic[T]):
    """Refers to an object from a module, which would register a module or parameter that it holds directly as a part of itself.

    Example:
        >>> module = nn.Module()
        >>> module.other = Reference(nn.Linear(2, 3))
        >>> list(module.parameters())
        []
    """

    value: T
