"""A user's function as a data set. Its errors are reported with the user's own file and line."""

from __future__ import annotations

import sys

from nni_darts._lazy import in_user_code, named
from nni_darts.data.base import ImageData
from nni_darts.data.forms import from_value
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['read_function']


def read_function(settings: DataSettings) -> ImageData:
    """Calls the user's ``module:function`` without arguments, or with ``data.path`` if it is set.

    Returns:
        The data set built from its return value (:func:`nni_darts.data.forms.from_value`).

    Raises:
        InputError: if there is no such function, it fails, or its return value is invalid.
    """
    function = named(settings.name, 'data set')
    module, name = settings.name.split(':')
    file = getattr(sys.modules[module], '__file__', None)
    if not callable(function):
        raise InputError(f'data set {settings.name!r}: {name} in {file} is not callable')
    # Data sets run the user's code when their items are requested, so errors below are in the user's file, too.
    with in_user_code(settings.name, 'data set', file):
        return from_value(function(settings.path) if settings.path else function(), settings.name, settings)
