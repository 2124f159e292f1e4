"""The command ``doctor``, which checks this machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click
import psutil

from nni_darts import __version__
from nni_darts.cli.group import main
from nni_darts.experiment.gpus import visible_gpus

__all__ = ['Finding']

_GIB = 2**30
_LEAST_DISK, _ENOUGH_DISK = 0.5, 5.0
"""GiB below which nothing can be written, and GiB that are enough for several experiments."""
_ENOUGH_MEMORY = 2.0
"""GiB that two trials of the quickstart need."""
_OUTPUT_TOLERANCE, _GRADIENT_TOLERANCE = 1e-4, 1e-2
"""Largest relative difference between kernels and torch in single precision. Rounding may move a number across the kink of a ReLU."""
_SECONDS = 20
"""Time limit in seconds for each program that is started."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: name of the check.
        state: ``ok``; ``warning`` if it works with a drawback; ``missing`` if it does not work.
        found: what the check found.
        advice: how to fix it; empty if nothing needs to be done.
        required: whether searches or experiments cannot run without it.

    Example:
        >>> Finding('Python', 'ok', '3.11.7').required
        False
    """

    name: str
    state: Literal['ok', 'warning', 'missing']
    found: str
    advice: str = ''
    required: bool = False


@main.command(short_help='Check that this machine has what it needs.')
@click.option('--port', default=8080, show_default=True, type=click.IntRange(1024, 65535), help="Port to check for NNI's page.")
@click.option('--build', is_flag=True, help='Build the compiled kernels if necessary, which takes half a minute.')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def doctor(port: int, build: bool, as_json: bool) -> None:
    """Check this machine, one line for each check, and say how to fix problems. Starts no experiment.

    "missing" followed by (optional) marks something that you may not need. The exit code is 0 if everything required works, otherwise 1.

    \b
    Example:
      nni-darts doctor --port 8090
    """
    findings = []
    for finding in _examined(port, build):
        findings.append(finding)
        if not as_json:
            optional = '' if finding.required or finding.state != 'missing' else ' (optional)'
            click.echo(
                f'{finding.state:<8} {finding.name:<17} {finding.found}{optional}' + (f': {finding.advice}' if finding.advice else '')
            )
    wrong = [finding.name for finding in findings if finding.required and finding.state == 'missing']
    if as_json:
        click.echo(json.dumps({'ok': not wrong, 'version': __version__, 'findings': [asdict(finding) for finding in findings]}, indent=1))
    else:
        click.echo(f'\nNot ready: {", ".join(wrong)}.' if wrong else '\nEverything that is required works.')
    sys.exit(1 if wrong else 0)


def _examined(port: int, build: bool) -> Iterator[Finding]:
    """Yields all findings, the quick ones first."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ('Python', _python),
        ('packages', _packages),
        ('nni-darts command', _command),
        ('memory', _memory),
        *((f'disk, {what}', lambda what=what, path=path: _disk(what, path)) for what, path in _places()),
        (f'port {port}', lambda: _port(port)),
        ('NNI', _nni),
        ('browser', _browser),
        *((extra, lambda extra=extra: _extra(extra)) for extra in _extras()),
        ('torch', _torch),
        ('GPU', _gpu),
        ('compiler', _compiler),
        ('kernels', lambda: _kernels(build)),
    ]
    for name, check in checks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                yield check()
        except Exception as error:
            said = f'{type(error).__name__}: {error}'.splitlines()[0]
            yield Finding(name, 'missing', f'the check failed, {said}', required=name in ('torch', 'NNI', 'packages'))


# What is installed ----------------------------------------------------------------------------------------------------------------


def _requirements(extra: str = '') -> list[tuple[str, bool, str]]:
    """Returns the requirements of this package or of one of its extras: (requirement, satisfied or not, installed version or '')."""
    from packaging.requirements import Requirement

    found = []
    for text in metadata.requires('nni-darts') or ():
        requirement = Requirement(text)
        environments = [{'extra': ''}, {'extra': extra}]
        without, within = (requirement.marker is None or requirement.marker.evaluate(environment) for environment in environments)
        if requirement.name == 'nni-darts' or (without if extra else not without) or not within:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ''
        satisfied = bool(version) and requirement.specifier.contains(version, prereleases=True)
        found.append((f'{requirement.name}{requirement.specifier}', satisfied, version))
    return found


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    version, allowed = platform.python_version(), metadata.metadata('nni-darts')['Requires-Python'] or ''
    if SpecifierSet(allowed).contains(version):
        return Finding('Python', 'ok', f'{version}, {sys.executable}')
    return Finding('Python', 'missing', version, f'nni-darts needs Python {allowed}', required=True)


def _packages() -> Finding:
    wrong = [(text, version) for text, satisfied, version in _requirements() if not satisfied]
    if not wrong:
        return Finding('packages', 'ok', f'nni-darts {__version__} and the {len(_requirements())} packages that it requires', required=True)
    shown = ', '.join(f'{text} ({f"{version} is installed" if version else "not installed"})' for text, version in wrong)
    install = ' '.join(f"'{text}'" for text, _ in wrong)
    return Finding('packages', 'missing', shown, f'pip install {install}', required=True)


def _extras() -> list[str]:
    names = metadata.metadata('nni-darts').get_all('Provides-Extra') or []
    return [name for name in names if name != 'test' and _requirements(name)]


def _extra(extra: str) -> Finding:
    parts = _requirements(extra)
    lacking = [text for text, satisfied, _ in parts if not satisfied]
    if not lacking:
        return Finding(extra, 'ok', ', '.join(f'{text.split(">")[0].split("=")[0]} {version}' for text, _, version in parts))
    return Finding(extra, 'missing', ', '.join(lacking), f'pip install {shlex.join(lacking)}')


def _command() -> Finding:
    program = shutil.which('nni-darts')
    if program is None:
        advice = f'activate the environment that it is installed in, or put {Path(sys.executable).parent} on PATH: it starts the trials'
        return Finding('nni-darts command', 'missing', 'not on PATH', advice, required=True)
    if Path(program).absolute().parent != Path(sys.executable).absolute().parent:
        advice = 'trials would run in that environment; activate the environment that you want to use'
        return Finding('nni-darts command', 'warning', f'{program} on PATH belongs to another environment than {sys.executable}', advice)
    return Finding('nni-darts command', 'ok', program, required=True)


def _nni() -> Finding:
    if find_spec('pkg_resources') is None:
        advice = "pip install 'setuptools<81'"
        return Finding('NNI', 'missing', 'nnictl needs pkg_resources, which setuptools 81 dropped', advice, required=True)
    node = find_spec('nni_node')
    if node is None or not node.submodule_search_locations:
        return Finding('NNI', 'missing', 'nni_node, a part of NNI, is not installed', 'pip install nni==3.0', required=True)
    program = Path(node.submodule_search_locations[0]) / 'node'
    version = _first_line([str(program), '--version'])
    if version is None:
        return Finding('NNI', 'missing', f'{program} does not run', 'pip install --force-reinstall --no-deps nni==3.0', required=True)
    nnictl = shutil.which('nnictl')
    if nnictl is None:
        return Finding('NNI', 'missing', 'nnictl is not on PATH', f'put {Path(sys.executable).parent} on PATH', required=True)
    return Finding('NNI', 'ok', f'{metadata.version("nni")}, node {version}', required=True)


def _browser() -> Finding:
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        if sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            advice = 'open the addresses that commands print on your own machine; over ssh, forward the port with ssh -L'
            return Finding('browser', 'missing', 'this session has no display', advice)
        return Finding('browser', 'missing', 'none was found', 'open the addresses that commands print on a machine that has one')
    return Finding('browser', 'ok', getattr(found, 'name', '') or type(found).__name__)


# The machine ----------------------------------------------------------------------------------------------------------------------


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    shown = f'{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB are available'
    if memory.available < _ENOUGH_MEMORY * _GIB:
        return Finding('memory', 'warning', shown, 'close other programs, or set trialConcurrency: 1 in experiments')
    return Finding('memory', 'ok', shown)


def _places() -> list[tuple[str, Path]]:
    """Returns the places of files: the current folder for outputs of commands, the home folder for experiments."""
    return [('here', Path.cwd()), ('experiments', Path.home() / 'nni-experiments')]


def _disk(what: str, path: Path) -> Finding:
    name = f'disk, {what}'
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        return Finding(name, 'missing', f'{existing} cannot be written to', 'work in another folder', required=what == 'experiments')
    free = shutil.disk_usage(existing).free / _GIB
    shown = f'{free:.1f} GiB are free in {path}'
    if free < _LEAST_DISK:
        return Finding(name, 'missing', shown, 'free disk space', required=True)
    if free < _ENOUGH_DISK:
        return Finding(name, 'warning', shown, 'free disk space before long searches; an experiment takes a few hundred MB')
    return Finding(name, 'ok', shown)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(('127.0.0.1', port)) == 0
    if taken:
        return Finding(f'port {port}', 'warning', 'in use', 'nni-darts list shows your experiments; another port can be chosen with --port')
    return Finding(f'port {port}', 'ok', 'free')


# Computation ----------------------------------------------------------------------------------------------------------------------


def _torch() -> Finding:
    import torch

    torch.ones(8, 8) @ torch.ones(8, 8)
    shown = f'{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}'
    return Finding('torch', 'ok', shown, required=True)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Finding('GPU', 'ok', ', '.join(f'{entry.name} with {entry.total_memory / _GIB:.0f} GiB' for entry in names))
    if torch.backends.mps.is_available():
        return Finding('GPU', 'ok', f'mps with {torch.mps.recommended_max_memory() / _GIB:.0f} GiB')
    if visible_gpus():
        advice = "install a build of torch for this driver's CUDA version: pytorch.org/get-started"
        return Finding('GPU', 'warning', 'there are NVIDIA GPUs, but this build of torch cannot use them', advice)
    return Finding('GPU', 'ok', 'none: everything is computed on the CPU')


def _compiler() -> Finding:
    from nni_darts.strategies.fast.kernels import compiler, instruction_set

    command = compiler()
    if os.environ.get('NNI_DARTS_KERNELS') == 'off':
        return Finding('compiler', 'ok', 'not needed: NNI_DARTS_KERNELS is off')
    if command is None:
        advice = 'install g++, or name a compiler in CXX: searches on the CPU are slower without one'
        return Finding('compiler', 'missing', 'there is no C++ compiler', advice)
    with tempfile.TemporaryDirectory() as folder:
        options = ['-fopenmp', f'-march={instruction_set()}', '-shared', '-fPIC', '-x', 'c++', '-', '-o', f'{folder}/tried.so']
        done = subprocess.run([*command, *options], input=b'#include <omp.h>\n#include <cmath>\n', capture_output=True, timeout=_SECONDS)
    version = _first_line([*command, '--version']) or command[0]
    if done.returncode:
        said = next(iter(done.stderr.decode('utf-8', 'replace').splitlines()), f'exit code {done.returncode}')
        return Finding('compiler', 'warning', f'{version} does not compile: {said}', 'install its C++ library and OpenMP')
    return Finding('compiler', 'ok', version)


def _kernels(build: bool) -> Finding:
    import torch

    from nni_darts.strategies.fast.kernels import built_kernels, compiler, instruction_set, kernels

    if os.environ.get('NNI_DARTS_KERNELS') == 'off':
        return Finding('kernels', 'warning', 'NNI_DARTS_KERNELS is off', 'unset it: searches on the CPU are slower without kernels')
    if compiler() is None:
        return Finding('kernels', 'missing', 'they need a compiler')
    if built_kernels() is None and not build:
        advice = 'the first search builds them in half a minute; "nni-darts doctor --build" builds them now'
        return Finding('kernels', 'warning', f'not built yet for {instruction_set()}', advice)
    if kernels(torch.zeros(1)) is None:
        return Finding(
            'kernels', 'warning', 'they could not be built', 'searches on the CPU are slower without kernels; the warning above says why'
        )
    march = instruction_set()
    shown = f'built for {torch.backends.cpu.get_cpu_capability()} (-march=native)' if march == 'native' else f'built for {march}'
    output, gradient = _difference()
    shown += f', within {max(output, gradient):.0e} of torch'
    if output > _OUTPUT_TOLERANCE or gradient > _GRADIENT_TOLERANCE:
        advice = 'set NNI_DARTS_KERNELS=off, and report this with the output of nni-darts doctor'
        return Finding('kernels', 'missing', shown, advice, required=True)
    return Finding('kernels', 'ok', shown)


def _difference() -> tuple[float, float]:
    """Returns the relative norm of the difference between the kernels and torch's own operations on a small supernet.

    Returns:
        The difference for the output, and for the gradients.
    """
    import torch

    from nni_darts.search_spaces import DartsSpace
    from nni_darts.strategies import DifferentiableStrategy

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, several threads wait seconds for each other
    found: list[tuple[Any, Any]] = []
    try:
        for execution in ('plain', 'compiled'):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                strategy = DifferentiableStrategy(execution=execution)
                model = strategy.mutate_model(DartsSpace(channels=8, cells=3, nodes=2, num_classes=10, in_channels=3))
                output = model(torch.randn(4, 3, 16, 16))
                parameters = [*strategy.arch_parameters(), *model.parameters()]
                gradients = torch.autograd.grad(output.square().sum(), parameters, allow_unused=True)
            found.append((output.detach(), torch.cat([part.flatten() for part in gradients if part is not None])))
    finally:
        torch.set_num_threads(threads)
    (output, gradient), (other_output, other_gradient) = found
    return float((output - other_output).norm() / output.norm()), float((gradient - other_gradient).norm() / gradient.norm())


def _first_line(command: Sequence[str]) -> str | None:
    """Returns the first line that a program prints; None if it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), '')
