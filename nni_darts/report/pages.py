"""Pages from the templates beside this file: each is one file that needs nothing else to be looked at. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

__all__ = ['render']


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None) -> str:
    """The text of a page.

    Args:
        template: name of the file.
        values: what it shows; text is escaped, but for what the template marks as safe.
        filters: functions that the template uses.
    """
    environment = Environment(loader=PackageLoader('nni_darts.report', '.'), autoescape=select_autoescape(), trim_blocks=True)
    environment.filters.update(filters or {})
    return environment.get_template(template).render(values)
