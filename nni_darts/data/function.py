"""A function of the user's as a data set. Its faults are reported with the user's own file and line."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from nni_darts.data.base import ImageData
from nni_darts.data.forms import from_value
from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings

__all__ = ['read_function']


def read_function(settings: DataSettings) -> ImageData:
    """Calls the user's ``module:function``, without arguments, or with ``data.path`` where it is set.

    Returns:
        The data set built from what it returned (:func:`nni_darts.data.forms.from_value`).

    Raises:
        InputError: if there is no such function, it fails, or it returns something else.
    """
    module_name, _, function_name = settings.name.partition(':')
    if '' not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a command line tool does not look into the current folder by itself
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition('.')[0]):
            raise InputError(f'data set {settings.name!r}: importing {module_name} failed: {error} ({_place(error, None)})') from None
        raise InputError(f'no module {module_name!r} for data set {settings.name!r} in {Path.cwd()} or on PYTHONPATH') from None
    except SyntaxError as error:
        raise InputError(f'data set {settings.name!r}: {error.msg} ({error.filename}:{error.lineno})') from None
    except Exception as error:  # the user's code may raise anything
        reason = f'{type(error).__name__}: {error}'
        raise InputError(f'data set {settings.name!r}: importing {module_name} failed: {reason} ({_place(error, None)})') from None
    if not hasattr(module, function_name):
        raise InputError(f'module {module_name!r} has no function {function_name!r} (data set {settings.name!r})')
    function = getattr(module, function_name)
    if not callable(function):
        raise InputError(f'data set {settings.name!r}: {function_name} in {module.__file__} is not callable')
    try:
        # Data sets run the user's code when their items are asked for: what follows fails in his file, too.
        return from_value(function(settings.path) if settings.path else function(), settings.name, settings)
    except InputError:
        raise
    except Exception as error:  # as above
        place = _place(error, getattr(module, '__file__', None))
        raise InputError(f'data set {settings.name} failed: {type(error).__name__}: {error} ({place})') from None


def _place(error: BaseException, file: str | None) -> str:
    """``FILE:LINE`` of the innermost frame in the user's code: not in a library that it called, nor in this package.

    Args:
        file: the user's module; frames in its folder count as his even inside an environment.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith('<')]
    home = os.path.dirname(os.path.abspath(file)) + os.sep if file else None
    own = [frame for frame in frames if home and os.path.abspath(frame.filename).startswith(home) and 'site-packages' not in frame.filename]
    foreign = (os.path.dirname(os.__file__), str(Path(__file__).parents[1]))
    elsewhere = [frame for frame in frames if 'site-packages' not in frame.filename and not frame.filename.startswith(foreign)]
    frame = (
        [frame for frame in frames if file and os.path.abspath(frame.filename) == os.path.abspath(file)] or own or elsewhere or frames
    )[-1]
    return f'{frame.filename}:{frame.lineno}'
