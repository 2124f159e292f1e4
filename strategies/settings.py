"""What settings of strategies have in common: they come from Python or, as plain data, from a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, wraps
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

__all__ = ['check_whole', 'typed']

T = TypeVar('T')


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises ValueError, with the name in it, unless a setting is a whole number from ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f'{name} must be a whole number from {least}, not {value!r}')


def typed(made: type[T]) -> type[T]:
    """A class whose constructor refuses arguments that are not of the types it is annotated with: ValueError names the first.

    A number is finite, and true is none.
    """
    constructor = made.__init__
    signature = inspect.signature(constructor)

    @wraps(constructor)
    def checked(self: Any, /, *args: Any, **settings: Any) -> None:
        for name, value in signature.bind(self, *args, **settings).arguments.items():
            hint = _hints(constructor).get(name, Any)
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD and not _is_a(hint, value):
                raise ValueError(f'{name} must be {_words(hint)}, not {value!r}')
        constructor(self, *args, **settings)

    made.__init__ = checked  # type: ignore[misc]
    return made


_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


@cache
def _hints(constructor: Callable[..., None]) -> dict[str, Any]:
    """At the first call: a class may be annotated with one that its module imports later."""
    return get_type_hints(constructor)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=_STRICT)


def _is_a(hint: Any, value: Any) -> bool:
    try:
        _adapter(hint).validate_python(value)
    except ValidationError:
        return False
    return True


_WORDS = {float: 'a number', int: 'a whole number', bool: 'true or false', str: 'text', NoneType: 'None'}
_KINDS = {dict: 'a mapping', Callable: 'a function'}


def _words(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is None:
        return f'an object of {hint.__name__}'
    if origin is Literal:
        return ' or '.join(map(str, parts))
    if origin in _KINDS:
        return _KINDS[origin]
    if origin in (list, Sequence):
        return f'a list of {_words(parts[0]).removeprefix("a ")}s'
    return ' or '.join(map(_words, parts))  # a union
