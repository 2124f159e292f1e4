"""Renders pages from the templates beside this file. Each page is one self-contained file. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from nni_darts.files import write_text

__all__ = ['render', 'write_page']


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None) -> str:
    """Returns the text of a page.

    Args:
        template: file name of the template.
        values: values for the template. Text is escaped unless the template marks it as safe.
        filters: functions that the template uses.
    """
    environment = Environment(loader=PackageLoader('nni_darts.report', '.'), autoescape=select_autoescape(), trim_blocks=True)
    environment.filters.update(filters or {})
    return environment.get_template(template).render(values)


def write_page(folder: Path, name: str, data: Mapping[str, Any], template: str, values: Callable[[], Mapping[str, Any]]) -> None:
    """Writes ``NAME.json`` and ``NAME.html`` if anything changed. Each file is replaced atomically.

    Args:
        folder: folder for the files.
        name: name of both files, without the suffix.
        data: plain data of the page.
        template: name of the template.
        values: function that returns the template's further values; called only if the page is written.
    """
    text, path = json.dumps(data), folder / f'{name}.json'
    if path.exists() and path.read_text('utf-8') == text:
        return
    write_text(folder / f'{name}.html', render(template, {**data, **values(), 'source': path.name}))
    write_text(path, text)
