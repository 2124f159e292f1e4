"""Latencies are sums of a table, which is measured once and then always the same; limits and penalties on them hold."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.published import PUBLISHED
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape, LatencyTable
from nni_darts.runs import latencies
from nni_darts.runs.cost_limits import heed_costs, program_of
from nni_darts.runs.cost_tables import cost_table
from nni_darts.runs.costs import configured_strategy, cost_of
from nni_darts.runs.latencies import latency_table, predicted_latency, with_own_table
from nni_darts.runs.strongest import Searched
from nni_darts.runs.tasks import task_of
from tests.helpers import running, tiny
from tests.helpers.latencies import random_table, write_table

SMALL = {'retrain.channels': 4, 'retrain.cells': 3, 'space.nodes': 1, 'space.operations': ['skip_connect', 'sep_conv_3x3']}


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def small(images: Path, **more: Any) -> Recipe:
    return Recipe.load('digits', {**tiny.overrides(images), **tiny.SMALL, 'space.channels': 4, **more})


def with_table(recipe: Recipe, table: LatencyTable, **limits: float) -> Recipe:
    changes: dict[str, Any] = {f'limits.{name}': value for name, value in limits.items()}
    return Recipe.from_dict({**recipe.changed(changes, source='').to_dict(), 'latency': {'table': table.model_dump(exclude_none=True)}})


def microseconds(cell: Any, recipe: Recipe, table: LatencyTable) -> int:
    """A slow, obvious sum: the real network is built, and each edge is looked up at the shape that it sees. In units of 1e-6 ms."""
    data = task_of(recipe).shape(recipe)
    network, total = task_of(recipe).network(recipe, 'retrain', cell, data).eval(), [round(table.fixed_ms * 10**6)]
    for index, of_cell in enumerate(network.cells):
        kind = 'reduce' if index in network.reductions else 'normal'
        for node, edges in zip(of_cell.nodes, cell.node_edges(kind)):
            # A node sorts its edges by their source.
            for module, (operation, source) in zip(node.edges, sorted(edges, key=lambda edge: edge[1])):
                stride = 2 if kind == 'reduce' and source < 2 else 1

                def look_up(_: Any, inputs: Any, output: Any, operation: str = operation, stride: int = stride) -> None:
                    found = table.operations_ms[operation][str(EdgeShape(*inputs[0].shape[1:], stride))]
                    total.append(round(found * 10**6))

                module.register_forward_hook(look_up)
    with torch.no_grad():
        network(torch.rand(1, data.channels, *data.size))
    return sum(total)


def test_the_prediction_is_the_sum_of_the_parts_of_the_real_network(images: Path) -> None:
    recipe = small(images)
    table = random_table(recipe)
    recipe, data = with_table(recipe, table), task_of(recipe).shape(recipe)
    costs, choices, seen = cost_table(recipe, data), recipe.space.choices(), set()
    for seed in range(20):
        cell = recipe.space.random_cell(random.Random(seed))
        expected = microseconds(cell, recipe, table) / 10**6
        assert predicted_latency(cell, recipe, data) == expected == costs.of(choices, recipe.space.sample_of(cell))['latency_ms']
        counted = cost_of(cell, recipe, data)
        assert counted['latency_ms'] == expected and counted == costs.of(choices, recipe.space.sample_of(cell))
        seen.add(expected)
    assert len(seen) > 15


def test_cells_of_nasbench201_have_a_prediction() -> None:
    sizes = {'space.name': 'nasbench201', 'space.cells': 3, 'space.nodes': 4, 'retrain.cells': 6, 'retrain.channels': 4}
    recipe = Recipe.load('digits', {**sizes, 'retrain.drop_path': 0, 'retrain.auxiliary_weight': 0})
    table, data = random_table(recipe), task_of(recipe).shape(recipe)
    recipe = with_table(recipe, table)
    cell = recipe.space.random_cell(random.Random(1))
    parts = [
        table.operations_ms[operation][f'{4 * scale}x{8 // scale}x{8 // scale}']
        for operation in cell.operations  # type: ignore[attr-defined]
        for scale in (1, 2, 4)
    ]
    expected = pytest.approx(table.fixed_ms + 2 * sum(parts), abs=1e-9)
    assert predicted_latency(cell, recipe, data) == expected
    assert cost_table(recipe, data).of(recipe.space.choices(), recipe.space.sample_of(cell))['latency_ms'] == expected


def test_networks_of_other_spaces_and_sizes_have_no_prediction(images: Path) -> None:
    recipe = small(images)
    recipe = with_table(recipe, random_table(recipe))
    cell, data = recipe.space.random_cell(random.Random(1)), task_of(recipe).shape(recipe)
    assert predicted_latency(cell, recipe, data) is not None and 'latency_ms' in cost_of(cell, recipe, data, 'select')
    larger = recipe.changed({'select.channels': 8}, source='')
    assert 'latency_ms' not in cost_of(cell, larger, data, 'select') and 'latency_ms' in cost_of(cell, larger, data)
    assert 'latency_ms' not in cost_of(PUBLISHED['DARTS_V2'], recipe, data)
    assert 'latency_ms' not in cost_of(cell, recipe.changed({'retrain.cells': 4}, source=''), data)
    assert 'latency_ms' not in cost_of(cell, small(images, **{'latency.measured': 'torch'}), data)


def test_a_table_without_an_operation_a_shape_or_for_another_network_is_refused_before_anything_starts(
    images: Path, tmp_path: Path
) -> None:
    recipe = small(images)
    table, limited = random_table(recipe), {'latency_ms': 5.0}
    without = {name: of for name, of in table.operations_ms.items() if name != 'dil_conv_5x5'}
    of_skip = table.operations_ms['skip_connect']
    shape = next(iter(of_skip))
    fewer = {**table.operations_ms, 'skip_connect': {key: value for key, value in of_skip.items() if key != shape}}
    for changed, message in (
        ({'operations_ms': without}, 'latency.table has no latency of dil_conv_5x5 for .*, which the space needs, and 4 more are missing'),
        ({'operations_ms': fewer}, rf'no latency of skip_connect for 4 channels of 8×8 pixels and stride 1 \({shape}\), .* needs; add it'),
        ({'network': {'cells': 20}}, 'latency.table: fixed_ms is that of a network with cells 20, and the network to retrain has 3'),
    ):
        wrong = with_table(recipe, table.model_copy(update=changed), **limited)
        for strategy in ('darts-1st', 'random'):
            with pytest.raises(InputError, match=message):
                running.search(wrong, strategy, 1, tmp_path / 'out')
        penalised = wrong.changed({'limits': None, 'search.penalty': {'latency_ms': {'target': 2, 'weight': 1}}}, source='')
        with pytest.raises(InputError, match=message):
            running.search(penalised, 'darts-1st', 1, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_an_impossible_limit_names_the_smallest_latency(images: Path) -> None:
    recipe = small(images)
    recipe = with_table(recipe, random_table(recipe), latency_ms=0.001)
    with pytest.raises(InputError, match=r'limits.latency_ms is 0.001, and any .* has at least \d\.\d+ ms of predicted latency; raise'):
        program_of(recipe, task_of(recipe).shape(recipe))


def tight(images: Path, portion: float) -> tuple[Recipe, float, LatencyTable]:
    """Returns a recipe with a limit a little above the smallest latency, the limit, and the table."""
    recipe = small(images)
    table = random_table(recipe)
    recipe = with_table(recipe, table, latency_ms=1000.0)
    program = program_of(recipe, task_of(recipe).shape(recipe))
    assert program is not None
    cells = [recipe.space.random_cell(random.Random(seed)) for seed in range(50)]
    most = max(program.table.of(program.choices, recipe.space.sample_of(cell))['latency_ms'] for cell in cells)
    least = program.cheapest('latency_ms')
    limit = round(least + portion * (most - least), 3)
    return recipe.changed({'limits.latency_ms': limit}, source=''), limit, table


@pytest.mark.parametrize('strategy', ['darts-1st', 'pc-darts', 'p-darts', 'enas', 'darts-pt', 'sgas', 'random', 'evolution'])
def test_every_strategy_finds_a_cell_within_the_limit(strategy: str, images: Path, tmp_path: Path) -> None:
    recipe, limit, table = tight(images, 0.1)
    cell, result = running.search(recipe, strategy, 1, tmp_path / 'out')
    assert result['latency_ms'] == microseconds(cell, recipe, table) / 10**6 <= limit


def test_a_search_by_the_recipe_digits_ends_below_its_limit(tmp_path: Path) -> None:
    path = write_table(tmp_path / 'table.yml', Recipe.load('digits'))
    recipe = Recipe.load('digits', {'latency.table': str(path), 'limits.latency_ms': 1000, 'search.epochs': 1, 'search.portion': 0.2})
    data = task_of(recipe).shape(recipe)
    program = program_of(recipe, data)
    assert program is not None
    limit = round(1.1 * program.cheapest('latency_ms'), 2)
    cell, result = running.search(recipe.changed({'limits.latency_ms': limit}, source=''), 'darts-1st', 1, tmp_path / 'out')
    assert result['latency_ms'] == microseconds(cell, recipe, LatencyTable.read(path)) / 10**6 <= limit
    assert json.loads((tmp_path / 'out' / 'result.json').read_text())['recipe']['latency']['table']['processor'] == 'a test'


def test_the_gradient_of_the_penalty_is_that_of_finite_differences_and_certain_alpha_costs_what_is_predicted(images: Path) -> None:
    recipe = small(images)
    table = random_table(recipe)
    recipe = with_table(recipe, table).changed({'search.penalty': {'latency_ms': {'target': 1.5, 'weight': 0.2}}}, source='')
    strategy, data = configured_strategy(recipe, 'darts-1st'), task_of(recipe).shape(recipe)
    heed_costs(strategy, recipe, data)
    strategy.mutate_model(task_of(recipe).space(recipe, data))
    architecture, zero = strategy.architecture, torch.zeros((), dtype=torch.float64)

    def penalty() -> torch.Tensor:
        return strategy.penalty.on_loss(zero, architecture, strategy.relaxation)

    parameters = list(architecture.double().parameters())
    for parameter in parameters:
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(penalty(), parameters)
    for parameter, gradient in zip(parameters, found):
        for index in range(parameter.numel()):
            values = []
            for step in (1e-5, -2e-5):
                parameter.data.view(-1)[index] += step
                values.append(penalty().item())
            parameter.data.view(-1)[index] += 1e-5
            assert gradient.view(-1)[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-3
    for seed in range(5):
        cell = recipe.space.random_cell(random.Random(seed))
        sample, chosen = recipe.space.sample_of(cell), {edge for edges in cell.edges().values() for edge, _ in edges}
        for label, decision in architecture.operations().items():
            architecture.alpha(label).data.fill_(-1000)
            architecture.alpha(label).data[decision.names.index(sample[label] if label in chosen else 'none')] = 1000
        assert penalty().item() == pytest.approx(0.2 * (microseconds(cell, recipe, table) / 1.5e6 - 1), abs=1e-12)


def test_a_table_is_measured_once_and_read_from_its_file_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    recipe = Recipe.load('digits', {**SMALL, 'latency.measured': 'torch'})
    data = task_of(recipe).shape(recipe)
    first = latency_table(recipe, data)
    (file,) = (tmp_path / 'nni-darts' / 'latency').glob('*.yml')
    assert LatencyTable.read(file) == first == latency_table(recipe, data)
    other = first.model_copy(update={'fixed_ms': 123.0})
    other.write(file)
    assert latency_table(recipe, data) == first  # this process keeps its numbers
    latencies._measured.clear()
    assert latency_table(recipe, data) == other
    kept = with_own_table(recipe, data)
    file.unlink()
    latencies._measured.clear()
    assert latency_table(kept, data) == other and not file.exists()
    # Another size, number of images or number of threads is another table.
    for changes in ({'retrain.cells': 4}, {'latency.batch': 2}):
        changed = latency_table(kept.changed(changes, source=''), data)
        assert changed.batch == changes.get('latency.batch', 1) and changed.network['cells'] == changes.get('retrain.cells', 3)  # type: ignore[index]
    files = list((tmp_path / 'nni-darts' / 'latency').glob('*.yml'))
    assert len(files) == 2
    for damaged in files:
        damaged.write_text('{')
    latencies._measured.clear()
    assert latency_table(kept.changed({'latency.batch': 2}, source=''), data).batch == 2


def test_a_resumed_search_keeps_the_table_that_it_measured(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    recipe = small(images, **{'limits.latency_ms': 1000, 'retrain.channels': 2, 'space.nodes': 1})
    _, result = running.search(recipe, 'darts-1st', 1, tmp_path / 'whole')
    run = json.loads((tmp_path / 'whole' / 'run.json').read_text())
    table = run['recipe']['latency']['table']
    # As if the run had been interrupted before its result, and measured elsewhere.
    run['recipe']['latency']['table'] = {**table, 'fixed_ms': table['fixed_ms'] + 100}
    (tmp_path / 'whole' / 'run.json').write_text(json.dumps(run))
    (tmp_path / 'whole' / 'result.json').unlink()
    latencies._measured.clear()
    _, again = running.search(recipe, 'darts-1st', 1, tmp_path / 'whole', resume=True)
    assert again['latency_ms'] == pytest.approx(result['latency_ms'] + 100, abs=1e-9)


def test_other_cells_are_read_from_a_search_with_the_latencies_of_another_device(images: Path, tmp_path: Path) -> None:
    recipe = small(images)
    running.search(recipe, 'darts-1st', 1, tmp_path / 'search')
    path = write_table(tmp_path / 'phone.yml', recipe, seed=2)
    searched = Searched(tmp_path / 'search', [f'latency.table={path}'])
    front = searched.front('latency_ms', {})
    assert len(front) > 2 and [cell.costs['latency_ms'] for cell in front] == sorted({cell.costs['latency_ms'] for cell in front})
    assert all(microseconds(cell.genotype, recipe, LatencyTable.read(path)) == round(cell.costs['latency_ms'] * 10**6) for cell in front)
    limit = front[1].costs['latency_ms']
    result = searched.write(searched.within({'latency_ms': limit}), {'latency_ms': limit}, tmp_path / 'quick')
    cell = Genotype.from_dict(json.loads((tmp_path / 'quick' / 'genotype.json').read_text()))
    assert result['latency_ms'] <= limit and cell == front[1].genotype
    kept = Recipe.of_folder(tmp_path / 'quick')
    assert kept is not None and kept.latency is not None and kept.latency.table == LatencyTable.read(path)
