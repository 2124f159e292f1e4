"""The compiled kernels of ``cpp/``: built once for a machine where a C++ compiler is present, and called through ctypes.

Without a compiler, or with ``NNI_DARTS_KERNELS=off`` in the environment, torch's operations compute the same up to rounding. Built
libraries are cached in ``$XDG_CACHE_HOME/nni-darts`` (``~/.cache/nni-darts``), under a name that changes with source, compiler, instruction
set and processor.

They are built for the instruction set of the processor. ``NNI_DARTS_KERNELS_ARCH=x86-64-v3`` (any value of GCC's ``-march`` that the
processor can run) builds them for another one, so that every machine can test and measure narrower builds.
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

from nni_darts.activity import under_way
from nni_darts.files import cache_folder

__all__ = ['SIZES', 'State', 'built_kernels', 'compiler', 'instruction_set', 'kernels', 'pointer']

_logger = logging.getLogger(__name__)

SIZES = (3, 5, 7)
"""Of depthwise convolutions that are compiled."""

BUILD_SECONDS = 60.0
"""About how long the compiler takes for one precision on a core that others use, too; a third of that on a fast one that is free."""

_FOLDER = Path(__file__).with_name('cpp')
_SOURCE = _FOLDER / 'kernels.cpp'
_FLAGS = ('-std=c++17', '-O3', '-fno-math-errno', '-fopenmp', '-shared', '-fPIC')
_LEVELS = {
    'x86-64': (),
    'x86-64-v2': ('ssse3', 'sse4_1', 'sse4_2', 'popcnt', 'cx16'),
    'x86-64-v3': ('avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'movbe'),
    'x86-64-v4': ('avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'),
}
"""The levels of x86-64, each with what it adds to the one before as Linux names it in ``/proc/cpuinfo``."""
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
    return _functions(_NAMES[like.dtype], instruction_set())


def instruction_set() -> str:
    """The value of GCC's ``-march`` for which kernels are built: that of ``NNI_DARTS_KERNELS_ARCH``, or ``native``.

    Raises:
        ValueError: for a level of x86-64 that this processor does not have.
    """
    chosen = os.environ.get('NNI_DARTS_KERNELS_ARCH') or 'native'
    if chosen in _LEVELS:
        names = list(_LEVELS)
        needed = {flag for level in names[: names.index(chosen) + 1] for flag in _LEVELS[level]}
        missing = sorted(needed - set(_processor().split()))
        if missing:
            raise ValueError(
                f'NNI_DARTS_KERNELS_ARCH is {chosen}, which this processor cannot run: it lacks {", ".join(missing)}. '
                'Leave the variable out, or name a lower level.'
            )
    return chosen


def _processor() -> str:
    """The line of ``/proc/cpuinfo`` that lists what the first processor can do."""
    lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), '')


def compiler() -> str | None:
    """The program that builds the kernels: that of ``CXX``, or ``g++``; None where there is none."""
    return shutil.which(os.environ.get('CXX', 'g++')) if platform.system() == 'Linux' else None


def built_kernels(dtype: torch.dtype = torch.float32) -> Path | None:
    """The file of the kernels that were built on this machine for a precision; None if the first search has still to build them.

    Raises:
        OSError, subprocess.SubprocessError: if the compiler cannot be run.
    """
    program = compiler()
    path = None if program is None else _cached(program, _options(_NAMES[dtype], instruction_set()))
    return path if path is not None and path.exists() else None


def _options(name: str, march: str) -> tuple[str, ...]:
    return f'-DREAL={name}', f'-march={march}'


@functools.cache
def _functions(name: str, march: str) -> _Kernels | None:
    library = _library(_options(name, march))
    return None if library is None else _Kernels(library)


def _library(options: tuple[str, ...]) -> ctypes.CDLL | None:
    program = compiler()
    if program is None:
        return None
    try:
        path = _cached(program, options)
        if not path.exists():
            _build(program, options, path)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode('utf-8', 'replace').strip() or f'exit code {error.returncode}'
        _logger.warning('The kernels could not be built (%s): a search on the CPU is slower without them. %s', ' '.join(error.cmd), said)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the second: there is no home
        _logger.warning('The kernels could not be built: a search on the CPU is slower without them. %s', error)
    return None


def _cached(compiler: str, options: tuple[str, ...]) -> Path:
    """Where the built kernels are: for this source, precision, compiler and processor (a home may be shared by machines)."""
    version = subprocess.run([compiler, '--version'], capture_output=True, check=True).stdout
    parts = (
        *(file.read_bytes() for file in sorted(_FOLDER.iterdir()) if file.suffix in ('.cpp', '.h')),
        compiler.encode(),
        version,
        ' '.join((*_FLAGS, *options)).encode(),
        _processor().encode(),
    )
    digest = hashlib.sha256(b'\0'.join(parts)).hexdigest()[:20]
    return cache_folder() / f'kernels-{digest}.so'


def _build(compiler: str, options: tuple[str, ...], path: Path) -> None:
    """Compiles beside, then renames: several processes may do so at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / 'kernels.so'
        with under_way('building compiled kernels, once per machine', seconds=BUILD_SECONDS):
            subprocess.run([compiler, *_FLAGS, *options, str(_SOURCE), '-o', str(built)], check=True, capture_output=True, timeout=300)
        built.replace(path)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's numbers are; null for None.

    Raises:
        ValueError: if they do not follow each other: the kernels would read others.
    """
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is not contiguous')
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
