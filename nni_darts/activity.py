"""The long work that is under way, announced by whatever does it to whoever watches. Imports no torch.

Reading files, building kernels or scoring candidates lies deep inside a run, and takes from seconds to hours. Such work calls
:func:`announce`; a progress bar, a log or a watchdog listens with :func:`watched`. Without a listener an announcement costs nothing.
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
    """A piece of work, and how far it is.

    Attributes:
        what: a few words, such as ``training`` or ``opening images``.
        done: how many parts of it are done.
        of: how many parts there are; None if they cannot be counted.
        lasting: whether it stays in view during other work inside it, as the epochs of a training do while batches are counted.
        seconds: how long work that cannot be counted is expected to take, where that is long enough for everybody to be told.

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
        """Whether all parts are done."""
        return self.of is not None and self.done >= self.of


Listener = Callable[[Activity], None]
"""Called with each announcement, in the thread that makes it."""

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar('listeners', default=())


@contextmanager
def watched(listener: Listener) -> Iterator[None]:
    """Within the block, has a listener called with each announcement of this thread. What it raises ends the work."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def announce(what: str, done: int = 0, of: int | None = None, *, lasting: bool = False, seconds: float | None = None) -> None:
    """Tells the listeners how far a piece of work is. Arguments as for :class:`Activity`."""
    listeners = _listeners.get()
    if listeners:
        activity = Activity(what, done, of, lasting, seconds)
        for listener in listeners:
            listener(activity)


@contextmanager
def under_way(what: str, *, seconds: float | None = None) -> Iterator[None]:
    """Announces work that cannot be counted, and its end after the block."""
    announce(what, seconds=seconds)
    try:
        yield
    finally:
        announce(what, 1, 1)


@contextmanager
def loading_torch() -> Iterator[None]:
    """Announces the imports in the block: of torch, and of what needs it.

    They make a million objects that stay. Looking through these for garbage, while they are made and ever after, takes an eighth of the
    time that imports take, so the collector is told to leave them alone.
    """
    first = 'torch' not in sys.modules and gc.isenabled()
    if first:
        gc.disable()
    try:
        with under_way('loading torch'):
            importlib.import_module('numpy')  # before torch, which swallows Ctrl-C while it imports numpy itself
            yield
    finally:
        if first:
            gc.freeze()
            gc.enable()


def counted(what: str, parts: Iterable[T], of: int | None = None) -> Iterator[T]:
    """The parts of a piece of work, each announced once the next one is asked for.

    Args:
        of: how many there are, where ``parts`` has no length.
    """
    total = len(parts) if of is None and isinstance(parts, Sized) else of
    announce(what, 0, total)
    for number, part in enumerate(parts, start=1):
        yield part
        announce(what, number, total)
