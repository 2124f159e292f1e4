"""Former names of :mod:`nni_darts.strategies.registry`, for one version."""

from __future__ import annotations

import warnings
from typing import Any

_NEW = {'PRESETS': 'methods:METHODS', 'Preset': 'method:Method', 'create_strategy': 'registry', 'preset': 'registry:find'}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _NEW:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module, _, new = _NEW[name].partition(':')
    warnings.warn(f'{__name__}.{name} is now nni_darts.strategies.{module}.{new or name}', DeprecationWarning, stacklevel=2)
    return getattr(import_module(f'nni_darts.strategies.{module}'), new or name)
