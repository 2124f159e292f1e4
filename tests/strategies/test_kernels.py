"""Building and finding the compiled kernels; what they compute is compared in test_fast.py."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nni_darts import files
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.fast import kernels
from tests.helpers.compiler import needs_kernels


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv('NNI_DARTS_KERNELS', raising=False)
    monkeypatch.delenv('NNI_DARTS_KERNELS_ARCH', raising=False)
    kernels._functions.cache_clear()
    yield
    kernels._functions.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'nni-darts'


def test_they_are_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() == 'x86_64':
        monkeypatch.setenv('NNI_DARTS_KERNELS_ARCH', 'x86-64')  # the least that a compiler can be asked for
    needs_kernels()
    (built,) = cache.glob('*.so')
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    before = built.stat().st_mtime_ns
    kernels._functions.cache_clear()
    assert kernels.kernels(torch.zeros(1)) is not None
    assert [path.stat().st_mtime_ns for path in cache.glob('*.so')] == [before]
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')
    assert kernels.kernels(torch.zeros(1)) is None
    monkeypatch.delenv('NNI_DARTS_KERNELS')
    assert kernels.kernels(torch.zeros(1, dtype=torch.bfloat16)) is None


def test_a_compiler_that_fails_costs_only_speed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / 'compiler'
    compiler.write_text('#!/bin/sh\necho version 1\ntest "$1" = --version\n')
    compiler.chmod(0o700)
    monkeypatch.setenv('CXX', str(compiler))
    with caplog.at_level(logging.WARNING):
        assert kernels.kernels(torch.zeros(1)) is None
    assert 'could not be built' in caplog.text
    assert not list(cache.glob('*.so'))


@pytest.mark.usefixtures('cache')
def test_what_the_compiler_said_is_in_the_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS_ARCH', 'no-such-processor')
    if shutil.which('g++') is None:
        pytest.skip('there is no C++ compiler')
    with caplog.at_level(logging.WARNING):
        assert kernels.kernels(torch.zeros(1)) is None
    assert '-march=no-such-processor' in caplog.text and 'no-such-processor' in caplog.text.split('slower without them.')[1]


def test_a_level_that_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS_ARCH', 'x86-64-v3')
    monkeypatch.setattr(kernels, '_processor', lambda: 'flags : fpu ssse3 sse4_1 sse4_2 popcnt cx16 avx avx2 bmi1 f16c fma movbe')
    with pytest.raises(ValueError, match='NNI_DARTS_KERNELS_ARCH is x86-64-v3, which this processor cannot run: it lacks bmi2'):
        kernels.kernels(torch.zeros(1))


# A processor that has v4 computes everything else in the suite with vectors of that width.
@pytest.mark.parametrize(
    'level', [pytest.param('x86-64-v2', marks=pytest.mark.slow), 'x86-64-v3', pytest.param('x86-64-v4', marks=pytest.mark.slow)]
)
def test_every_level_computes_the_same(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths of vectors and numbers of registers differ; channels that fill none, one and several vectors, with some left over."""
    monkeypatch.setenv('NNI_DARTS_KERNELS_ARCH', level)
    try:
        needs_kernels(torch.float64)
    except ValueError as error:
        if 'which this processor cannot run' not in str(error):
            raise
        pytest.skip(str(error))
    for channels in (3, 8, 21):
        results = []
        for execution in ('compiled', 'plain'):
            torch.manual_seed(0)
            strategy = DifferentiableStrategy(execution=execution)
            model = strategy.mutate_model(DartsSpace(channels, 3, num_classes=3, in_channels=2, nodes=2)).double()
            strategy.architecture.double()
            output = model(torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
            results.append(torch.autograd.grad(output.square().sum(), [*strategy.arch_parameters(), *model.parameters()]))
        for found, wanted in zip(*results):
            assert (found - wanted).abs().max() <= 1e-10 * (1 + wanted.abs().max())


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert kernels.kernels(torch.zeros(1)) is None
    assert not caplog.records


TOY = ' '.join(
    ['extern "C" long plan_version() { return VERSION; }', *(f'extern "C" void {name}() {{}}' for name in kernels.Kernels.__annotations__)]
)


@pytest.fixture
def toy(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources that are built in a moment, and a compiler that notes each of its calls in a file, which is returned."""
    if (gcc := kernels.compiler()) is None:
        pytest.skip('there is no C++ compiler')
    (tmp_path / 'kernels.cpp').write_text(TOY.replace('VERSION', str(kernels.PLAN_VERSION)))
    monkeypatch.setattr(kernels, '_SOURCE', tmp_path / 'kernels.cpp')
    calls = tmp_path / 'calls'
    program = tmp_path / 'a compiler'
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest "$1" = --version || sleep 0.5\nexec {shlex.join(gcc)} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv('CXX', shlex.quote(str(program)))
    return calls


def builds(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if '--version' not in line]


def test_the_compiler_may_have_arguments_and_spaces_in_its_name(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', f'{os.environ["CXX"]} -DMINE="1 2"')
    assert kernels.kernels(torch.zeros(1)) is not None
    assert builds(toy)[0].startswith('-DMINE=1 2 -std=')


def test_a_quotation_that_does_not_end_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', 'g++ "')
    assert kernels.compiler() is None


def test_one_process_builds_while_the_others_wait(toy: Path) -> None:
    code = 'import sys, torch; from pathlib import Path; from nni_darts.strategies.fast import kernels; kernels._SOURCE = Path(sys.argv[1])'
    code += '; assert kernels.kernels(torch.zeros(1)) is not None'
    command = [sys.executable, '-W', 'ignore', '-c', code, str(kernels._SOURCE)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(builds(toy)) == 1


def test_kernels_are_built_without_locks_too(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(path: Path) -> int:
        raise OSError(errno.ENOLCK, 'no locks available')

    monkeypatch.setattr(files, 'lock', no_locks)
    assert kernels.kernels(torch.zeros(1)) is not None and len(builds(toy)) == 1


@pytest.mark.usefixtures('toy')
def test_kernels_of_another_version_of_the_plan_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(kernels, 'PLAN_VERSION', kernels.PLAN_VERSION + 1)
    assert kernels.kernels(torch.zeros(1)) is None
    assert f'read version {kernels.PLAN_VERSION - 1} of the plan, the package writes {kernels.PLAN_VERSION}' in caplog.text


@pytest.mark.usefixtures('toy')
def test_functions_refuse_arguments_of_other_types() -> None:
    functions = kernels.kernels(torch.zeros(1))
    with pytest.raises(ctypes.ArgumentError):
        functions.activate(1.5, 1, None, None, None, None, None, 1)
    with pytest.raises(ctypes.ArgumentError):
        functions.measure(kernels.pointer(torch.zeros(9)), (ctypes.c_long * 2)())


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 3e-7), (torch.float64, 1e-14)])
def test_activations_over_their_whole_range(dtype: torch.dtype, tolerance: float) -> None:
    needs_kernels(dtype)
    functions = kernels.kernels(torch.zeros(1, dtype=dtype))
    x = torch.cat([torch.linspace(-120, 120, 3001), torch.tensor([0.0, float('nan')])]).to(dtype)
    expected = [torch.tanh, torch.relu, torch.sigmoid, lambda update: update]
    for gate in (x, -x.roll(7)):
        for index, function in enumerate(expected):
            weights, state, gates, total = torch.zeros(1, 4, dtype=dtype), torch.full_like(x, 0.5), gate.clone(), torch.empty_like(x)
            weights[0, index] = 1
            functions.activate(1, len(x), kernels.pointers([state]), *map(kernels.pointer, (gates, x, weights, total)), 2)
            opened, value = torch.sigmoid(gate.double()), function(x.double())
            torch.testing.assert_close(gates.double(), opened, rtol=0, atol=tolerance, equal_nan=True)
            wanted = 0.5 + opened * (value - 0.5)
            torch.testing.assert_close(total.double(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_only_contiguous_tensors_are_pointed_to() -> None:
    with pytest.raises(ValueError, match='not contiguous'):
        kernels.pointer(torch.zeros(3, 2).t())
