"""Users' own methods: classes or functions named ``package.module:Name``. This module itself imports no torch."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import create_model

from nni_darts._lazy import in_user_code, named
from nni_darts.errors import InputError
from nni_darts.strategies.catalogue import ProgressiveSettings, SearchedSettings
from nni_darts.strategies.method import FOR_PYTHON, Method, checked_call
from nni_darts.strategies.settings import Settings, setting

__all__ = ['own_method']

_STRATEGIES = (
    'a strategy is a DifferentiableStrategy, a subclass of it, a function that returns one, or a subclass of '
    'nni_darts.strategies.OneByOne (docs/own-strategy.md)'
)

_ALPHA = (*SearchedSettings.listed(), *ProgressiveSettings.listed())
RECIPE_KEYS: Mapping[str, str] = {
    name: entry.recipe for entry in _ALPHA if entry.recipe for name in (entry.name, entry.recipe.removeprefix('search.'))
}
"""Parameter of a user's strategy → key of the recipe with its value, unless ``search.settings`` sets it."""

_EMPTY = inspect.Parameter.empty


def own_method(name: str, target: str) -> Method:
    """Imports a class or function and describes it as a method.

    Args:
        name: name of the strategy in recipes and messages.
        target: ``package.module:Name``.

    Raises:
        InputError: if the object cannot be imported or is not a strategy; the message names the user's file and line if they are known.
    """
    made_by = named(target, 'strategy')
    if not (inspect.isclass(made_by) or inspect.isroutine(made_by)):
        raise InputError(f'strategy {name!r} is an object of type {type(made_by).__name__}, neither a class nor a function; {_STRATEGIES}')
    return _described(name, target, made_by)  # type: ignore[arg-type]


@cache
def _described(name: str, target: str, made_by: Callable[..., Any]) -> Method:
    one_by_one = _one_by_one(name, made_by)
    fields, is_open = _fields(name, made_by, one_by_one)
    own = made_by if inspect.isclass(made_by) and issubclass(made_by, Settings) else _schema(fields)
    common = (getattr(made_by, 'schema', SearchedSettings),) if is_open and not one_by_one else ()
    if one_by_one and 'cells' not in own.model_fields:
        raise InputError(f'strategy {name!r} trains cells one by one, so it needs a parameter cells: the number of cells that it trains')

    file = getattr(sys.modules[target.partition(':')[0]], '__file__', None)

    def called(**settings: Any) -> Any:
        with in_user_code(target, 'strategy', file):
            built = made_by(**settings)
        _check_kind(name, built, one_by_one)
        return built

    def build(settings: dict[str, Any], selection: Any) -> Any:
        return called(**settings, **({} if selection is None else {'selection': selection}))

    def build_in_process(settings: dict[str, Any], selection: Any) -> Any:
        from nni_darts.strategies.trained.in_process import InProcess

        of_run = {key: settings.pop(key) for key in ('seed', 'optimize_mode') if key in settings and key not in own.model_fields}
        return checked_call(InProcess, {'proposer': called(**settings), **of_run})  # type: ignore[dict-item]

    return Method(
        name,
        _paragraph(made_by).replace('\n', ' '),
        '',
        build_in_process if one_by_one else build,
        (own,),
        common,
        relaxed=not one_by_one and (is_open or 'selection' in inspect.signature(made_by).parameters),
        in_stages=getattr(made_by, 'in_stages', False),
        proposer=called if one_by_one else None,
        file=file,
    )


def _one_by_one(name: str, made_by: Callable[..., Any]) -> bool:
    """Returns whether a class, or the class that a function is annotated to return, trains cells one by one.

    Raises:
        InputError: for a class that is not a strategy.
    """
    if not inspect.isclass(made_by):
        return bool(getattr(_hints(made_by).get('return'), 'one_by_one', False))
    found = getattr(made_by, 'one_by_one', None)
    if found is None:
        raise InputError(f'strategy {name!r} is a class, but not a strategy; {_STRATEGIES}')
    return bool(found)


def _check_kind(name: str, built: Any, one_by_one: bool) -> None:
    """Raises InputError unless a built object is a strategy of the kind that was expected, with all its methods."""
    found = getattr(built, 'one_by_one', None)
    if inspect.isclass(built) and found is not None:
        raise InputError(f'strategy {name!r} returns the class {built.__name__}; it must return an object of it: {built.__name__}(…)')
    if found is None:
        raise InputError(f'strategy {name!r} returns an object of type {type(built).__name__}, which is not a strategy; {_STRATEGIES}')
    if found and not one_by_one:
        raise InputError(f'strategy {name!r} returns a strategy that trains cells one by one: annotate the function with "-> OneByOne"')
    if found:
        _check_proposer(name, built)
        return
    for part in getattr(built, 'parts', ()):
        if not hasattr(part, 'architecture'):
            raise InputError(f'strategy {name!r} has no parts: its __init__ must call super().__init__(relaxation, architect, selection)')
        _check_methods(name, part.architect, 'Architect', ('options', 'gradient', 'gradients'))
        if type(part.selection).rounds_due is not _base(part.selection, 'Selection').rounds_due:
            _check_methods(name, part.selection, 'Selection', ('decide',))


def _check_proposer(name: str, built: Any) -> None:
    """Raises InputError unless a strategy that trains cells one by one has a number of cells and proposes them."""
    _check_methods(name, built, 'OneByOne', ('propose',))
    cells = getattr(built, 'cells', None)
    if not isinstance(cells, int) or isinstance(cells, bool) or cells < 1:
        found = f'not {cells!r}' if hasattr(built, 'cells') else 'and it has none'
        raise InputError(
            f'strategy {name!r} must have an attribute cells, the number of cells to train, which is a whole number from 1, {found}'
        )


def _base(part: Any, base: str) -> Any:
    """Returns the class of this name from which a part derives."""
    return next(parent for parent in type(part).__mro__ if parent.__name__ == base and parent.__module__.startswith('nni_darts.'))


def _check_methods(name: str, part: Any, base: str, methods: Sequence[str]) -> None:
    """Raises InputError for a part that defines none of the methods that its base class leaves to it."""
    if all(getattr(type(part), method) is getattr(_base(part, base), method) for method in methods):
        raise InputError(
            f'strategy {name!r}: the class {type(part).__name__} must define {" or ".join(methods)}, as its base class {base} says'
        )


def _fields(name: str, made_by: Callable[..., Any], one_by_one: bool) -> tuple[dict[str, Any], bool]:
    """Returns the parameters as fields of :class:`Settings`, and whether other settings are accepted by ``**settings``."""
    hints, meanings = _hints(made_by), _meanings(made_by)
    fields: dict[str, Any] = {}
    is_open = False
    for parameter in inspect.signature(made_by).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is _EMPTY:
            raise InputError(f'strategy {name!r} must take its parameter {parameter.name} by name, because settings have names')
        elif parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            if parameter.name not in FOR_PYTHON and not parameter.name.startswith('_'):
                default = ... if parameter.default is _EMPTY else parameter.default
                recipe = '' if one_by_one else RECIPE_KEYS.get(parameter.name, '')
                about = setting(default, meanings.get(parameter.name, ''), recipe=recipe)
                fields[parameter.name] = (_of_yaml(hints.get(parameter.name, Any)), about)
    return fields, is_open


def _of_yaml(hint: Any) -> Any:
    """Returns the annotation with lists in place of tuples, which YAML does not have."""
    return Sequence[get_args(hint)[:1] or (Any,)] if tuple in (hint, get_origin(hint)) else hint  # type: ignore[misc]


def _schema(fields: Mapping[str, Any]) -> type[Settings]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a parameter may have the name of a method of pydantic's model
        return create_model('OwnSettings', __base__=Settings, **fields)


def _hints(made_by: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotations; empty if they refer to names that do not exist at run time."""
    try:
        return get_type_hints(made_by.__init__ if inspect.isclass(made_by) else made_by, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _paragraph(made_by: Callable[..., Any]) -> str:
    return (inspect.getdoc(made_by) or 'a strategy without a docstring').partition('\n\n')[0]


def _meanings(made_by: Callable[..., Any]) -> dict[str, str]:
    """Returns parameter → its entry under ``Args:`` in the docstring."""
    text = '\n'.join(filter(None, (inspect.getdoc(made_by), getattr(made_by.__init__, '__doc__', '') if inspect.isclass(made_by) else '')))
    return {name: meaning.rstrip('.') for name, meaning in re.findall(r'^\s+(\w+)(?: \(.*?\))?: (.+)$', text, re.MULTILINE)}
