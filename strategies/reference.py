"""References from one module to another that do not make the other one a submodule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ['Reference']

T = TypeVar('T')


@dataclass(frozen=True)
class Reference(Generic[T]):
    """Holds an object for a module, which would register a module or parameter as its own if it held it directly.

    Example:
        >>> module = nn.Module()
        >>> module.other = Reference(nn.Linear(2, 3))
        >>> list(module.parameters())
        []
    """

    value: T
