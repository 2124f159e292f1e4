"""Imports on first use: public names of this package, and user code named ``package.module:Name``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from nni_darts.errors import InputError, did_you_mean

__all__ = ['FormerModules', 'check_module', 'failing_place', 'imported', 'in_user_code', 'lazy_names', 'named', 'source_file']


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns ``__getattr__`` and ``__dir__`` for a package that imports its public names on first use.

    Args:
        package: name of the package.
        homes: public name → module that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(importlib.import_module(homes[name]), name)

    return get, lambda: sorted(homes)


def imported(path: str) -> Any:
    """Imports an object of this package by ``module:name``, when it is needed."""
    module, _, name = path.partition(':')
    return getattr(importlib.import_module(module), name)


class FormerModules(MetaPathFinder, Loader):
    """Finds modules under their paths of an earlier version, with a DeprecationWarning.

    Args:
        moved: former import path → new import path.
    """

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns the spec of a module that has moved; None for any other module."""
        return ModuleSpec(name, self) if name in self.moved else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns a module that looks up all names in the module at the new path."""
        home = self.moved[spec.name]
        warnings.warn(f'{spec.name} has moved to {home}; the former path will be removed', DeprecationWarning, stacklevel=2)
        module, new = ModuleType(spec.name), importlib.import_module(home)
        module.__getattr__ = lambda name: getattr(new, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing, because the module has no code of its own."""


def named(path: str, what: str) -> Any:
    """Imports a user's object from the current folder or from Python's search path.

    Args:
        path: ``package.module:Name``.
        what: role of the object in messages, such as ``space``.

    Raises:
        InputError: if there is no such module or name, or importing the module fails; the message names the user's file and line.
    """
    module_name, _, name = path.partition(':')
    if '' not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # Python does not search the current folder when a command line tool runs
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition('.')[0]):
            raise InputError(f'{what} {path!r}: importing {module_name} failed: {error} ({failing_place(error)})') from None
        raise _missing(module_name, path, what) from None
    except SyntaxError as error:
        raise InputError(f'{what} {path!r}: {error.msg} ({error.filename}:{error.lineno})') from None
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f'{what} {path!r}: importing {module_name} failed: {_reason(error)} ({failing_place(error)})') from None
    if not hasattr(module, name):
        raise InputError(f'module {module_name!r} has no {name!r}{did_you_mean(name, vars(module))} ({what} {path!r})')
    return getattr(module, name)


def check_module(path: str, what: str) -> None:
    """Checks that the module of ``package.module:Name`` exists, without importing it, since it may import torch.

    Raises:
        InputError: if there is no such module in the current folder or on Python's search path.
    """
    module, before = path.partition(':')[0].partition('.')[0], list(sys.path)
    try:
        sys.path.insert(0, os.getcwd())
        if module not in sys.modules and find_spec(module) is None:
            raise _missing(module, path, what)
    finally:
        sys.path[:] = before


@contextmanager
def in_user_code(path: str, what: str, file: str | None) -> Iterator[None]:
    """Converts any exception of user code in the block to an InputError: one sentence with the user's file and line.

    Args:
        path: ``package.module:Name``.
        what: role of the object in messages, such as ``space``.
        file: file of the user's module; None if it is unknown.

    Raises:
        InputError: for any exception; an InputError is passed on unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f'{what} {path} failed: {_reason(error)} ({failing_place(error, file)})') from None


def failing_place(error: BaseException, file: str | None = None) -> str:
    """Returns ``FILE:LINE`` of the innermost frame in the user's code, which is neither in a library nor in this package.

    Args:
        error: the caught exception.
        file: file of the user's module; frames in its folder count as user code even inside a virtual environment. The file alone is
            returned if the exception was raised outside the user's code, as by a call with the wrong arguments.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith('<')]
    home = os.path.dirname(os.path.abspath(file)) + os.sep if file else None
    own = [frame for frame in frames if home and os.path.abspath(frame.filename).startswith(home) and 'site-packages' not in frame.filename]
    foreign = (os.path.dirname(os.__file__), str(Path(__file__).parent))
    elsewhere = [frame for frame in frames if 'site-packages' not in frame.filename and not frame.filename.startswith(foreign)]
    exact = [frame for frame in frames if file and os.path.abspath(frame.filename) == os.path.abspath(file)]
    if file and not (exact or own or elsewhere):
        return file
    frame = (exact or own or elsewhere or frames)[-1]
    return f'{frame.filename}:{frame.lineno}'


def _reason(error: BaseException) -> str:
    """Returns the type and the message of an exception in one line; an exit gets a description with its code."""
    if isinstance(error, SystemExit):
        return f'it ends the process (SystemExit: {error.code})'
    message = ' '.join(str(error).split())
    return f'{type(error).__name__}: {message}' if message else type(error).__name__


def source_file(thing: Any) -> str | None:
    """Returns the file that defines a class or function; None if it is unknown."""
    return getattr(sys.modules.get(getattr(thing, '__module__', '')), '__file__', None)


def _missing(module: str, path: str, what: str) -> InputError:
    hint = f'; write {path.replace(".py:", ":")}, without .py' if module.endswith('.py') else ''
    return InputError(f'no module {module!r} for {what} {path!r} in {Path.cwd()} or on PYTHONPATH{hint}')
