"""Files between processes: written so that nobody sees half of one, and locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ['lock', 'replacing', 'write_text']


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
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file beside ``path`` that takes its place at the end of the block, complete and on the disk; not if the block fails.

    Args:
        keep: where the file that was there before goes; None lets it go.
    """
    temporary = path.with_name(path.name + '.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content at once (UTF-8)."""
    with replacing(path) as file:
        file.write(text.encode('utf-8'))
