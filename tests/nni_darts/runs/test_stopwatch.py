"""Measurements take turns, leave torch as it was, and fill a whole table. No test depends on the time that is measured."""

from __future__ import annotations

import random
import time

import torch

from nni_darts.recipes import Recipe
from nni_darts.runs.edge_shapes import CellShapes, sizes_of_network
from nni_darts.runs.stopwatch import measured_latencies, measured_table, processor_name, sum_of_operations, timed
from nni_darts.runs.tasks import task_of

SMALL = {'retrain.channels': 4, 'retrain.cells': 3, 'space.nodes': 1, 'space.operations': ['skip_connect', 'sep_conv_3x3']}


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append('slow')
        time.sleep(0.002)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # so that the clock also counts the sleep
    try:
        found = timed([slow, lambda: order.append('quick')], rounds=4)
    finally:
        torch.set_num_threads(threads)
    turns = [name for name, before in zip(order, ['', *order]) if name != before]
    assert turns == ['slow', 'quick'] * 5  # the warm-up and four rounds
    assert order.count('slow') == 5 + 1 + 4 and order.count('quick') > 40
    assert found[0].median >= 2 > found[1].median >= 0 and found[0].spread >= 0


def test_a_table_has_everything_that_the_space_needs_and_says_where_it_was_measured() -> None:
    recipe = Recipe.load('digits', {**SMALL, 'latency.measured': 'torch', 'latency.batch': 3})
    data = task_of(recipe).shape(recipe)
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    table = measured_table(recipe, data, rounds=3)
    assert torch.equal(state, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    shapes = CellShapes(recipe, data, recipe.space.random_cell(random.Random(1)))
    table.check(shapes.needed, sizes_of_network(recipe, data), 'it')
    assert sum(map(len, table.operations_ms.values())) == len(shapes.needed)
    assert {name: set(of) for name, of in table.operations_ms.items()} == {name: set(of) for name, of in (table.spread_ms or {}).items()}
    assert (table.batch, table.threads, table.processor, table.network) == (3, 1, processor_name(), sizes_of_network(recipe, data))
    assert table.software == f'torch {torch.__version__}' and table.date is not None


def test_a_whole_network_is_measured_also_outside_the_space() -> None:
    recipe = Recipe.load('digits', SMALL)
    data = task_of(recipe).shape(recipe)
    cells = [recipe.space.random_cell(random.Random(1)), Recipe.load('digits').space.random_cell(random.Random(1))]
    assert all(found.median > 0 for found in measured_latencies(cells, recipe, data, rounds=2))


def test_a_sum_has_one_latency_for_each_edge_in_each_cell() -> None:
    recipe = Recipe.load('digits')
    cell = recipe.space.random_cell(random.Random(1))
    shapes = CellShapes(recipe, task_of(recipe).shape(recipe), cell)
    assert sum_of_operations(cell, shapes, lambda name, shape: 1.0) == 5 * 6  # five cells of three nodes with two edges each
    assert sum_of_operations(cell, shapes, lambda name, shape: float(shape.stride == 2)) == 2 * sum(
        source < 2 for _, source in cell.reduce
    )  # two reduction cells
