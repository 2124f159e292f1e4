"""The shapes at which operations on the edges of cells are computed in the network to retrain."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.base import operation_label, operation_name
from nni_darts.genotypes.convolutional import KINDS
from nni_darts.genotypes.kinds import NasBench201Space
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape
from nni_darts.report.cost import Cost, counted
from nni_darts.runs.tasks import task_of
from nni_darts.search_spaces import network_from_genotype
from nni_darts.search_spaces.cnn import edge_stride
from nni_darts.search_spaces.nasbench201 import STAGES, edge_operation
from nni_darts.search_spaces.operations import create_operation

__all__ = ['CellShapes', 'build_operation', 'sizes_of_network']


class CellShapes:
    """The inputs of the operations on the edges of the cells of a recipe's network to retrain.

    Args:
        recipe: all settings; its space is one of image cells.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.
        base: any cell of the space.

    Attributes:
        of_label: label of an edge → the shape in each cell that has the edge.

    Example:
        ``CellShapes(recipe, data, cell).of_label['normal_op_2_0'][0]`` is ``EdgeShape(16, 8, 8, 1)``.
    """

    def __init__(self, recipe: Recipe, data: Any, base: AnyGenotype) -> None:
        self._recipe, self._data, self._base = recipe, data, base
        if isinstance(recipe.space, NasBench201Space):
            shapes = list(_shapes_of_stages(recipe, data))
            self.of_label = {label: shapes for label in recipe.space.choices().operations}
            return
        options: dict[str, Any] = {**task_of(recipe).network_options(recipe, 'retrain', data), 'auxiliary': False}
        found: dict[tuple[str, bool], list[EdgeShape]] = {}

        def network() -> nn.Module:
            built: Any = network_from_genotype(base, **options)
            for index, cell in enumerate(built.cells):
                cell.register_forward_hook(_noting(found, 'reduce' if index in built.reductions else 'normal'))
            return built

        self.cost: Cost = counted(network, (1, data.channels, *data.size))
        """Cost of the network of ``base``."""
        self.of_label = {label: found[kind, source < 2] for kind in KINDS for label, source in _edges(kind, base.nodes)}  # type: ignore[attr-defined]

    @cached_property
    def needed(self) -> list[tuple[str, EdgeShape]]:
        """All operations of the space at all their shapes, each once."""
        operations = self._recipe.space.choices().operations
        return list(
            dict.fromkeys(
                (operation_name(name), shape) for label, names in operations.items() for name in names for shape in self.of_label[label]
            )
        )


def build_operation(recipe: Recipe, name: str, shape: EdgeShape) -> nn.Module:
    """Builds an operation as the network to retrain has it on an edge.

    Args:
        recipe: all settings; its space is one of image cells.
        name: name of the operation.
        shape: shape of its input, and its stride.
    """
    if isinstance(recipe.space, NasBench201Space):
        return edge_operation(name, shape.channels, affine=True)
    return create_operation(name, shape.channels, shape.stride, affine=True, pool_batch_norm=recipe.retrain.pool_batch_norm)


def sizes_of_network(recipe: Recipe, data: Any) -> dict[str, Any]:
    """Returns the sizes on which the latency of the fixed parts of the network to retrain depends, as plain data."""
    options = task_of(recipe).network_options(recipe, 'retrain', data)
    space: Any = recipe.space
    names = ('channels', 'cells', 'stem', 'in_channels', 'num_classes', 'pool_batch_norm')
    return {
        'space': 'nasbench201' if isinstance(space, NasBench201Space) else 'darts',
        'nodes': space.nodes,
        **{name: options[name] for name in names},
        'image_size': list(data.size),
    }


def _shapes_of_stages(recipe: Recipe, data: Any) -> Iterator[EdgeShape]:
    """Yields the shape in each cell of NAS-Bench-201, in which all edges have the same shape."""
    options = task_of(recipe).network_options(recipe, 'retrain', data)
    channels, (height, width) = options['channels'], data.size
    for _ in range(STAGES):
        yield from [EdgeShape(channels, height, width)] * (options['cells'] // STAGES)
        channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)


def _edges(kind: str, nodes: int) -> Iterator[tuple[str, int]]:
    """Yields the label and the source of each edge of a kind of cell."""
    for state in range(2, 2 + nodes):
        yield from ((operation_label(kind, state, source), source) for source in range(state))


def _noting(found: dict[tuple[str, bool], list[EdgeShape]], kind: str) -> Any:
    """Returns a hook that notes the shapes of a cell's states, by kind and whether edges leave the inputs of the cell."""

    def note(cell: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        channels, (height, width) = output.shape[1] // len(cell.concat), output.shape[2:]
        stride = edge_stride(kind, 0)
        older = inputs[1].shape[2:] if stride > 1 else (height, width)
        found.setdefault((kind, True), []).append(EdgeShape(channels, older[0], older[1], stride))
        found.setdefault((kind, False), []).append(EdgeShape(channels, height, width))

    return note
