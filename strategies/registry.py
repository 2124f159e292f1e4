"""The registry of methods: this package's, installed packages', and users' own as ``package.module:Name``. Imports no torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from nni_darts._lazy import check_module
from nni_darts.errors import did_you_mean
from nni_darts.strategies.method import Method
from nni_darts.strategies.methods import ALIASES, METHODS, SELECTIONS
from nni_darts.strategies.own import own_method

if TYPE_CHECKING:
    from nni_darts._nni import OneShotStrategy

__all__ = ['GROUP', 'check_name', 'create_strategy', 'file_name', 'find', 'full_name', 'installed', 'names', 'row_parts']

GROUP = 'nni_darts.strategies'
"""The group of entry points in which an installed package names its strategies."""

_WORD = r'[^\W\d]\w*'
_TARGET = re.compile(rf'{_WORD}(\.{_WORD})*:{_WORD}')
_NAME = re.compile(r'[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*')


def find(name: str) -> Method:
    """Finds a method by its name, and imports a user's own method.

    The name of a method that relaxes all candidates may have the suffix ``+pt``, ``+pt-mag`` or ``+shapley``.

    Raises:
        ValueError: for an unknown name (the message lists the known names), or an object that is not a strategy.
    """
    base, plus, suffix = full_name(name).partition('+')
    method, target = METHODS.get(base), _target(base)
    if method is None and target is not None:
        method = own_method(base, target)
    if method is None or (plus and base in METHODS and not (method.relaxed and suffix in SELECTIONS)):
        raise ValueError(_unknown(name))
    if not plus:
        return method
    if suffix not in SELECTIONS:
        raise ValueError(f'strategy {name!r} asks for an unknown selection +{suffix}; known: +{", +".join(SELECTIONS)}')
    if method.one_by_one:
        raise ValueError(f'strategy {base!r} trains cells one by one: it has no supernet from which +{suffix} could select')
    if not method.relaxed:
        raise ValueError(f'strategy {base!r} takes no other selection, such as +{suffix}; to allow it, give it a parameter selection')
    return _with_selection(method, suffix)


def check_name(name: str) -> None:
    """Checks the name of a strategy without importing a user's module, which may import torch.

    Raises:
        ValueError: if the name is unknown or its module does not exist.
    """
    base = full_name(name).partition('+')[0]
    target = None if base in METHODS else _target(base)
    if target is None:
        find(name)
    else:
        check_module(target, 'strategy')


def create_strategy(name: str, /, **settings: Any) -> OneShotStrategy:
    """Builds a strategy by its name; ``settings`` are keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or setting (the message lists the known ones), or a value of a wrong type or outside its range.
    """
    return find(name).create(**settings)


def full_name(name: str) -> str:
    """Returns the full name of a strategy: ``darts-1st+pt`` for the alias ``darts-pt``; any other name is returned unchanged.

    In an experiment, settings may follow the name of a strategy, as in ``darts-2nd search.epochs=5``. They are removed.
    """
    name, _ = row_parts(str(name))
    return str(ALIASES.get(name, name))


def row_parts(name: str) -> tuple[str, list[str]]:
    """Splits the name of an experiment's row into the strategy's name and the settings that it changes: ``section.key=value``."""
    strategy, *changes = name.split(' ')
    return strategy, changes


def file_name(name: str) -> str:
    """Returns a strategy's name in a form for file names and URLs, because some web servers read ``+`` as a space."""
    return re.sub(r'[^\w.-]', '-', name.replace(':', '--'))


def names() -> list[str]:
    """Returns all names of strategies that are known without importing user code, for shell completion."""
    suffixed = [f'{entry.name}+{suffix}' for entry in METHODS.values() if entry.relaxed for suffix in SELECTIONS]
    return [*METHODS, *ALIASES, *suffixed, *installed()]


def installed() -> Mapping[str, EntryPoint]:
    """Returns name → entry point of installed packages' strategies, except names that this package uses itself."""
    return {name: found[0] for name, found in _entry_points(tuple(sys.path)).items() if name not in METHODS and _NAME.fullmatch(name)}


@cache
def _entry_points(path: tuple[str, ...]) -> Mapping[str, list[EntryPoint]]:
    """Returns name → distinct entry points on a search path of modules."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        known = found.setdefault(point.name, [])
        if all(point.value != other.value for other in known):
            known.append(point)
    return found


def _target(base: str) -> str | None:
    """Returns ``package.module:Name`` of a user's strategy; None if the name does not refer to one.

    Raises:
        ValueError: if the name is ambiguous or malformed.
    """
    if ':' in base:
        if not _TARGET.fullmatch(base):
            raise ValueError(f'strategy {base!r} must be written package.module:Name, with the class or function after one colon')
        return base
    points = _entry_points(tuple(sys.path)).get(base, [])
    if not points:
        return None
    if not _NAME.fullmatch(base):
        raise ValueError(f'strategy {base!r} of an installed package needs a name of letters, digits, "-" and "_"; use {points[0].value}')
    if len(points) > 1:
        raise ValueError(f'several packages install a strategy {base!r}; choose one of {", ".join(point.value for point in points)}')
    return points[0].value


def _unknown(name: str) -> str:
    known = [*METHODS, *installed()]
    others = ', '.join(entry.name for entry in METHODS.values() if not entry.relaxed)
    hint = did_you_mean(str(name).lower(), [*known, *ALIASES], cutoff=0.8)
    return (
        f'unknown strategy {name!r}{hint}; known: {", ".join(known)}; all but {others} also with {_suffixes()}; darts-pt is darts-1st+pt; '
        'your own: package.module:Name'
    )


def _suffixes() -> str:
    *most, last = (f'+{suffix}' for suffix in SELECTIONS)
    return f'{", ".join(most)} or {last}'


def _with_selection(base: Method, suffix: str) -> Method:
    chosen, summary, paper, mine = SELECTIONS[suffix]

    def build(settings: dict[str, Any], selection: Any) -> Any:
        from nni_darts.strategies import selections

        options = {name: settings.pop(name) for name in mine.model_fields if name in settings}
        return base.build(settings, getattr(selections, chosen)(**options))

    return replace(
        base,
        name=f'{base.name}+{suffix}',
        summary=f'{base.summary}; {summary}',
        paper='; '.join(filter(None, (base.paper, paper))),
        build=build,
        own=(*base.own, mine),
    )
