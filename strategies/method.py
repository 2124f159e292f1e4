"""A method: a strategy by name, with its settings and capabilities. Imports no torch."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nni_darts.strategies.settings import Setting, Settings

if TYPE_CHECKING:
    from nni_darts._nni import OneShotStrategy
    from nni_darts.strategies.trained.base import OneByOne

__all__ = ['Method']

FOR_PYTHON = ('relaxation', 'architect', 'selection', 'mutation_hooks')
"""Settings for Python code only: a recipe cannot hold their values, so no message proposes them."""


@dataclass(frozen=True)
class Method:
    """A strategy that can be named in YAML, on the command line and in Python.

    What differs between methods is said by its attributes; no code asks for a name or a class.

    Attributes:
        name: the name.
        summary: one line.
        paper: where the method comes from; '' for a user's own.
        build: (settings, a selection that takes the place of its own or None) → the strategy that NNI runs.
        own: settings of its parts.
        common: settings of its class.
        defaults: settings of its class whose defaults differ here.
        relaxed: whether its supernet computes all candidates at once, so that another selection can be asked for by a suffix.
        in_stages: whether it searches in several supernets, one after the other, each for half of the epochs.
        never_stops: why it cannot stop early; '' if it can.
        proposer: settings → what names the cells of a strategy that trains them one by one; None for a supernet.
        cells_key: key of a recipe's ``search`` that holds the number of such cells; '' where the setting ``cells`` does.

    Example:
        >>> from nni_darts.strategies.registry import find
        >>> find('darts-2nd').relaxed, find('random').one_by_one
        (True, True)
    """

    name: str
    summary: str
    paper: str
    build: Callable[[dict[str, Any], Any], OneShotStrategy]
    own: tuple[type[Settings], ...] = ()
    common: tuple[type[Settings], ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    relaxed: bool = True
    in_stages: bool = False
    never_stops: str = ''
    proposer: Callable[..., OneByOne] | None = None
    cells_key: str = ''

    @property
    def one_by_one(self) -> bool:
        """Whether it trains cells one by one; otherwise it searches in a supernet."""
        return self.proposer is not None

    @property
    def parts(self) -> tuple[type[Settings], ...]:
        """All settings that a recipe may hold, part by part. Of a setting that two parts have, the first counts."""
        return (*self.own, *self.common)

    def settings(self) -> list[Setting]:
        """Describes all settings that a recipe may hold for this strategy."""
        listed = {entry.name: entry for part in reversed(self.parts) for entry in part.listed()}
        order = dict.fromkeys(name for part in self.parts for name in part.model_fields)
        shown = [listed[name] for name in order if name != 'early_stopping' or not self.never_stops]
        return [replace(entry, default=self.defaults.get(entry.name, entry.default)) for entry in shown]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Checks the settings that a recipe holds for this strategy.

        Raises:
            ValueError: for an unknown setting or an impossible value.
        """
        allowed = {name: part for part in reversed(self.parts) for name in part.model_fields}
        for name in settings:
            if name not in allowed:
                raise ValueError(no_such_setting(name, [entry.name for entry in self.settings()]))
        for part in self.parts:
            part(**{name: value for name, value in settings.items() if allowed[name] is part})
        if settings.get('early_stopping', False) is not False and self.never_stops:
            raise ValueError(self.never_stops)

    def create(self, /, **settings: Any) -> OneShotStrategy:
        """Returns the strategy with these settings, for NNI to run.

        Raises:
            ValueError: for a setting that it does not have, or a value that it cannot have.
        """
        if not self.one_by_one:  # others are checked by their constructors, which also take a seed
            self.check({name: value for name, value in settings.items() if name not in FOR_PYTHON})
        return self.build(settings, None)


def no_such_setting(name: str, allowed: Sequence[str]) -> str:
    """Says that a strategy has no such setting, and what it has."""
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    return f'this strategy has no setting {name!r}{hint}; it has {", ".join(allowed) or "none"}'


def checked_call(function: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """Calls a constructor with settings. Raises ValueError for one that it does not have."""
    known = list(inspect.signature(function).parameters)
    for name in settings:
        if name not in known:
            raise ValueError(no_such_setting(name, known))
    return function(**settings)
