"""The compiled kernels of ``cpp/``: built once for a machine where a C++ compiler is present, and called through ctypes.

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

__all__ = ['SIZES', 'State', 'kernels', 'pointer']

_logger = logging.getLogger(__name__)

SIZES = (3, 5, 7)
"""Of depthwise convolutions that are compiled."""

_FOLDER = Path(__file__).with_name('cpp')
_SOURCE = _FOLDER / 'kernels.cpp'
_FLAGS = ('-std=c++17', '-O3', '-march=native', '-fno-math-errno', '-fopenmp', '-shared', '-fPIC')
_NAMES = {torch.float32: 'float', torch.float64: 'double'}


class State(ctypes.Structure):
    """A state and the candidates on the edges that leave it (``State`` in ``cpp/leaving.h``)."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ('batch', 'height', 'width', 'channels')),
        *((name, ctypes.c_void_p) for name in ('plan', 'x', 'weights', 'parameters', 'statistics')),
        ('threads', ctypes.c_int),
    ]


class _Kernels:
    """The functions of ``cpp/kernels.cpp``, built for one precision, by their names there."""

    measure: Any
    forward: Any
    backward: Any
    activate: Any
    activate_backward: Any

    def __init__(self, library: ctypes.CDLL) -> None:
        for function in type(self).__annotations__:
            setattr(self, function, getattr(library, function))


def kernels(like: Tensor) -> _Kernels | None:
    """The functions for tensors like this one; None where there are none. The first call of a machine builds them: seconds."""
    if like.device.type != 'cpu' or like.dtype not in _NAMES or os.environ.get('NNI_DARTS_KERNELS') == 'off':
        return None
    return _functions(_NAMES[like.dtype])


@functools.cache
def _functions(name: str) -> _Kernels | None:
    library = _library(f'-DREAL={name}')
    return None if library is None else _Kernels(library)


def _library(precision: str) -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get('CXX', 'g++'))
    if compiler is None or platform.system() != 'Linux':
        return None
    try:
        path = _cached(compiler, precision)
        if not path.exists():
            _build(compiler, precision, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the second: there is no home
        _logger.warning('the kernels could not be built, a search on the CPU is slower without: %s', error)
        return None


def _cached(compiler: str, precision: str) -> Path:
    """Where the built kernels are: for this source, precision, compiler and processor (a home may be shared by machines)."""
    version = subprocess.run([compiler, '--version'], capture_output=True, check=True).stdout
    processor = next((line for line in Path('/proc/cpuinfo').read_text('utf-8').splitlines() if line.startswith(('flags', 'Features'))), '')
    parts = (
        *(file.read_bytes() for file in sorted(_FOLDER.iterdir()) if file.suffix in ('.cpp', '.h')),
        compiler.encode(),
        version,
        ' '.join((*_FLAGS, precision)).encode(),
        processor.encode(),
    )
    digest = hashlib.sha256(b'\0'.join(parts)).hexdigest()[:20]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return cache / 'nni-darts' / f'kernels-{digest}.so'


def _build(compiler: str, precision: str, path: Path) -> None:
    """Compiles beside, then renames: several processes may do so at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / 'kernels.so'
        subprocess.run([compiler, *_FLAGS, precision, str(_SOURCE), '-o', str(built)], check=True, capture_output=True, timeout=300)
        built.replace(path)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's numbers are; null for None.

    Raises:
        ValueError: if they do not follow each other: the kernels would read others.
    """
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is not contiguous')
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
