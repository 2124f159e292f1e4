"""Files that several processes use: replaced atomically, and locked."""

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
"""File in an output folder with a line for each epoch."""
CHECKPOINT, PREVIOUS = 'last.ckpt', 'previous.ckpt'
"""Files in an output folder with the last checkpoint and the previous one."""


def cache_folder() -> Path:
    """Returns the user's folder for files that can be created again: ``$XDG_CACHE_HOME/nni-darts``, or ``~/.cache/nni-darts``.

    The folder need not exist.

    Raises:
        RuntimeError: if the user has no home folder.
    """
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'nni-darts'


def lock(path: Path) -> int | None:
    """Locks a file, which is created if it does not exist. Returns None if another process has the lock.

    Returns:
        A file descriptor that holds the lock until it is closed. The kernel closes it when the process ends for any reason.
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
    """Holds the lock of a file within the block.

    Args:
        path: path of the file.
        patience: seconds to wait if another process has the lock.

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
    """Returns in a few words why there is no room for a file; '' for any other error."""
    return _NO_ROOM.get(error.errno or 0, '')


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file's name to a system error in the block that has none, as errors of writing do not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class _Remembering(io.FileIO):
    """A file that keeps the first error of writing, because torch's writer only reports an unexpected position."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = self.failed or error
            raise


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file beside ``path`` that replaces it when the block ends, complete and on the disk, unless the block fails.

    Args:
        path: path of the file to replace.
        keep: path for the replaced file; None deletes it.

    Raises:
        OSError: if the file cannot be written; ``filename`` is the path.
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
    """Replaces the content of a file atomically (UTF-8)."""
    with replacing(path) as file:
        file.write(text.encode('utf-8'))
