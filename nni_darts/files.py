"""Writing files so that a reader, or a later run, never sees half of one."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ['write_text']


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content at once (UTF-8)."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(text, 'utf-8')
    os.replace(temporary, path)
