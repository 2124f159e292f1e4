"""The doctor's report on this machine, and on one that lacks something."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nni_darts.cli import doctor, main
from nni_darts.strategies.fast.kernels import compiler, kernels

BIN = Path(sys.executable).parent
STATES = ('ok', 'warning', 'missing')


@pytest.fixture(autouse=True)
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', f'{BIN}{os.pathsep}{os.environ["PATH"]}')


def test_this_machine_is_ready() -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ['doctor', '--json', '--port', str(port)])
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report['ok'] is True, done.output
    found = {finding['name']: finding for finding in report['findings']}
    assert all(finding['state'] in STATES for finding in found.values())
    for name in ('Python', 'packages', 'nni-darts command', 'NNI', 'torch'):
        assert found[name]['state'] == 'ok' and found[name]['found']
    assert found[f'port {port}']['state'] == 'warning' and '--port' in found[f'port {port}']['advice']
    assert {'memory', 'disk, here', 'disk, experiments', 'GPU', 'browser', 'compiler', 'kernels', 'export', 'tensorboard'} <= found.keys()
    assert all(finding['advice'] for finding in found.values() if finding['state'] != 'ok')


def test_a_machine_that_lacks_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program on PATH: trials could not be started, and kernels not be built. A line for each, what to do, exit code 1."""
    monkeypatch.setenv('PATH', '/nowhere')
    monkeypatch.setenv('HOME', str(tmp_path))
    done = CliRunner().invoke(main, ['doctor'])
    assert done.exit_code == 1
    *lines, empty, verdict = done.stdout.splitlines()
    (command,) = [line for line in lines if 'nni-darts command' in line]
    assert command.startswith('missing') and f'put {BIN} on PATH' in command
    assert any(line.startswith('missing  compiler ') and '(optional): install g++' in line for line in lines)
    assert verdict == 'Not ready: nni-darts command, NNI.' and not empty
    assert all(line.startswith(STATES) for line in lines)


def test_another_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'nni-darts').write_text('#!/bin/sh\n')
    (tmp_path / 'nni-darts').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    found = doctor._command()
    assert found.state == 'warning' and str(tmp_path) in found.found


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    assert doctor._disk('here', tmp_path / 'not' / 'there').state == 'ok'
    found = doctor._disk('experiments', Path('/proc/nowhere'))
    assert found.state == 'missing' and found.required


def test_kernels_that_are_not_built_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler() is None:
        pytest.skip('there is no C++ compiler')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    found = doctor._kernels(build=False)
    assert found.state == 'warning' and 'not built yet' in found.found and 'doctor --build' in found.advice
    assert not list(tmp_path.iterdir())


def test_kernels_are_checked_against_torch() -> None:
    import torch

    if kernels(torch.zeros(1)) is None:
        pytest.skip('there is no C++ compiler')
    output, gradient = doctor._difference()
    assert 0 < output < 1e-5 and 0 < gradient < 1e-3


def test_wrong_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, '_OUTPUT_TOLERANCE', 0.0)
    import torch

    if kernels(torch.zeros(1)) is None:
        pytest.skip('there is no C++ compiler')
    found = doctor._kernels(build=False)
    assert found.state == 'missing' and found.required and 'NNI_DARTS_KERNELS=off' in found.advice


def test_a_compiler_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / 'broken-compiler'
    broken.write_text('#!/bin/sh\necho "omp.h: no such file" >&2\n[ "$1" = --version ] && echo broken 1.0\n')
    broken.chmod(0o755)
    monkeypatch.setenv('CXX', str(broken))
    found = doctor._compiler()
    assert found.state == 'warning' and found.found == 'broken 1.0 does not compile: omp.h: no such file'


def test_a_check_that_fails_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, '_nni', lambda: 1 / 0)
    monkeypatch.setattr(doctor, '_kernels', lambda build: 1 / 0)
    found = {finding.name: finding for finding in doctor._examined(8080, False)}
    assert found['NNI'].state == 'missing' and found['NNI'].required and 'division by zero' in found['NNI'].found
    assert found['kernels'].state == 'missing' and not found['kernels'].required
