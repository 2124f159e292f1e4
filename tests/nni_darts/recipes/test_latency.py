"""The section ``latency`` of a recipe, and files of latencies: what is read, and one sentence for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape, LatencyTable

TABLE: dict[str, Any] = {'fixed_ms': 1, 'operations_ms': {'sep_conv_3x3': {'16x8x8': 0.25, '32x8x8/2': 0.5}}}


@pytest.mark.parametrize(('text', 'shape'), [('16x8x9', EdgeShape(16, 8, 9, 1)), ('32x28x28/2', EdgeShape(32, 28, 28, 2))])
def test_a_shape_is_channels_height_width_and_stride(text: str, shape: EdgeShape) -> None:
    assert EdgeShape.parse(text) == shape and str(shape) == text


@pytest.mark.parametrize('text', ['16x8', '16x8x8/3', '0x8x8', '16×8×8', '16x8x8/', 'a', 7, None])
def test_anything_else_is_no_shape(text: Any) -> None:
    with pytest.raises(ValueError, match='is no shape; write CHANNELSxHEIGHTxWIDTH'):
        EdgeShape.parse(text)


def test_a_table_is_read_as_it_was_written_with_six_decimals(tmp_path: Path) -> None:
    values = {**TABLE, 'fixed_ms': 1.23456789, 'spread_ms': TABLE['operations_ms'], 'date': '2030-01-02', 'network': {'cells': 5}}
    LatencyTable(**values).write(tmp_path / 'table.yml')
    table = LatencyTable.read(tmp_path / 'table.yml')
    assert table == LatencyTable(**values) and table.fixed_ms == 1.234568
    assert table.of('sep_conv_3x3', EdgeShape(32, 8, 8, 2)) == 0.5
    assert table.of('sep_conv_3x3', EdgeShape(32, 8, 8)) is None and table.of('none', EdgeShape(16, 8, 8)) is None


def test_a_table_written_by_hand_needs_two_keys_only(tmp_path: Path) -> None:
    (tmp_path / 'hand.yml').write_text('fixed_ms: 2\noperations_ms:\n  skip_connect: {16x8x8: 0, 32x8x8/2: "0.1"}\ndate: 2030-01-02\n')
    table = LatencyTable.read(tmp_path / 'hand.yml')
    assert (table.fixed_ms, table.operations_ms['skip_connect']['32x8x8/2'], table.date) == (2.0, 0.1, '2030-01-02')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'holds no table of latencies, which is a mapping with operations_ms and fixed_ms'),
        ('[1]', 'holds no table of latencies'),
        ('1: 2', 'holds no table of latencies'),
        ('a: [', 'not valid YAML at line 1'),
        ('fixed_ms: 1', "'operations_ms' is missing"),
        ('operations_ms: {}', "'fixed_ms' is missing"),
        ('fixed_ms: -1\noperations_ms: {}', 'fixed_ms: must be a number of milliseconds'),
        ('fixed_ms: soon\noperations_ms: {}', "fixed_ms: must be a number of milliseconds, such as 4.5; it is 'soon'"),
        ('fixed_ms: .nan\noperations_ms: {}', 'fixed_ms: must be a number of milliseconds'),
        ('fixed_ms: true\noperations_ms: {}', 'fixed_ms: must be a number of milliseconds'),
        ('fixed_ms: 1\noperations_ms: {a: {16-8-8: 1}}', "operations_ms.a: '16-8-8' is no shape"),
        ('fixed_ms: 1\noperations_ms: {a: {16x8x8: x}}', 'operations_ms.a.16x8x8: must be a number of milliseconds'),
        ('fixed_ms: 1\noperations_ms: {a: 3}', 'operations_ms.a = 3 is wrong: it must be a mapping'),
        ('fixed: 1\noperations_ms: {}\nfixed_ms: 1', "unknown key 'fixed' .did you mean 'fixed_ms'.*allowed: batch, threads"),
        ('fixed_ms: 1\noperations_ms: {}\nbatch: 0', 'batch = 0 is wrong'),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'wrong.yml'
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load('digits', {'latency.table': str(path)})
    assert 'wrong.yml' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'latency.table': 'nowhere.yml'}, 'latency.table: cannot read nowhere.yml: No such file'),
        ({'latency': {}}, 'latency: needs measured: torch, or table, the path of a file'),
        ({'latency.threads': 2}, 'latency: needs measured: torch, or table'),
        ({'latency.measured': 'tensorrt'}, "latency.measured = 'tensorrt' is wrong: it must be"),
        ({'latency.measured': 'torch', 'latency.threads': 0}, 'latency.threads = 0 is wrong'),
        ({'latency.measured': 'torch', 'latency.batches': 2}, "unknown key 'latency.batches'.*did you mean 'batch'"),
        ({'latency.measured': 'torch', 'latency.table': 'x.yml'}, 'latency: give either table, the path of a file, .* or measured'),
        ({'limits.latency_ms': 'few'}, "limits.latency_ms: must be a number of milliseconds, such as 4.5; it is 'few'"),
        ({'limits.latency_ms': 0}, 'limits.latency_ms: must be above 0 milliseconds'),
        ({'search.penalty': {'latency_ms': {'target': 0, 'weight': 1}}}, 'search.penalty.latency_ms.target: must be above 0 milliseconds'),
        (
            {'limits.latency_ms': 5, 'space': {'name': 'nni.nas.hub.pytorch:MobileNetV3Space'}},
            'latency_ms is predicted for networks of image cells, .* and not those of nni.nas.hub',
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load('digits', changes)


def test_text_has_no_latency() -> None:
    with pytest.raises(InputError, match='latency_ms is predicted for networks of image cells, .*, and not those for text'):
        Recipe.load('pydoc', {'limits.latency_ms': 5, 'data': {'name': 'text', 'path': 'nowhere'}})


def test_a_limit_or_a_penalty_alone_measures_with_torch_on_one_thread() -> None:
    for changes in ({'limits.latency_ms': 4.5}, {'search.penalty': {'latency_ms': {'target': '4.5', 'weight': 0.2}}}):
        latency = Recipe.load('digits', changes).latency
        assert latency is not None and (latency.measured, latency.threads, latency.batch, latency.table) == ('torch', 1, 1, None)
    assert Recipe.load('digits', {'limits.parameters': 5000}).latency is None
    assert Recipe.load('digits', {'limits.latency_ms': '4.5'}).limits.amounts() == {'latency_ms': 4.5}  # type: ignore[union-attr]


@pytest.mark.parametrize(('written', 'limit'), [(4.1, 4.1), ('4.1', 4.1), (0.3, 0.3), (7, 7.0), (' 1e-3 ', 0.001), (4.5678919, 4.567891)])
def test_a_limit_is_rounded_down_to_six_decimals(written: Any, limit: float) -> None:
    recipe = Recipe.load('digits', {'limits.latency_ms': written})
    assert recipe.limits is not None and recipe.limits.amounts() == {'latency_ms': limit}


def test_a_recipe_keeps_the_content_of_the_file(tmp_path: Path) -> None:
    LatencyTable(**TABLE).write(tmp_path / 'table.yml')
    recipe = Recipe.load('digits', {'latency.table': str(tmp_path / 'table.yml')})
    (tmp_path / 'table.yml').unlink()
    assert recipe.latency is not None and recipe.latency.table == LatencyTable(**TABLE)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.changed({'retrain.epochs': 3}, source='').latency == recipe.latency


def test_a_file_beside_the_recipe_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'recipes').mkdir()
    LatencyTable(**TABLE).write(tmp_path / 'recipes' / 'table.yml')
    recipe = (Path(__file__).parents[3] / 'nni_darts' / 'recipes' / 'digits.yml').read_text()
    (tmp_path / 'recipes' / 'quick.yml').write_text(recipe + '\nlatency: {table: table.yml}\n')
    monkeypatch.chdir(tmp_path)
    assert Recipe.load('recipes/quick.yml').latency == Recipe.load('digits', {'latency.table': 'recipes/table.yml'}).latency


def test_other_settings_of_the_measurement_drop_the_table_of_the_earlier_one(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {'latency': {'measured': 'torch', 'table': TABLE}})
    assert recipe.latency is not None and recipe.latency.table is not None
    changed = recipe.changed({'latency.threads': 2}, source='').latency
    assert changed is not None and (changed.threads, changed.table) == (2, None)
    LatencyTable(**{**TABLE, 'fixed_ms': 7}).write(tmp_path / 'other.yml')
    other = recipe.changed({'latency.table': str(tmp_path / 'other.yml')}, source='').latency
    assert other is not None and other.measured is None and other.table is not None and other.table.fixed_ms == 7


def test_a_resumed_run_takes_the_table_that_it_measured_by_the_same_settings() -> None:
    asked = Recipe.load('digits', {'latency.measured': 'torch'})
    kept = Recipe.load('digits', {'latency': {'measured': 'torch', 'table': TABLE}})
    assert asked.with_kept_table(kept.to_dict()) == kept
    for others in ({'latency.measured': 'torch', 'latency.threads': 2}, {'latency': {'table': TABLE}}, {}):
        recipe = Recipe.load('digits', others)
        assert recipe.with_kept_table(kept.to_dict()) is recipe
    assert asked.with_kept_table(Recipe.load('digits').to_dict()) is asked
