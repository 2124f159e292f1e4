"""Builds methods that combine a relaxation, an architect and a selection. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nni_darts.strategies.catalogue import SearchedSettings
from nni_darts.strategies.method import Method
from nni_darts.strategies.settings import Settings

__all__ = ['Parts', 'combined', 'first_order', 'first_order_with']

Parts = dict[str, Any]
"""Keyword arguments of a strategy's class."""


def combined(
    name: str,
    summary: str,
    paper: str,
    parts: Callable[[Parts, Any], Parts],
    own: tuple[type[Settings], ...] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    **capabilities: Any,
) -> Method:
    """Returns a method that combines a relaxation, an architect and a selection.

    Args:
        name: name of the method.
        summary: description in one line.
        paper: reference to the paper.
        parts: (settings of the parts, selection that replaces the method's own, or None) → keyword arguments of the strategy's class.
        own: settings of the parts.
        defaults: default values that differ from the defaults of the strategy's class.
        capabilities: further attributes of the method.
    """

    def build(settings: Parts, selection: Any) -> Any:
        from nni_darts.strategies.differentiable import DifferentiableStrategy

        mine = {name: settings.pop(name) for part in own for name in part.model_fields if name in settings}
        return DifferentiableStrategy(**{**parts(mine, selection), **defaults, **capabilities.get('published', {}), **settings})

    return Method(name, summary, paper, build, own, (SearchedSettings,), defaults, **capabilities)


def first_order(own: Parts, selection: Any) -> Parts:
    """Returns the parts of first-order DARTS."""
    from nni_darts.strategies.architects import FirstOrder

    return {'architect': FirstOrder(), 'selection': selection}


def first_order_with(relaxation: str) -> Callable[[Parts, Any], Parts]:
    """Returns a function that makes the parts of first-order DARTS with another relaxation, which takes the method's settings."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import relaxations

        return {**first_order({}, selection), 'relaxation': getattr(relaxations, relaxation)(**own)}

    return parts
