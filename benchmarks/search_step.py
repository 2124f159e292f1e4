"""Measures one step of a search in time, memory and number of operations.

The same batch goes through one whole bilevel step (α on a validation batch, then the weights) of

- ``nni``: NNI 3.0's own ``DARTS`` strategy on the DARTS space of its hub, first order;
- ``plain``: every candidate separately, NCHW, all gradients in every pass and a copy of the model for the virtual step, as published;
- ``fast``: the implementation of this package.

``nni`` and ``plain`` are each paired with ``fast``: two processes take steps in turn, and medians are compared. Peak memory is that of
each process. ``aten_ops`` counts the operations of a step that compute something (no views), which are kernel launches on a GPU; those
of ``fast`` are counted as on a GPU, with the batch in one piece.

    python -m benchmarks.search_step

Times vary between machines; only the ratios are meaningful. ``--digits`` measures the step of the recipe ``digits``; ``--growth``
prints another table, of how the cost of a ``fast`` step grows with cells, channels, batch size and nodes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.common import benchmark, print_table

OTHERS = ('nni:1', 'plain:1', 'plain:2')
DIGITS = {'channels': 8, 'cells': 3, 'nodes': 3, 'batch_size': 64, 'size': 8}
QUICK = {'channels': 4, 'cells': 3, 'batch_size': 8, 'size': 16}
GROWTH = {'channels': 16, 'cells': 5, 'nodes': 4, 'batch_size': 16, 'size': 32}
GROWN: dict[str, tuple[int, ...]] = {
    'cells': (3, 5, 8),
    'channels': (8, 16, 32),
    'batch_size': (8, 16, 32),
    'nodes': (2, 3, 4),
}


@benchmark
@click.option('--channels', default=16, show_default=True)
@click.option('--cells', default=8, show_default=True)
@click.option('--nodes', default=4, show_default=True, help='NNI has 4 always.')
@click.option('--batch-size', default=64, show_default=True)
@click.option('--size', default=32, show_default=True, help='Height and width of the images.')
@click.option('--stem', default='cifar', type=click.Choice(['cifar', 'imagenet']), show_default=True)
@click.option('--repeats', default=5, show_default=True)
@click.option('--threads', default=2, show_default=True)
@click.option('--device', default='cpu', show_default=True, help='cuda: on a GPU, and peak_mib is its memory.')
@click.option('--only', multiple=True, metavar='NAME:ORDER', help=f'Compare only with these of {", ".join(OTHERS)}. Repeatable.')
@click.option('--digits', is_flag=True, help='The sizes of the recipe digits; NNI is left out, since its cells have four nodes.')
@click.option('--growth', is_flag=True, help='How our first-order step grows.')
@click.option('--worker', hidden=True)
def main(
    worker: str | None, only: Sequence[str], digits: bool, growth: bool, repeats: int, quick: bool, json_file: Path | None, **sizes: Any
) -> None:
    """Measure time, memory and operations of one search step."""
    if worker:
        _work(*worker.split(':'), **sizes)
        return
    others = list(only or OTHERS)
    if quick:
        sizes |= QUICK
        repeats = 2
    if digits:
        sizes |= DIGITS
        others = [other for other in others if not other.startswith('nni')]
    if growth:
        _growth(repeats, {**sizes, **(QUICK if quick else GROWTH)}, json_file)
        return
    rows, ratios = [], []
    for other in others:
        pair = _measure((other, f'fast:{other[-1]}'), repeats, sizes)
        rows += [row for row in pair if row not in rows]
        parts = [f'{key} {pair[0][key] / pair[1][key]:.2f}' for key in ('wall_s', 'cpu_s', 'peak_mib', 'aten_ops')]
        ratios.append(f'{other} / fast: {", ".join(parts)}')
    pair = _measure(('fast:2', 'fast:1'), repeats, sizes)
    ratios.append(f'fast:2 / fast:1: wall_s {pair[0]["wall_s"] / pair[1]["wall_s"]:.2f}')
    print_table(rows, json_file)
    for line in ratios:
        click.echo(line)


def _growth(repeats: int, sizes: dict[str, Any], json_file: Path | None) -> None:
    rows = []
    for name, values in GROWN.items():
        for value in values:
            (row,) = _measure(('fast:1',), repeats, {**sizes, name: value})
            rows.append({'grown': name, 'value': value, **{key: row[key] for key in ('wall_s', 'peak_mib', 'aten_ops')}})
            click.echo(f'{name} {value}: {row["wall_s"]:.2f} s', err=True)
    print_table(rows, json_file)


def _measure(ways: Sequence[str], repeats: int, sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each implementation; their processes take turns."""
    arguments = [part for key, value in sizes.items() for part in (f'--{key.replace("_", "-")}', str(value))]
    processes = [_start(way, arguments) for way in ways]
    steps: list[list[dict[str, float]]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for process, measured in zip(processes, steps):
            answer = _ask(process, 'step')
            if turn:  # the first step is a warm-up
                measured.append(answer)
    rows = []
    for way, process, measured in zip(ways, processes, steps):
        counted = _ask(process, 'count')
        process.stdin.close()
        process.wait()
        medians = {key: statistics.median(step[key] for step in measured) for key in ('wall_s', 'cpu_s')}
        name, order = way.split(':')
        rows.append({'name': name, 'order': int(order), **medians, 'peak_mib': measured[-1]['peak_mib'], **counted})
    return rows


def _ask(process: subprocess.Popen, word: str) -> dict[str, float]:
    process.stdin.write(f'{word}\n')
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise click.ClickException(f'a process ended: {" ".join(map(str, process.args))}')
    return json.loads(answer)


def _start(worker: str, arguments: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, '-W', 'ignore', '-m', 'benchmarks.search_step', '--worker', worker, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _work(name: str, order: str, *, device: str, **sizes: Any) -> None:
    """Runs a process that takes a step on request, and finally a step whose operations are counted."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from nni_darts.training.run import peak_memory_mib

    aten = torch.ops.aten
    # Views that aten does not mark as such, and uninitialised memory.
    computing_nothing = {
        aten.detach.default,
        aten._unsafe_view.default,
        aten.empty.memory_format,
        aten.empty_like.default,
        aten.new_empty.default,
        aten.empty_strided.default,
        aten.new_empty_strided.default,
        aten.lift_fresh.default,
    }

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Counter.count += not function.is_view and function not in computing_nothing
            return function(*args, **(kwargs or {}))

    torch.set_num_threads(sizes.pop('threads'))
    torch.manual_seed(0)
    step = {'nni': _nni, 'plain': _plain, 'fast': _fast}[name](int(order), device=device, **sizes)
    for line in sys.stdin:
        if line.strip() == 'count':
            if name == 'fast':
                step = _fast(int(order), device=device, execution='joined', **sizes)
            with Counter():
                step()
            print(json.dumps({'aten_ops': Counter.count}), flush=True)
            return
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        if device != 'cpu':
            torch.accelerator.synchronize()
        used = {'wall_s': time.perf_counter() - wall, 'cpu_s': time.process_time() - cpu}
        print(json.dumps({**used, 'peak_mib': peak_memory_mib()}), flush=True)


def _batches(batch_size: int, size: int, device: str) -> list[Any]:
    import torch

    return [(torch.randn(batch_size, 3, size, size).to(device), torch.arange(batch_size).to(device) % 10) for _ in range(2)]


def _fast(
    order: int,
    *,
    channels: int,
    cells: int,
    nodes: int,
    batch_size: int,
    size: int,
    stem: str,
    device: str,
    execution: str = 'fast',
) -> Callable[[], None]:
    import torch
    from torch.nn import functional

    from nni_darts.search_spaces import DartsSpace
    from nni_darts.strategies import create_strategy
    from nni_darts.strategies.architects import BilevelProblem

    strategy = create_strategy('darts-1st' if order == 1 else 'darts-2nd', execution=execution)
    model = strategy.mutate_model(DartsSpace(channels, cells, nodes=nodes, stem=stem)).to(device)
    strategy.architecture.to(device)
    weights, alphas = list(model.parameters()), strategy.arch_parameters()
    optimizer, adam = _optimizers(weights, alphas, foreach=True)
    train, valid = _batches(batch_size, size, device)

    def loss(batch: Any) -> Any:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def step() -> None:
        losses, buffers = (lambda: loss(train), lambda: loss(valid)), list(model.buffers())
        problem = BilevelProblem(*losses, weights, alphas, optimizer, buffers, learning_rate=0.025)
        for alpha, gradient in zip(alphas, strategy.architect.gradient(problem)):
            alpha.grad = gradient
        adam.step()
        for alpha in alphas:
            alpha.requires_grad_(False)
        optimizer.zero_grad()
        loss(train).backward()
        torch.nn.utils.clip_grad_norm_(weights, 5, foreach=True)
        optimizer.step()
        for alpha in alphas:
            alpha.requires_grad_(True)

    return step


def _plain(order: int, *, channels: int, cells: int, nodes: int, batch_size: int, size: int, stem: str, device: str) -> Callable[[], None]:
    import copy

    import torch
    from torch import nn
    from torch.nn import functional

    from nni_darts.search_spaces import DartsSpace, cnn
    from nni_darts.search_spaces.convolutions import DepthwiseConv2d, PointwiseConv2d
    from nni_darts.strategies import create_strategy

    cnn.suited_layout = lambda images: images
    strategy = create_strategy('darts-1st', execution='plain')
    model = strategy.mutate_model(DartsSpace(channels, cells, nodes=nodes, stem=stem)).to(device)
    strategy.architecture.to(device)
    for module in model.modules():
        if isinstance(module, (DepthwiseConv2d, PointwiseConv2d)):
            module.__class__ = nn.Conv2d
    weights, alphas = list(model.parameters()), strategy.arch_parameters()
    optimizer, adam = _optimizers(weights, alphas)
    train, valid = _batches(batch_size, size, device)

    def backward(network: nn.Module, batch: Any) -> None:
        functional.cross_entropy(network(batch[0]), batch[1]).backward()

    def zero() -> None:
        for tensor in (*weights, *alphas):
            tensor.grad = None

    def second_order() -> list[Any]:
        zero()
        backward(model, train)
        # The copy shares α with the model, because α is not part of the model.
        shifted = copy.deepcopy(model, {id(strategy.architecture): strategy.architecture})
        with torch.no_grad():
            for target, weight in zip(shifted.parameters(), weights):
                momentum = optimizer.state[weight].get('momentum_buffer') if weight in optimizer.state else None
                direction = weight.grad + 3e-4 * weight + (0 if momentum is None else 0.9 * momentum)
                target.sub_(0.025 * direction)
                target.grad = None
        zero()
        backward(shifted, valid)
        gradients = [alpha.grad.clone() for alpha in alphas]
        vector = [parameter.grad.clone() for parameter in shifted.parameters()]
        radius = 0.01 / torch.cat([part.flatten() for part in vector]).norm()
        sides = []
        for scale in (radius, -2 * radius):
            with torch.no_grad():
                for weight, part in zip(weights, vector):
                    weight.add_(scale * part)
            zero()
            backward(model, train)
            sides.append([alpha.grad.clone() for alpha in alphas])
        with torch.no_grad():
            for weight, part in zip(weights, vector):
                weight.add_(radius * part)
        return [g - 0.025 * (p - n) / (2 * radius) for g, p, n in zip(gradients, *sides)]

    def step() -> None:
        if order == 2:
            gradients = second_order()
            for alpha, gradient in zip(alphas, gradients):
                alpha.grad = gradient
        else:
            zero()
            backward(model, valid)
        adam.step()
        zero()
        backward(model, train)
        torch.nn.utils.clip_grad_norm_(weights, 5)
        optimizer.step()

    return step


def _nni(order: int, *, channels: int, cells: int, nodes: int, batch_size: int, size: int, stem: str, device: str) -> Callable[[], None]:
    import torch
    from nni.nas.hub.pytorch import DARTS as Hub
    from nni.nas.oneshot.pytorch.strategy import DARTS
    from torch.nn import functional

    import nni_darts._nni  # noqa: F401  (imports nni.nas quietly)

    strategy = DARTS()
    model = strategy.mutate_model(Hub(width=channels, num_cells=cells, dataset='cifar' if stem == 'cifar' else 'imagenet')).to(device)
    alphas = list(strategy._arch_parameters.values())
    known = {id(alpha) for alpha in alphas}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in known]
    optimizer, adam = _optimizers(weights, alphas)
    train, valid = _batches(batch_size, size, device)

    def backward(batch: Any) -> None:
        output = model(batch[0])
        logits = output[0] if isinstance(output, tuple) else output
        functional.cross_entropy(logits, batch[1]).backward()

    def step() -> None:
        # As in NNI's Lightning module, every pass differentiates everything.
        adam.zero_grad()
        backward(valid)
        adam.step()
        optimizer.zero_grad()
        backward(train)
        torch.nn.utils.clip_grad_norm_(weights, 5)
        optimizer.step()

    return step


def _optimizers(weights: Any, alphas: Any, foreach: bool | None = None) -> tuple[Any, Any]:
    import torch

    sgd = torch.optim.SGD(weights, 0.025, 0.9, weight_decay=3e-4, foreach=foreach)
    return sgd, torch.optim.Adam(alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3, foreach=foreach)


if __name__ == '__main__':
    main()
