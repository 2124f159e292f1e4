"""Measures the speed-up of a search step on text over a step that computes edge by edge.

The recurrent supernet takes steps under uniform α at its authors' size on Penn Treebank: batches of 256, 35 time steps, 300 units, 8
nodes, 10,000 words, every dropout, temporal regularisation, clipping, SGD. One kind of step is that of a first-order search, with α on
one batch and the weights on another; the other kind trains the weights only. Three implementations take the same step in turn, from the
same weights and with the same dropout masks:

- ``plain``: every edge and activation separately, cross-entropy from all logits at once, and derivatives of everything in both passes;
- ``authors``: the same in the arrangement of the authors' code, with one product for all inputs of a node and sequential activations;
- ``fast``: the implementation of this package.

    python -m benchmarks.recurrent_step

The words are random, because the time does not depend on them. Times vary between machines; only the ratio is meaningful.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import benchmark, print_table
from nni_darts.search_spaces import DartsRnnSpace
from nni_darts.search_spaces.recurrent import RecurrentCell
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import BilevelProblem, FirstOrder
from nni_darts.training.cross_entropy import linear_cross_entropy

CLIP, RATE, DECAY, SLOWNESS = 0.25, 20.0, 5e-7, 1e-3


class _Authors(RecurrentCell):
    """A relaxed cell arranged as in the DARTS authors' code, with the modules of the plain one."""

    def __init__(self, cell: RecurrentCell) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        outputs = []
        for word in words.unbind():
            gate, update = (torch.cat([word, hidden * mask], dim=-1) @ self.weight).chunk(2, dim=-1)
            states = self.norm(hidden + gate.sigmoid() * (update.tanh() - hidden))[None]
            for node in self.nodes:
                alphas = [edge.architecture.alpha(edge.label) for edge in node.edges]
                weights = torch.stack([node.edges[0].relaxation.probabilities(alpha) for alpha in alphas])
                products = (states * mask).view(-1, hidden.shape[-1]) @ node.weight
                gate, update = products.view(*states.shape[:2], -1).chunk(2, dim=-1)
                gate = gate.sigmoid()
                total = torch.zeros_like(hidden)
                for index, activation in enumerate((torch.tanh, torch.relu, torch.sigmoid, lambda x: x), start=1):
                    unweighted = states + gate * (activation(update) - states)
                    total = total + (weights[:, index, None, None] * unweighted).sum(dim=0)
                states = torch.cat([states, self.norm(total)[None]])
            hidden = states[1:].mean(dim=0)
            outputs.append(hidden)
        return torch.stack(outputs), hidden


def supernet(way: str, vocabulary: int, hidden: int, nodes: int) -> tuple[DifferentiableStrategy, nn.Module]:
    """Returns the supernet under uniform α, with the same weights for every implementation."""
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(architect=FirstOrder(), execution='fast' if way == 'fast' else 'plain')
    model = strategy.mutate_model(DartsRnnSpace(vocabulary, hidden, hidden, nodes))
    for alpha in strategy.arch_parameters():
        nn.init.zeros_(alpha)
    if way == 'authors':
        model.cell = _Authors(model.cell)
    return strategy, model


Batch = tuple[Tensor, Tensor]
"""Words, and the words that follow."""


def stepper(way: str, whole: bool, made: tuple[DifferentiableStrategy, nn.Module], train: Batch, valid: Batch) -> Callable[[], float]:
    """Returns a function that takes a whole step of the search, or a step of the weights, and returns the loss of the weights."""
    strategy, model = made
    weights, alphas = list(model.parameters()), strategy.arch_parameters()
    optimizer = torch.optim.SGD(weights, RATE, weight_decay=DECAY)
    adam = torch.optim.Adam(alphas, 0.0)  # α stays uniform

    def loss_on(batch: Batch) -> Tensor:
        tokens, targets = batch
        if way == 'fast':
            encoded = model.encode(tokens)
            loss = linear_cross_entropy(encoded.dropped.flatten(0, 1), model.decoder.weight, model.decoder.bias, targets)
        else:
            encoded = model(tokens)
            loss = functional.cross_entropy(encoded.logits, targets)
        return loss + SLOWNESS * (encoded.outputs[1:] - encoded.outputs[:-1]).square().mean()

    def step() -> float:
        if whole:
            if way == 'fast':
                losses, buffers = (lambda: loss_on(train), lambda: loss_on(valid)), list(model.buffers())
                problem = BilevelProblem(*losses, weights, alphas, optimizer, buffers, learning_rate=RATE)
                for alpha, gradient in zip(alphas, strategy.architect.gradient(problem)):
                    alpha.grad = gradient
            else:
                loss_on(valid).backward()
            adam.step()
            adam.zero_grad()
        frozen = way == 'fast' or not whole
        for alpha in alphas:
            alpha.requires_grad_(not frozen)
        optimizer.zero_grad()
        loss = loss_on(train)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        for alpha in alphas:
            alpha.requires_grad_(True)
        return loss.item()

    return step


@benchmark
@click.option('--rounds', default=5, show_default=True, help='How often each way takes its step, after one that is not counted.')
def main(rounds: int, quick: bool, json_file: Path | None) -> None:
    """Compare three implementations of a search step on text."""
    steps, batch, hidden, nodes, vocabulary = (5, 16, 20, 3, 50) if quick else (35, 256, 300, 8, 10_000)
    rounds = 2 if quick else rounds
    torch.manual_seed(1)
    train, valid = [(torch.randint(vocabulary, (steps, batch)), torch.randint(vocabulary, (steps * batch,))) for _ in range(2)]
    ways = ('plain', 'authors', 'fast')
    rows, lines = [], []
    for whole in (True, False):
        taken = {way: stepper(way, whole, supernet(way, vocabulary, hidden, nodes), train, valid) for way in ways}
        wall, cpu, apart = _measure(taken, rounds)
        name = 'search' if whole else 'weights'
        rows += [{'step': name, 'name': way, 'wall_s': statistics.median(wall[way]), 'cpu_s': statistics.median(cpu[way])} for way in ways]
        for way in ('plain', 'authors'):
            ratios = [slow / fast for slow, fast in zip(wall[way], wall['fast'])]
            lines.append(f'{name}: {statistics.median(ratios):.2f} times faster than {way} ({min(ratios):.2f} to {max(ratios):.2f})')
        lines.append(f'{name}: the first losses differ by {apart:.1e}')
    print_table(rows, json_file)
    for line in lines:
        click.echo(line)


def _measure(taken: Mapping[str, Callable[[], float]], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    """Returns wall and processor seconds of each implementation's steps, and the difference between the losses of the first step."""
    ways = list(taken)
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    apart = 0.0
    for turn in range(rounds + 1):
        losses = []
        for way in ways if turn % 2 else ways[::-1]:
            torch.manual_seed(turn)  # the same dropout masks
            started, used = time.perf_counter(), time.process_time()
            losses.append(taken[way]())
            if turn:
                wall[way].append(time.perf_counter() - started)
                cpu[way].append(time.process_time() - used)
        if not turn:  # in later steps, rounding errors have grown
            apart = max(losses) - min(losses)
    return wall, cpu, apart


if __name__ == '__main__':
    main()
