"""The provenance of a result: versions, command, state of the source, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nni_darts import __version__
from nni_darts.parallel import uses_gpu

__all__ = ['git_state', 'provenance']

_PACKAGES = ('nni', 'torch', 'torchvision', 'pytorch-lightning', 'numpy')


def git_state(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of a folder's git repository, and whether tracked files differ from it; None outside a repository."""
    try:
        commit = _git(folder, 'rev-parse', 'HEAD')
        return {'commit': commit, 'changed': bool(_git(folder, 'status', '--porcelain', '--untracked-files=no'))}
    except (OSError, subprocess.SubprocessError):
        return None  # git is not installed, or the folder is not in a repository


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _device() -> str:
    """Returns the device on which this process has computed. It does not query an unused GPU, because that would allocate memory there."""
    if uses_gpu():
        return torch.cuda.get_device_name()
    return 'mps' if torch.backends.mps.is_available() and torch.mps.driver_allocated_memory() else 'cpu'


def provenance() -> dict[str, Any]:
    """Returns plain data for ``result.json``: ``git`` is the state of the current folder, ``package_git`` that of this package's source."""
    return {
        'versions': {
            'nni-darts': __version__,
            'python': platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        'command': sys.argv,
        'git': git_state(Path.cwd()),
        'package_git': git_state(Path(__file__).parents[1]),
        'machine': {
            'platform': platform.platform(),
            'processor': platform.machine(),
            'device': _device(),
            'threads': torch.get_num_threads(),
        },
    }
