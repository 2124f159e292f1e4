"""The shapes of operations on edges are those that the operations of a real network see."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape
from nni_darts.runs.edge_shapes import CellShapes, build_operation, sizes_of_network
from nni_darts.runs.tasks import task_of

SETTINGS: dict[str, dict[str, Any]] = {
    'digits': {'retrain.channels': 6, 'retrain.cells': 7},
    'odd sides and the stem of ImageNet': {'space.stem': 'imagenet', 'data.name': 'cifar10', 'retrain.channels': 4},
    's2': {'space.name': 's2', 'space.nodes': 4},
    'nasbench201': {
        'space.name': 'nasbench201',
        'space.cells': 3,
        'space.nodes': 4,
        'retrain.channels': 4,
        'retrain.cells': 6,
        'retrain.drop_path': 0,
        'retrain.auxiliary_weight': 0,
    },
}


def edges_of(network: Any, recipe: Recipe) -> list[torch.nn.Module]:
    if recipe.space.name == 'nasbench201':
        return [edge for cell in network.cells if hasattr(cell, 'edges') for edge in cell.edges]
    return [edge for cell in network.cells for node in cell.nodes for edge in node.edges]


def noting(seen: list[Any]) -> Any:
    return lambda module, inputs, output: seen.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), str(module)))


@pytest.mark.parametrize('name', SETTINGS)
def test_shapes_and_modules_are_those_of_a_real_network(name: str) -> None:
    recipe = Recipe.load('digits', SETTINGS[name])
    data, space = task_of(recipe).shape(recipe), recipe.space
    for seed in range(3):
        cell = space.random_cell(random.Random(seed))
        network, seen = task_of(recipe).network(recipe, 'retrain', cell, data).eval(), []
        for edge in edges_of(network, recipe):
            edge.register_forward_hook(noting(seen))
        with torch.no_grad():
            network(torch.rand(1, data.channels, *data.size))
        shapes = CellShapes(recipe, data, space.random_cell(random.Random(9)))
        expected = []
        for label, operation in (edge for edges in cell.edges().values() for edge in edges):
            for shape in shapes.of_label[label]:
                sides = (-(-side // shape.stride) for side in shape[1:3])
                expected.append((shape[:3], (shape.channels, *sides), str(build_operation(recipe, operation, shape))))
        assert Counter(seen) == Counter(expected) and len(seen) == len(expected) > 8


def test_everything_that_any_cell_uses_is_needed_and_nothing_else() -> None:
    recipe = Recipe.load('digits')
    shapes, used = CellShapes(recipe, task_of(recipe).shape(recipe), recipe.space.random_cell(random.Random(1))), set()
    for seed in range(300):
        for edges in recipe.space.random_cell(random.Random(seed)).edges().values():
            used |= {(operation, shape) for label, operation in edges for shape in shapes.of_label[label]}
    assert used == set(shapes.needed) and len(shapes.needed) == 35
    assert ('skip_connect', EdgeShape(32, 8, 8, 2)) in used and not any(operation == 'none' for operation, _ in used)


def test_the_sizes_of_the_fixed_parts_change_with_everything_that_they_depend_on() -> None:
    recipe = Recipe.load('digits')
    data, seen = task_of(recipe).shape(recipe), []
    for changes in ({}, {'retrain.cells': 6}, {'retrain.channels': 8}, {'space.nodes': 2}, {'retrain.pool_batch_norm': False}):
        seen.append(str(sizes_of_network(recipe.changed(changes, source=''), data)))
    larger = Recipe.load('digits', {'data.name': 'cifar10', 'data.path': 'nowhere'})
    seen.append(str(sizes_of_network(larger, task_of(larger).shape(larger))))
    assert len(set(seen)) == 6
