"""Stores the choice of the fastest executor in ``executors.json`` in the user's cache folder."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nni_darts.files import cache_folder, locked, write_text

if TYPE_CHECKING:
    from nni_darts.strategies.fast.executors import CellInputs, ExecutedCell, ExecutorRecord, Place

__all__ = ['choice_key', 'memory_file', 'recall', 'remember']

ENTRIES = 500
"""Largest number of choices in the file; the oldest choices are removed."""

_IN_PROCESS: dict[tuple[str, str], dict[str, Any]] = {}
"""(file, key) → choice of this process, which is kept even if the file cannot be written."""


def memory_file() -> Path | None:
    """Returns the file of remembered choices; None if the user has no home folder."""
    try:
        return cache_folder() / 'executors.json'
    except RuntimeError:
        return None


def recall(path: Path | None, key: str, candidates: Sequence[str]) -> ExecutorRecord | None:
    """Returns the choice stored under a key; None if there is no such choice among the candidates."""
    for entry in (_entries(path).get(key), _IN_PROCESS.get((str(path), key))):
        if isinstance(entry, dict) and entry.get('name') in candidates:
            times = entry.get('milliseconds')
            if not isinstance(times, dict) or not all(isinstance(value, int | float) for value in times.values()):
                times = {}
            return {'name': entry['name'], 'how': 'remembered', 'milliseconds': times}
    return None


def _entries(path: Path | None) -> dict[str, Any]:
    """Returns the entries of the file; empty if it is damaged or missing."""
    try:
        entries = json.loads(path.read_text('utf-8')) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def remember(path: Path | None, key: str, candidates: Sequence[str], record: ExecutorRecord) -> ExecutorRecord:
    """Stores and returns a choice, or returns the choice that another process has stored meanwhile."""
    entry = {'name': record['name'], 'milliseconds': record['milliseconds']}
    try:
        if path is None:
            raise OSError('there is no home')
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_suffix('.lock'), patience=2):
            before = recall(path, key, candidates)
            if before is not None:
                return before
            entries = {**_entries(path), key: entry}
            write_text(path, json.dumps(dict(list(entries.items())[-ENTRIES:]), indent=1) + '\n')
    except OSError:
        pass  # without the file, each process chooses by itself
    _IN_PROCESS[str(path), key] = entry
    return record


def choice_key(cell: ExecutedCell, candidates: Sequence[str], inputs: CellInputs, place: Place) -> str:
    """Returns a digest of machine, software, cell and sizes, which determine the fastest executor."""
    parts = (
        _processor(inputs[0].device),
        f'{torch.get_num_threads()} threads',
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        *(os.environ.get(name, '') for name in ('ONEDNN_MAX_CPU_ISA', 'NNI_DARTS_KERNELS', 'NNI_DARTS_KERNELS_ARCH', 'CXX')),
        _source(),
        str(place),
        ' '.join(candidates),
        ' '.join(str(tuple(x.shape)) for x in inputs if x is not None),
        cell.structure(),
    )
    return hashlib.blake2b('\0'.join(parts).encode(), digest_size=16).hexdigest()


@functools.cache
def _processor(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    except OSError:
        return platform.processor()
    return '\n'.join(next((line for line in lines if line.startswith(start)), '') for start in ('model name', 'flags', 'Features'))


@functools.cache
def _source() -> str:
    """Returns a digest of the executors' source code."""
    folder = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.rglob('*') if path.suffix in ('.py', '.h', '.cpp')):
        digest.update(file.read_bytes())
    return digest.hexdigest()
