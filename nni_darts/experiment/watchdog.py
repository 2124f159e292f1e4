"""Ends a trial that hangs, which NNI would show as RUNNING forever."""

from __future__ import annotations

import faulthandler
import time

__all__ = ['Watchdog']

_REST_SECONDS = 1.0


class Watchdog:
    """Ends the process with exit code 1 after too long without progress, and writes the stack of every thread to stderr.

    It waits in a C thread, which runs even if Python itself is stuck.

    Args:
        seconds: seconds without progress after which the process ends.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen = time.monotonic()
        self._set()

    def progress(self) -> None:
        """Notes that there is progress. This is cheap enough to call after every batch."""
        now = time.monotonic()
        if now - self._seen >= min(_REST_SECONDS, self.seconds / 4):
            self._seen = now
            self._set()

    def _set(self) -> None:
        faulthandler.dump_traceback_later(self.seconds, exit=True)

    def stop(self) -> None:
        """Stops watching."""
        faulthandler.cancel_dump_traceback_later()
