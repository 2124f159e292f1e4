"""Finds what each candidate of a recipe's space adds to the cost of the network to retrain.

Everything but the latency is counted on torch's meta device by :func:`nni_darts.report.cost.counted`, as ``nni-darts cost`` counts.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from nni_darts.genotypes.costs import Costs, CostTable
from nni_darts.genotypes.kinds import CellSpace, OwnSpace
from nni_darts.genotypes.neighbours import Choices, Inputs
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape
from nni_darts.report.cost import counted
from nni_darts.runs.edge_shapes import CellShapes, build_operation
from nni_darts.runs.joint_costs import profiled_table
from nni_darts.runs.latencies import with_latency
from nni_darts.runs.tasks import task_of

__all__ = ['cost_table', 'inputs_apart']

_CHECKED = 8
"""Number of random networks whose cost is compared with the table, in spaces that are not known to be additive."""

_tables: dict[str, CostTable | str] = {}
"""Space, sizes and shape of the data as text → the table, or the reason why there is none."""


def cost_table(recipe: Recipe, data: Any) -> CostTable:
    """Returns what each candidate adds to the cost of the network that ``retrain`` trains, without its auxiliary head.

    Args:
        recipe: all settings.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.

    Raises:
        ValueError: if the costs of the candidates of a user's space do not add up.
        InputError: if the recipe's table of latencies lacks an operation or a shape.
    """
    key = repr((recipe.space, recipe.retrain, task_of(recipe).network_options(recipe, 'retrain', data), getattr(data, 'size', None)))
    if key not in _tables:
        try:
            _tables[key] = _table_of_cells(recipe, data) if type(recipe.space) is CellSpace else _measured(recipe, data)
        except ValueError as error:
            _tables[key] = str(error)
    found = _tables[key]
    if isinstance(found, str):
        raise ValueError(found)
    return found if recipe.latency is None else with_latency(found, recipe, data)


def _table_of_cells(recipe: Recipe, data: Any) -> CostTable:
    """Counts each operation at each size once, because a network of many cells takes a second to count."""
    space: Any = recipe.space
    base = space.random_cell(random.Random(0))
    cells = CellShapes(recipe, data, base)
    total = Counter(asdict(cells.cost))
    counts: dict[tuple[str, EdgeShape], Costs] = {}

    def added(label: str, name: str) -> Counter[str]:
        found = Counter[str]()
        for shape in cells.of_label[label]:
            if (name, shape) not in counts:
                build = partial(build_operation, recipe, name, shape)
                counts[name, shape] = asdict(counted(build, (1, *shape[:3])))
            found.update(counts[name, shape])
        return found

    table = {label: {name: added(label, name) for name in names} for label, names in space.choices().operations.items()}
    for edges in base.edges().values():
        for label, name in edges:
            total.subtract(added(label, name))
    return CostTable(dict(total), table)


def _measured(recipe: Recipe, data: Any) -> CostTable:
    """Exchanges one candidate after the other in a network, and counts the differences.

    Raises:
        ValueError: if the cost of a random network is not the sum.
    """
    space = recipe.space.on_data(lambda: task_of(recipe).facts(data))
    choices = space.choices()
    if isinstance(space, OwnSpace):
        with contextlib.suppress(ValueError):  # then each candidate is counted
            return _profiled(space, choices, recipe, data)
    base = space.sample_of(space.random_cell(random.Random(0)))

    def cost(sample: Mapping[str, Any]) -> Costs:
        return asdict(task_of(recipe).cost(recipe, 'retrain', space.genotype_of(sample), data))

    at_base = cost(base)
    of_class: dict[Any, dict[Any, Costs]] = {}
    table: dict[str, dict[Any, Costs]] = {}
    for label, values in choices.operations.items():
        key = space.alike(label), values
        if key not in of_class:
            reached, of_reached = (base, at_base) if label in choices.model(base) else _reaching(choices, base, label, cost)
            of_class[key] = {value: _difference(cost({**reached, label: value}), of_reached) for value in values}
        table[label] = of_class[key]
    for label, inputs in choices.inputs.items():
        if not inputs.edges:
            table[label] = inputs_apart(label, inputs, base, cost)
    # The table holds differences to the base, whose own candidates therefore add nothing.
    sum_at_base = CostTable(dict.fromkeys(at_base, 0), table).of(choices, base)
    found = CostTable({measure: amount - sum_at_base[measure] for measure, amount in at_base.items()}, table)
    if isinstance(space, OwnSpace):
        _check(found, choices, space, recipe, data)
    return found


def _profiled(space: OwnSpace, choices: Choices, recipe: Recipe, data: Any) -> CostTable:
    """Returns the table that NNI's profilers give, of which costs may depend on several choices together.

    Raises:
        ValueError: if NNI cannot profile the space, or its count is not that of random networks.
    """
    options = task_of(recipe).network_options(recipe, 'retrain', data)
    network = space.model_copy(update={'settings': options['settings']})
    supernet = network.supernet(**task_of(recipe).facts(data))
    found = profiled_table(supernet, choices, (1, data.channels, *data.size))
    _check(found, choices, space, recipe, data)
    return found


def _reaching(choices: Choices, base: Mapping[str, Any], label: str, cost: Any) -> tuple[dict[str, Any], Costs]:
    """Returns a sample in which the edge with a label is chosen, and its cost."""
    choice, inputs = next((choice, inputs) for choice, inputs in choices.inputs.items() if label in inputs.edges)
    value = inputs.values[inputs.edges.index(label)]
    kept = [other for other in base[choice] if other != value][: (inputs.chosen or len(inputs.values)) - 1]
    sample = {**base, choice: sorted([*kept, value]), label: choices.operations[label][0]}
    return sample, cost(sample)


def inputs_apart(label: str, inputs: Inputs, base: Mapping[str, Any], cost: Any) -> dict[Any, Costs]:
    """Returns what each input of a choice adds, relative to the first inputs if their number is fixed, from whole networks.

    Args:
        label: label of the choice.
        inputs: the choice, whose inputs are not edges of a cell.
        base: sample of a network.
        cost: sample → cost of its network.

    Raises:
        ValueError: if the inputs change the cost of each other.
    """
    values = inputs.values
    if len(values) == 1:
        return {}
    if inputs.chosen is None:
        whole = cost({**base, label: list(values)})
        # All inputs but one are chosen, so that each input is seen with and without.
        added = {value: _difference(whole, cost({**base, label: [other for other in values if other != value]})) for value in values[1:]}
        added[values[0]] = _difference(cost({**base, label: list(values[:2])}), cost({**base, label: [values[1]]}))
        rest = Counter(_difference(whole, cost({**base, label: [values[0]]})))
        for value in values[1:]:
            rest.subtract(added[value])
        if any(rest.values()):
            raise ValueError(f'the inputs of {label!r} change the cost of each other')
        return added
    if inputs.chosen == len(values):
        return {}
    kept = list(values[: inputs.chosen])
    before = cost({**base, label: kept})
    added = {value: _difference(cost({**base, label: [*kept[1:], value]}), before) for value in values[inputs.chosen :]}
    last = values[inputs.chosen]
    for value in kept[1:]:
        others = sorted({*kept, last} - {value}, key=values.index)
        without = _difference(cost({**base, label: others}), before)
        added[value] = {measure: amount - without[measure] for measure, amount in added[last].items()}
    return added


def _difference(one: Costs, other: Costs) -> Costs:
    return {measure: one[measure] - other[measure] for measure in one}


def _check(table: CostTable, choices: Choices, space: Any, recipe: Recipe, data: Any) -> None:
    for seed in range(1, 1 + _CHECKED):
        genotype = space.random_cell(random.Random(seed))
        expected, found = table.of(choices, space.sample_of(genotype)), asdict(task_of(recipe).cost(recipe, 'retrain', genotype, data))
        for measure, amount in found.items():
            if expected[measure] != amount:
                raise ValueError(
                    f'the costs of the choices of {recipe.space.name} do not add up: a network has {amount:,} {measure.replace("_", "-")}, '
                    f'and the sum of its parts is {expected[measure]:,.0f}'
                )
