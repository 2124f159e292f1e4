"""The compiled kernels of ``kernels.cpp``: built once for a machine where a C++ compiler is present, and called through ctypes.

Nothing depends on them but speed: without a compiler, or with ``NNI_DARTS_KERNELS=off`` in the environment, the same is computed by torch's
operations. What was built lies in ``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``), under a name that changes with source, compiler
and processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ['SIZES', 'Geometry', 'Gradient', 'Part', 'kernels', 'pointer']

_logger = logging.getLogger(__name__)

SIZES = (3, 5, 7)
"""Of depthwise convolutions that are compiled."""

_SOURCE = Path(__file__).with_name('kernels.cpp')
_FLAGS = ('-std=c++17', '-O3', '-march=native', '-fno-math-errno', '-fopenmp', '-shared', '-fPIC')
_NAMES = {torch.float32: 'float32', torch.float64: 'float64'}


class Geometry(ctypes.Structure):
    """Of depthwise convolutions and the images they read (``Geometry`` in ``kernels.cpp``)."""

    _fields_ = [(name, ctypes.c_long) for name in ('batch', 'height', 'width', 'channels', 'groups', 'size', 'stride', 'dilation')]


class Gradient(ctypes.Structure):
    """Pointers and a distance: how the gradient of what depthwise convolutions gave is found (``Backward`` in ``kernels.cpp``)."""

    _fields_ = [
        ('y', ctypes.c_void_p),
        ('gradient', ctypes.c_void_p),
        ('offsets', ctypes.c_void_p),
        ('step', ctypes.c_long),
        ('through', ctypes.c_void_p),
        ('direct', ctypes.c_void_p),
        ('constant', ctypes.c_void_p),
    ]


class Part(ctypes.Structure):
    """What one operation's groups add to nodes (``Part`` in ``kernels.cpp``)."""

    _fields_ = [('groups', ctypes.c_long), *((name, ctypes.c_void_p) for name in ('y', 'matrix', 'offsets'))]


class _Kernels:
    """The functions of ``kernels.cpp`` for one precision, by their names there."""

    forward: Any
    between: Any
    to_state: Any
    add: Any
    cross: Any
    activate: Any
    activate_backward: Any

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        for function in type(self).__annotations__:
            setattr(self, function, getattr(library, f'{function}_{name}'))


def kernels(like: Tensor) -> _Kernels | None:
    """The functions for tensors like this one; None where there are none. The first call of a machine builds them: seconds."""
    if like.device.type != 'cpu' or like.dtype not in _NAMES or os.environ.get('NNI_DARTS_KERNELS') == 'off':
        return None
    return _functions(_NAMES[like.dtype])


@functools.cache
def _functions(name: str) -> _Kernels | None:
    library = _library()
    return None if library is None else _Kernels(library, name)


def _library() -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get('CXX', 'g++'))
    if compiler is None or platform.system() != 'Linux':
        return None
    try:
        path = _cached(compiler)
        if not path.exists():
            _build(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the second: there is no home
        _logger.warning('the kernels could not be built, a search on the CPU is slower without: %s', error)
        return None


def _cached(compiler: str) -> Path:
    """Where the built kernels are: for this source, compiler and processor (a home may be shared by machines)."""
    version = subprocess.run([compiler, '--version'], capture_output=True, check=True).stdout
    processor = next((line for line in Path('/proc/cpuinfo').read_text('utf-8').splitlines() if line.startswith(('flags', 'Features'))), '')
    parts = (_SOURCE.read_bytes(), compiler.encode(), version, ' '.join(_FLAGS).encode(), processor.encode())
    digest = hashlib.sha256(b'\0'.join(parts)).hexdigest()[:20]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return cache / 'nni-darts' / f'kernels-{digest}.so'


def _build(compiler: str, path: Path) -> None:
    """Compiles beside, then renames: several processes may do so at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / 'kernels.so'
        subprocess.run([compiler, *_FLAGS, str(_SOURCE), '-o', str(built)], check=True, capture_output=True, timeout=300)
        built.replace(path)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's numbers are; null for None.

    Raises:
        ValueError: if they do not follow each other: the kernels would read others.
    """
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is not contiguous')
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
