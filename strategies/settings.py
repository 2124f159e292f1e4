"""The base class of strategies' settings, which come from Python or, as plain data, from a recipe. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

__all__ = ['Setting', 'Settings', 'setting', 'typed']

T = TypeVar('T')

_STRICT = ConfigDict(strict=True, frozen=True, extra='forbid', arbitrary_types_allowed=True, allow_inf_nan=False)
"""Numbers must be finite, and true does not count as a number."""


@dataclass(frozen=True)
class Setting:
    """The description of a setting.

    Attributes:
        name: name in ``search.settings`` and in Python.
        allowed: description of the types and ranges that are allowed.
        default: value of the setting when it is left out.
        meaning: one sentence, without a full stop, that says what the setting does.
        recipe: the key of a recipe that gives the default in its place, such as ``search.tuning_epochs``; '' for none.
    """

    name: str
    allowed: str
    default: Any
    meaning: str
    recipe: str = ''


class Settings(BaseModel):
    """The settings of one part of a strategy: names, types, ranges, defaults and meanings. Subclasses declare them as fields.

    Example:
        >>> class Dropout(Settings):
        ...     rate: Annotated[float, Field(ge=0, lt=1)] = setting(0.1, 'probability of dropping a number')
        >>> Dropout(rate=2.0)
        Traceback (most recent call last):
        ValueError: rate must be a number from 0 to below 1, not 2.0
    """

    model_config = _STRICT

    def __init__(self, /, **values: Any) -> None:
        """Raises ValueError, one sentence that names the setting, for the first value of a wrong type or outside its range."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first['loc'][0]) if first['loc'] else ''
            if first['type'] == 'value_error':  # raised by a validator, which explains the error
                raise ValueError(first['msg'].removeprefix('Value error, ')) from None
            if name not in type(self).model_fields:
                raise ValueError(f'there is no setting {name!r}; allowed: {", ".join(type(self).model_fields)}') from None
            if name not in values:
                raise ValueError(f'{name} must be given: {self._allowed(name)}') from None
            raise ValueError(f'{name} must be {self._allowed(name)}, not {values[name]!r}') from None

    @classmethod
    def listed(cls) -> list[Setting]:
        """Describes all settings, in the order of the fields."""
        return [
            Setting(name, cls._allowed(name), field.default, field.description or '', _extra(field, 'recipe'))
            for name, field in cls.model_fields.items()
        ]

    @classmethod
    def _allowed(cls, name: str) -> str:
        return _extra(cls.model_fields[name], 'allowed') or _words(_hints(cls)[name])


def setting(default: Any, meaning: str, *, recipe: str = '', allowed: str = '') -> Any:
    """Declares a field of :class:`Settings`.

    Args:
        default: its value when left out.
        meaning: one sentence without a full stop.
        recipe: the key of a recipe that gives the default in its place.
        allowed: description of types and ranges, for annotations that cannot express them.
    """
    return Field(default, description=meaning, json_schema_extra={'recipe': recipe, 'allowed': allowed})


def _extra(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(name, '')) if isinstance(extra, dict) else ''


def typed(made: type[T] | None = None, *, settings: type[Settings] | None = None) -> Any:
    """Makes the constructor of a class check its arguments against the annotations. It raises ValueError that names the first wrong one.

    Args:
        made: the class.
        settings: class of settings, which checks the arguments that it declares, including their ranges.
    """
    if made is None:
        return lambda decorated: typed(decorated, settings=settings)
    constructor = made.__init__
    signature = inspect.signature(constructor)
    known = frozenset(settings.model_fields if settings is not None else ())

    @wraps(constructor)
    def checked(self: Any, /, *args: Any, **arguments: Any) -> None:
        given = signature.bind(self, *args, **arguments).arguments
        for name, value in given.items():
            hint = _hints(constructor).get(name, Any)
            if name not in known and signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD and not _is_a(hint, value):
                raise ValueError(f'{name} must be {_words(hint)}, not {value!r}')
        if settings is not None:
            settings(**{name: value for name, value in given.items() if name in known})
        constructor(self, *args, **arguments)

    made.__init__ = checked  # type: ignore[method-assign, assignment]
    return made


@cache
def _hints(annotated: Callable[..., None] | type) -> dict[str, Any]:
    """Returns the annotations. Called late, because an annotation may be a class that its module imports later."""
    return get_type_hints(annotated, include_extras=True)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=_STRICT)


def _is_a(hint: Any, value: Any) -> bool:
    try:
        _adapter(hint).validate_python(value)
    except ValidationError:
        return False
    return True


_WORDS = {Any: 'any value', float: 'a number', int: 'a whole number', bool: 'true or false', str: 'text', NoneType: 'null'}
_KINDS = {dict: 'a mapping', Callable: 'a function'}
_LIMITS = ('ge', 'gt', 'le', 'lt')


def _words(hint: Any) -> str:
    """Describes the type and range of a setting."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(parts[0]) + _range(parts[1:])
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is None:
        return f'an object of {getattr(hint, "__name__", hint)}'
    if origin is Literal:
        return _either([str(part) for part in parts])
    if origin in _KINDS:
        return _KINDS[origin]
    if origin in (list, Sequence):
        kind, number, limits = _words(parts[0]).removeprefix('a ').partition('number') if parts else ('', '', '')
        return f'a list of {kind}numbers{limits}' if number else 'a list'
    if origin in (Union, UnionType):
        return _either([_words(part) for part in parts])
    return f'an object of {origin.__name__}'


def _range(metadata: Sequence[Any]) -> str:
    """Describes the limits of a number."""
    entries = [entry for part in metadata for entry in (part.metadata if isinstance(part, FieldInfo) else [part])]
    limits = {name: getattr(entry, name) for entry in entries for name in _LIMITS if getattr(entry, name, None) is not None}
    least = f' from {limits["ge"]:g}' if 'ge' in limits else f' above {limits["gt"]:g}' if 'gt' in limits else ''
    most = f'to {limits["le"]:g}' if 'le' in limits else f'below {limits["lt"]:g}' if 'lt' in limits else ''
    if 'lt' in limits:
        return f'{least} to {most}' if 'ge' in limits else f'{least} and {most}' if least else f' {most}'
    return f'{least} {most}'.rstrip()


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f'{", ".join(words[:-1])} or {words[-1]}'
