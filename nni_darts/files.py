"""Files between processes: written so that nobody sees half of one, and locked."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ['CHECKPOINT', 'METRICS', 'PREVIOUS', 'cache_folder', 'lock', 'locked', 'naming', 'no_room', 'replacing', 'write_text']

METRICS = 'metrics.jsonl'
"""In an output folder: a line for each epoch."""
CHECKPOINT, PREVIOUS = 'last.ckpt', 'previous.ckpt'
"""In an output folder: the last checkpoint and the one before it."""


def cache_folder() -> Path:
    """The user's folder for what can be made again: ``$XDG_CACHE_HOME/nni-darts``, or ``~/.cache/nni-darts``. It need not exist.

    Raises:
        RuntimeError: if the user has no home.
    """
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'nni-darts'


def lock(path: Path) -> int | None:
    """Takes the lock of a file, which is made if there is none; None if another process has it.

    Returns:
        A descriptor that holds the lock until it is closed. The kernel closes it when the process ends, however it ends.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(path: Path, *, patience: float) -> Iterator[None]:
    """Holds the lock of a file in the block.

    Args:
        patience: seconds to wait for another process that has it.

    Raises:
        OSError: if the file system has no locks; TimeoutError if the other process does not release it in time.
    """
    end = time.monotonic() + patience
    while (descriptor := lock(path)) is None:
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, 'another process keeps the lock', str(path))
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(descriptor)


_NO_ROOM = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'your share of the disk is used up',
    errno.EFBIG: 'it would be larger than this process or file system may write (ulimit -f)',
}


def no_room(error: OSError) -> str:
    """Says in a few words which kind of room a file lacks; '' for any other error."""
    return _NO_ROOM.get(error.errno or 0, '')


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of the system that is raised in the block without a name, as those of writing are."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class _Remembering(io.FileIO):
    """A file that keeps the first error of writing: torch's writer says no more of it than that a position is not the expected one."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = self.failed or error
            raise


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file beside ``path`` that takes its place at the end of the block, complete and on the disk; not if the block fails.

    Args:
        keep: where the file that was there before goes; None lets it go.

    Raises:
        OSError: if it cannot be written; ``filename`` is the path.
    """
    temporary = path.with_name(path.name + '.tmp')
    file: _Remembering | None = None
    try:
        file = _Remembering(temporary, 'wb')
        with io.BufferedWriter(file) as buffered:
            yield buffered
            buffered.flush()
            os.fsync(buffered.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        failed = error if isinstance(error, OSError) else file.failed if file is not None and isinstance(error, Exception) else None
        if failed is None:
            raise
        failed.filename = str(path)
        raise failed from None
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content at once (UTF-8)."""
    with replacing(path) as file:
        file.write(text.encode('utf-8'))
