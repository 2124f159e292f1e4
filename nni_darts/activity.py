"""Announcements of lengthy tasks to progress bars, logs and watchdogs. Imports no torch.

Reading files, building kernels or scoring candidates happens deep inside a run, and takes from seconds to hours. Such tasks call
:func:`announce`; a progress bar, a log or a watchdog listens with :func:`watched`. Without a listener, an announcement costs nothing.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

__all__ = ['Activity', 'Listener', 'announce', 'counted', 'loading_torch', 'under_way', 'watched']

T = TypeVar('T')


@dataclass(frozen=True)
class Activity:
    """A task and its progress.

    Attributes:
        what: a short description, such as ``training`` or ``opening images``.
        done: number of finished parts.
        of: number of parts; None if they cannot be counted.
        lasting: whether it stays in view during tasks inside it, as the epochs of a training do while batches are counted.
        seconds: expected duration of a task that cannot be counted, if it is long enough to be mentioned.

    Example:
        >>> Activity('training', 3, 14).over
        False
    """

    what: str
    done: int = 0
    of: int | None = None
    lasting: bool = False
    seconds: float | None = None

    @property
    def over(self) -> bool:
        """Whether all parts are finished."""
        return self.of is not None and self.done >= self.of


Listener = Callable[[Activity], None]
"""A function that is called with each announcement, in the thread that makes it."""

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar('listeners', default=())


@contextmanager
def watched(listener: Listener) -> Iterator[None]:
    """Calls a listener with each announcement of this thread within the block. An exception of the listener ends the task."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def announce(what: str, done: int = 0, of: int | None = None, *, lasting: bool = False, seconds: float | None = None) -> None:
    """Tells the listeners the progress of a task. The arguments are those of :class:`Activity`."""
    listeners = _listeners.get()
    if listeners:
        activity = Activity(what, done, of, lasting, seconds)
        for listener in listeners:
            listener(activity)


@contextmanager
def under_way(what: str, *, seconds: float | None = None) -> Iterator[None]:
    """Announces a task that cannot be counted, and its end after the block."""
    announce(what, seconds=seconds)
    try:
        yield
    finally:
        announce(what, 1, 1)


@contextmanager
def loading_torch() -> Iterator[None]:
    """Announces the imports of torch, and of modules that need it, in the block.

    They create a million permanent objects. Searching these for garbage, during the imports and later, takes an eighth of the time of the
    imports, so the garbage collector is told to ignore them.
    """
    first = 'torch' not in sys.modules and gc.isenabled()
    if first:
        gc.disable()
    try:
        with under_way('loading torch'):
            importlib.import_module('numpy')  # before torch, which ignores Ctrl-C while it imports numpy itself
            yield
    finally:
        if first:
            gc.freeze()
            gc.enable()


def counted(what: str, parts: Iterable[T], of: int | None = None) -> Iterator[T]:
    """Yields the parts of a task, and announces each one when the next one is requested.

    Args:
        what: a short description of the task.
        parts: the parts.
        of: number of parts, if ``parts`` has no length.
    """
    total = len(parts) if of is None and isinstance(parts, Sized) else of
    announce(what, 0, total)
    for number, part in enumerate(parts, start=1):
        yield part
        announce(what, number, total)
