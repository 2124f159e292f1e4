"""The description of a method: a named strategy with its settings and capabilities. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nni_darts.errors import did_you_mean
from nni_darts.strategies.settings import Setting, Settings
from nni_darts.strategies.terms import check_terms_fit

if TYPE_CHECKING:
    from nni_darts._nni import OneShotStrategy
    from nni_darts.strategies.trained.base import OneByOne

__all__ = ['Method']

FOR_PYTHON = ('relaxation', 'architect', 'selection', 'mutation_hooks')
"""Settings for Python code only. A recipe cannot hold their values, so messages do not suggest them."""


@dataclass(frozen=True)
class Method:
    """A strategy that can be named in YAML, on the command line and in Python.

    Attributes describe the differences between methods, so that no code has to compare names or classes.

    Attributes:
        name: name of the method.
        summary: description in one line.
        paper: reference to the paper; empty for a user's own method.
        build: (settings, selection that replaces the method's own, or None) → strategy that NNI runs.
        own: settings of the relaxation, architect and selection.
        common: settings of the strategy's class.
        defaults: default values that differ from the defaults of the strategy's class.
        relaxed: whether the supernet computes all candidates at once, so that a suffix of the name can ask for another selection.
        decides_early: whether the method decides edges during the search, so that no other selection can continue from its end.
        in_stages: whether the method searches several supernets in succession, each for half of the epochs.
        published: default values that no general value of a recipe replaces, because α has another scale or optimizer than in DARTS.
        lacks: setting of the strategy's class → reason why this method has no such setting.
        trains_alpha: whether α is trained by gradients.
        on_simplex: whether α lies on a simplex, so that it is a probability itself.
        mixes_by_weights: whether every edge is a sum of its candidates' outputs, each times a weight.
        never_stops: reason why the method cannot stop early; empty if it can.
        proposer: settings → :class:`OneByOne` that proposes cells to train one by one; None for a method with a supernet.
        file: file of a user's own method; None if it is unknown, and for the methods of this package.
        cells_key: key of a recipe's ``search`` with the number of cells to train; empty if the setting ``cells`` has it.
        family: one of :data:`nni_darts.strategies.families.FAMILIES`; empty for a user's own method.
        fixed_cells: whether a budget only limits the number of cells, and does not raise it to what it affords.

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
    published: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    relaxed: bool = True
    decides_early: bool = False
    trains_alpha: bool = True
    on_simplex: bool = False
    mixes_by_weights: bool = True
    in_stages: bool = False
    never_stops: str = ''
    proposer: Callable[..., OneByOne] | None = None
    cells_key: str = ''
    family: str = ''
    fixed_cells: bool = False
    file: str | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether the method trains cells one by one, and does not search in a supernet."""
        return self.proposer is not None

    @property
    def parts(self) -> tuple[type[Settings], ...]:
        """All settings that a recipe may hold, part by part. If two parts have the same setting, the first one counts."""
        return (*self.own, *self.common)

    def settings(self) -> list[Setting]:
        """Returns descriptions of all settings that a recipe may hold for this method."""
        listed = {entry.name: entry for part in reversed(self.parts) for entry in part.listed()}
        order = dict.fromkeys(name for part in self.parts for name in part.model_fields)
        shown = [listed[name] for name in order if name not in self.lacks and (name != 'early_stopping' or not self.never_stops)]
        shown = [replace(entry, default=self.defaults.get(entry.name, entry.default)) for entry in shown]
        own = self.published
        return [replace(entry, default=own[entry.name], recipe='') if entry.name in own else entry for entry in shown]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Checks the settings that a recipe holds for this method.

        Raises:
            ValueError: for an unknown setting or an impossible value.
        """
        allowed = {name: part for part in reversed(self.parts) for name in part.model_fields}
        for name in settings:
            if name in self.lacks:
                raise ValueError(f'{self.name} has no setting {name!r}: {self.lacks[name]}')
            if name not in allowed:
                raise ValueError(no_such_setting(name, [entry.name for entry in self.settings()]))
        for part in self.parts:
            part(**{name: value for name, value in settings.items() if allowed[name] is part})
        if settings.get('early_stopping', False) is not False and self.never_stops:
            raise ValueError(self.never_stops)
        fits = {'on_simplex': self.on_simplex, 'mixes_by_weights': self.mixes_by_weights}
        check_terms_fit(settings.get('regularise', ()), trains_alpha=self.trains_alpha, **fits)

    def create(self, /, **settings: Any) -> OneShotStrategy:
        """Builds the strategy with these settings, for NNI to run.

        Raises:
            ValueError: for an unknown setting or an impossible value.
        """
        if not self.one_by_one:  # the constructors of other strategies check their settings, which include a seed
            self.check({name: value for name, value in settings.items() if name not in FOR_PYTHON})
        return self.build(settings, None)


def no_such_setting(name: str, allowed: Sequence[str]) -> str:
    """Returns the message that a strategy has no such setting, with the settings that it has."""
    return f'this strategy has no setting {name!r}{did_you_mean(name, allowed)}; it has {", ".join(allowed) or "none"}'


def checked_call(function: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """Calls a constructor with settings. Raises ValueError for an unknown setting."""
    known = list(inspect.signature(function).parameters)
    for name in settings:
        if name not in known:
            raise ValueError(no_such_setting(name, known))
    return function(**settings)
