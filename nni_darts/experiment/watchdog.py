"""A trial that hangs ends itself: NNI would show it as RUNNING for ever."""

from __future__ import annotations

import faulthandler
import time

__all__ = ['Watchdog']

_REST_SECONDS = 1.0


class Watchdog:
    """Ends the process if there is no progress for too long, with the place where every thread stands on stderr and exit code 1.

    It waits in a thread of C, which works when Python itself is stuck.

    Args:
        seconds: how long nothing may happen.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen = time.monotonic()
        self._set()

    def progress(self) -> None:
        """Something happened. Cheap: it may be called after every batch."""
        now = time.monotonic()
        if now - self._seen >= min(_REST_SECONDS, self.seconds / 4):
            self._seen = now
            self._set()

    def _set(self) -> None:
        faulthandler.dump_traceback_later(self.seconds, exit=True)

    def stop(self) -> None:
        """From now on nothing needs to happen."""
        faulthandler.cancel_dump_traceback_later()
