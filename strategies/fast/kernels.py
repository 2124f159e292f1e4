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
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from ctypes import POINTER, c_int, c_long, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from nni_darts.activity import under_way
from nni_darts.files import cache_folder, locked

__all__ = ['SIZES', 'Kernels', 'State', 'built_kernels', 'compiler', 'instruction_set', 'kernels', 'pointer', 'pointers']

_logger = logging.getLogger(__name__)

SIZES = (3, 5, 7)
"""Of depthwise convolutions that are compiled."""

BUILD_SECONDS = 60.0
"""About how long the compiler takes for one precision on a core that others use, too; a third of that on a fast one that is free."""
TIMEOUT = 300.0
"""Seconds after which the compiler is stopped, and after which a process no longer waits for another one that builds kernels."""
PLAN_VERSION = 1
"""Version of :class:`State` and of the numbers in a plan. It must be that of ``cpp/``: raise both with each change."""

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
    """A state and the candidates on its outgoing edges (``State`` in ``cpp/outgoing.h``)."""

    _fields_ = [
        *((name, c_long) for name in ('batch', 'height', 'width', 'channels')),
        *((name, c_void_p) for name in ('plan', 'x', 'weights', 'parameters', 'statistics')),
        ('threads', c_int),
    ]


class Kernels:
    """The functions of ``cpp/kernels.cpp``, built for one precision, by their names there.

    Attributes:
        digest: identifies source, compiler, instruction set and processor of the library.

    Raises:
        RuntimeError: if the library reads another version of the plan.
    """

    measure: Callable[..., None]
    forward: Callable[..., None]
    backward: Callable[..., None]
    activate: Callable[..., None]
    activate_backward: Callable[..., None]

    _ARGUMENTS = {
        'measure': (POINTER(State), POINTER(c_long)),
        'forward': (POINTER(State), c_void_p, c_void_p, c_int, c_void_p),
        'backward': (POINTER(State), *[c_void_p] * 6),
        'activate': (c_long, c_long, *[c_void_p] * 5, c_int),
        'activate_backward': (c_long, c_long, *[c_void_p] * 7, c_int),
    }

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.plan_version.argtypes, library.plan_version.restype = (), c_long
        version = library.plan_version()
        if version != PLAN_VERSION:
            raise RuntimeError(f'The C++ sources read version {version} of the plan, the package writes {PLAN_VERSION}: install it again.')
        self.digest = path.stem.removeprefix('kernels-')
        for name, types in self._ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, None
            setattr(self, name, function)


def kernels(like: Tensor) -> Kernels | None:
    """The functions for tensors like this one; None where there are none. The first call of a machine builds them: seconds."""
    if like.device.type != 'cpu' or like.dtype not in _NAMES or os.environ.get('NNI_DARTS_KERNELS') == 'off':
        return None
    return _functions(_NAMES[like.dtype], instruction_set())


def required_kernels(like: Tensor) -> Kernels:
    """Returns the functions for tensors like this one, where an executor that needs them has been found usable."""
    functions = kernels(like)
    assert functions is not None
    return functions


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


def compiler() -> tuple[str, ...] | None:
    """The command that builds the kernels: that of ``CXX``, which may have arguments, or ``g++``; None where there is none."""
    try:
        command = shlex.split(os.environ.get('CXX') or 'g++')
    except ValueError:  # a quotation that does not end
        return None
    program = shutil.which(command[0]) if command and platform.system() == 'Linux' else None
    return None if program is None else (program, *command[1:])


def built_kernels(dtype: torch.dtype = torch.float32) -> Path | None:
    """The file of the kernels that were built on this machine for a precision; None if the first search has still to build them.

    Raises:
        OSError, subprocess.SubprocessError: if the compiler cannot be run.
    """
    command = compiler()
    path = None if command is None else _cached(command, _options(_NAMES[dtype], instruction_set()))
    return path if path is not None and path.exists() else None


def _options(name: str, march: str) -> tuple[str, ...]:
    return f'-DREAL={name}', f'-march={march}'


@functools.cache
def _functions(name: str, march: str) -> Kernels | None:
    command, options = compiler(), _options(name, march)
    if command is None:
        return None
    try:
        path = _cached(command, options)
        if not path.exists():
            _build(command, options, path)
        return Kernels(path)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode('utf-8', 'replace').strip() or f'exit code {error.returncode}'
        _logger.warning('The kernels could not be built (%s): a search on the CPU is slower without them. %s', ' '.join(error.cmd), said)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: there is no home, or another plan
        _logger.warning('The kernels cannot be used: a search on the CPU is slower without them. %s', error)
    return None


def _cached(command: Sequence[str], options: Sequence[str]) -> Path:
    """Where the built kernels are: for this source, precision, compiler and processor (a home may be shared by machines)."""
    version = subprocess.run([*command, '--version'], capture_output=True, check=True).stdout
    parts = (
        *(file.read_bytes() for file in sorted(_FOLDER.iterdir()) if file.suffix in ('.cpp', '.h')),
        shlex.join(command).encode(),
        version,
        ' '.join((*_FLAGS, *options)).encode(),
        _processor().encode(),
    )
    digest = hashlib.sha256(b'\0'.join(parts)).hexdigest()[:20]
    return cache_folder() / f'kernels-{digest}.so'


def _build(command: Sequence[str], options: Sequence[str], path: Path) -> None:
    """Builds the library unless another process is doing so: then waits for it. Others never see half of the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with under_way('building compiled kernels, once per machine', seconds=BUILD_SECONDS), ExitStack() as stack:
        with suppress(OSError):  # the file system has no locks, or the other process takes too long: to build twice costs only time
            stack.enter_context(locked(path.with_name('kernels.lock'), patience=TIMEOUT))
        if path.exists():
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent))
        built = Path(folder) / 'kernels.so'
        call = [*command, *_FLAGS, *options, str(_SOURCE), '-o', str(built)]
        subprocess.run(call, check=True, capture_output=True, timeout=TIMEOUT)
        built.replace(path)


def pointer(tensor: Tensor | None) -> c_void_p:
    """Returns the address of a tensor's numbers; null for None.

    Raises:
        ValueError: if the tensor is not contiguous, because the kernels would read other numbers.
    """
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is not contiguous')
    return c_void_p(None if tensor is None else tensor.data_ptr())


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    """Returns an array of the tensors' addresses."""
    return (c_void_p * len(tensors))(*map(pointer, tensors))
