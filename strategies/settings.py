"""What settings of strategies have in common."""

from __future__ import annotations

from typing import Any

__all__ = ['check_whole']


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises ValueError, with the name in it, unless a setting is a whole number from ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f'{name} must be a whole number from {least}, not {value!r}')
