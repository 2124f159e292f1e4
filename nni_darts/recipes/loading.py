"""Reads recipes from YAML by name or path, applies overrides, and reports errors in one sentence. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from nni_darts.errors import InputError, did_you_mean
from nni_darts.genotypes.kinds import CellSpace, NasBench201Space, OwnSpace

__all__ = ['assign', 'error_sentence', 'load_yaml', 'override_pairs', 'read_recipe', 'recipe_names', 'recipe_text']


def recipe_names() -> list[str]:
    """Returns the names of this package's recipes."""
    files = resources.files('nni_darts.recipes').iterdir()
    return sorted(file.name[: -len('.yml')] for file in files if file.name.endswith('.yml'))


def recipe_text(name: str) -> str:
    """Returns the YAML of one of this package's recipes, with its comments.

    Raises:
        InputError: for an unknown name.
    """
    if name not in recipe_names():
        raise InputError(f'There is no recipe {name!r}{did_you_mean(name, recipe_names())}; choose from {", ".join(recipe_names())}.')
    return resources.files('nni_darts').joinpath('recipes', f'{name}.yml').read_text('utf-8')


class _Loader(yaml.SafeLoader):
    """A safe loader that reads ``3e-4`` as a number, which YAML 1.1 reads as text."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$'), list('-+0123456789')
)


def load_yaml(text: str, source: str) -> Any:
    """Parses YAML safely. Raises InputError that names ``source`` and the line of the mistake."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, 'problem_mark', None)
        where = f' at line {mark.line + 1}' if mark else ''
        raise InputError(f'{source} is not valid YAML{where}: {getattr(error, "problem", None) or str(error).splitlines()[0]}') from None


def read_recipe(name: str) -> tuple[str, str]:
    """Returns the YAML of a recipe by name or path, and the name of the recipe for messages.

    Raises:
        InputError: for an unknown name or a file that cannot be read.
    """
    if name in recipe_names():
        return recipe_text(name), f'recipe {name}'
    path = Path(name)
    if path.suffix not in ('.yml', '.yaml'):
        known = recipe_names()
        raise InputError(f'unknown recipe {name!r}{did_you_mean(name, known)}; known: {", ".join(known)}, or the path of a .yml file')
    try:
        return path.read_text('utf-8'), f'recipe {path}'
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read the recipe {path}: {getattr(error, "strerror", None) or error}') from None


def override_pairs(overrides: Iterable[str] | Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yields (key, value) of overrides: texts ``section.key=value``, or a mapping. Raises InputError if a text has no ``=``."""
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        yield from ((str(key), value) for key, value in overrides.items())
        return
    for text in overrides:
        key, equals, value = text.partition('=')
        if not equals:
            raise InputError(f'an override is written section.key=value, not {text!r}')
        yield key.strip(), load_yaml(value, f'the value of {key}')


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets ``section.key`` in nested plain data; a name ``package.module:Class`` within the key stays whole.

    Raises:
        InputError: if a part of the key holds a value instead of a section.
    """
    *sections, last = re.sub(r'^(search\.settings\.)([\w.]+:\w+)', lambda found: found[1] + found[2].replace('.', '\0'), key).split('.')
    sections, last = [section.replace('\0', '.') for section in sections], last.replace('\0', '.')
    for section in sections:
        if values.get(section) is None:  # also where a run has recorded that a mapping, such as retrain.space, was left out
            values[section] = {}
        inner = values[section]
        if not isinstance(inner, dict):
            raise InputError(f'cannot set {key!r}: {section!r} is not a section')
        values = inner
    values[last] = value


def _fields(path: tuple[Any, ...], kind: type[BaseModel], tag: type[BaseModel] | None) -> list[str]:
    """Returns the keys allowed at a path of a recipe; ``tag`` is the class of its section if several classes are possible."""
    model: Any = kind
    for part in path:
        annotation = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else None
        if tag is not None and not isinstance(annotation, type):
            annotation = tag
        annotation = next((part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def error_sentence(error: ValidationError, kind: type[BaseModel]) -> str:
    """Returns one sentence about the first error in a recipe of class ``kind``."""
    first = error.errors()[0]
    tag = next((_TAGS[part] for part in first['loc'] if part in _TAGS), None)
    path = tuple(part for part in first['loc'] if part not in _TAGS)
    key = '.'.join(map(str, path))
    if first['type'] == 'extra_forbidden':
        allowed = _fields(path[:-1], kind, tag)
        return f'unknown key {key!r}{did_you_mean(path[-1], allowed)}; allowed: {", ".join(allowed)}'
    if first['type'] == 'missing':
        return f'{key!r} is missing'
    message = first['msg'].removeprefix('Value error, ')
    if first['type'] == 'value_error':
        return f'{key}: {message}' if key else message
    if path[-1:] == ('[key]',):
        return f'the names in {".".join(map(str, path[:-2]))} must be text, not {first["input"]!r}'
    must = _MUST.get(first['type'], '').format(**first.get('ctx', {}))
    return f'{key} = {first.get("input")!r} is wrong: {f"it must be {must}" if must else message[0].lower() + message[1:]}'


_TAGS: dict[Any, type[BaseModel]] = {kind.__name__: kind for kind in (CellSpace, NasBench201Space, OwnSpace)}

_MUST = {
    'int_type': 'a whole number',
    'float_type': 'a number',
    'string_type': 'text',
    'bool_type': 'true or false',
    'dict_type': 'a mapping',
    'model_type': 'a mapping',
    'tuple_type': 'a list',
    'literal_error': '{expected}',
    'greater_than': 'above {gt}',
    'greater_than_equal': 'at least {ge}',
    'less_than': 'below {lt}',
    'less_than_equal': 'at most {le}',
    'finite_number': 'a finite number',
}
"""Type of a pydantic error → description of an allowed value."""
