from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest
import torch

from nni_darts import Genotype
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.early_stopping import EarlyStopping
from nni_darts.strategies.selections.magnitude import normal_skips
from tests.helpers import running
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images


def written_out(eigenvalues: list[float]) -> tuple[int, int] | None:
    """Zela et al., section 4.3, with epochs from 1: (the epoch after which the search stops, the epoch of its architecture)."""
    value = dict(enumerate(eigenvalues, start=1))
    for last in range(1, len(eigenvalues) + 1):
        i = last - 2  # the window of five around i ends here
        if i - 5 - 2 >= 1:
            smoothed = {at: mean(value[at + offset] for offset in (-2, -1, 0, 1, 2)) for at in (i, i - 5)}
            if smoothed[i - 5] / smoothed[i] < 0.75:
                return last, i - 5
    return None


@pytest.mark.parametrize('seed', range(6))
def test_the_criterion_is_the_papers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    growth = (1 + 0.08 * seed) ** torch.arange(50).clamp(min=seed)
    eigenvalues = (0.2 * growth * (1 + 0.2 * torch.rand(50, generator=generator))).tolist()
    found = None
    for count in range(1, 51):
        earlier = EarlyStopping().stops_for(eigenvalues[:count])
        if earlier is not None:
            found = count, earlier + 1
            break
    assert found == written_out(eigenvalues)
    assert (found is None) == (seed == 0)


def test_the_first_epochs_and_values_that_mean_nothing() -> None:
    assert EarlyStopping().stops_for([1.0] * 5 + [9.0] * 4) is None  # two windows five epochs apart need ten
    assert EarlyStopping().stops_for([1.0] * 5 + [9.0] * 5) == 2
    assert EarlyStopping(ratio=0).stops_for([1.0] * 5 + [9.0] * 5) is None
    assert EarlyStopping().stops_for([-9.0] * 5 + [-1.0] * 5) is None
    assert EarlyStopping(window=1, lag=1).stops_for([1.0, 1.4]) == 0
    assert EarlyStopping(window=1, lag=1).stops_for([1.0, 1.3]) is None


SHARP = {'window': 1, 'lag': 1, 'ratio': 1.0}
"""Stops as soon as the eigenvalue has grown."""


def recipe(tmp_path: Path, name: str, stopping: object, epochs: int = 6) -> Recipe:
    settings = {'search.epochs': epochs, 'space.nodes': 1, 'search.settings': {name: {'early_stopping': stopping}}}
    if '+pt' in name:
        settings['search.settings'][name]['batches'] = 1
    return Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **settings})


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_search_stops_with_the_cell_of_an_earlier_epoch(tmp_path: Path) -> None:
    made = recipe(tmp_path, 'darts-1st', SHARP)
    genotype, result = running.search(made, 'darts-1st', 1, tmp_path / 'out')
    epochs = lines(tmp_path / 'out')
    eigenvalues = [epoch['eigenvalue'] for epoch in epochs]
    grown = next(index for index in range(1, 6) if eigenvalues[index] > eigenvalues[index - 1])
    assert len(epochs) == grown + 1 == result['stopped_after'] == epochs[-1]['of'] < 6
    assert result['cell_of_epoch'] == grown
    assert genotype == Genotype.from_json(json.dumps(epochs[grown - 1]['genotype']))
    # Killed between the last epoch and the result, and resumed: nothing more is trained.
    (tmp_path / 'out' / 'result.json').unlink()
    again, after = running.search(made, 'darts-1st', 1, tmp_path / 'out', resume=True)
    assert again == genotype and after['stopped_after'] == result['stopped_after'] and lines(tmp_path / 'out') == epochs


def test_a_resumed_search_stops_as_the_unbroken_one_and_perturbation_follows(tmp_path: Path) -> None:
    made = recipe(tmp_path, 'darts-pt', SHARP)
    (unbroken, result), (resumed, after) = broken_and_resumed(made, 'darts-pt', tmp_path)
    assert resumed == unbroken and after['stopped_after'] == result['stopped_after'] < 6
    epochs = lines(tmp_path / 'unbroken')
    # Two edges in each kind of cell, one round of decisions for each: one epoch between them, none after.
    assert len(epochs) == result['stopped_after'] + 1
    assert [epoch['decisions'] for epoch in epochs[-2:]] == [2, 4]
    assert ['eigenvalue' in epoch for epoch in epochs] == [True] * result['stopped_after'] + [False]
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_it_is_measured_once_alpha_moves_and_changes_nothing(tmp_path: Path) -> None:
    made = recipe(tmp_path, 'darts-1st', {'ratio': 0, 'iterations': 3}, 2)
    plain = recipe(tmp_path, 'darts-1st', False, 2)
    running.search(
        Recipe.from_dict({**made.to_dict(), 'search': {**made.to_dict()['search'], 'warmup_epochs': 1}}), 'darts-1st', 1, tmp_path / 'warm'
    )
    assert ['eigenvalue' in epoch for epoch in lines(tmp_path / 'warm')] == [False, True]
    running.search(made, 'darts-1st', 1, tmp_path / 'measured')
    running.search(plain, 'darts-1st', 1, tmp_path / 'plain')
    found = measured(tmp_path / 'measured')
    assert all(epoch.pop('eigenvalue') for epoch in found)
    assert found == measured(tmp_path / 'plain')


@pytest.mark.parametrize(
    ('value', 'names'),
    [
        ({'window': 4}, 'window must be odd'),
        ({'window': 0}, 'window must be a whole number'),
        ({'lag': 1.5}, 'lag must be a whole number'),
        ({'ratio': 1.5}, 'ratio must be a number from 0 to 1'),
        ({'iterations': 0}, 'iterations'),
        ({'factor': 2}, "no setting 'factor'; it has window, lag, ratio, iterations"),
        ('yes', 'true, false or a mapping'),
    ],
)
def test_wrong_settings(value: object, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        DifferentiableStrategy(early_stopping=value)


@pytest.mark.parametrize(
    ('name', 'names'), [('sgas', 'undecided'), ('fixed-alpha', 'α'), ('enas', 'α'), ('random-ws', 'α'), ('sgas+pt', 'undecided')]
)
def test_strategies_that_it_does_not_fit(name: str, names: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=names):
        create_strategy(name, early_stopping=True)
    with pytest.raises(InputError, match='search.settings of'):
        running.search(recipe(tmp_path, name, True), name, 1, tmp_path / 'out')


@pytest.mark.parametrize(
    ('normal', 'reduce', 'expected'),
    [(['skip_connect', 'none'], ['skip_connect', 'skip_connect'], 1), (['skip_connect', 'skip_connect'], ['none', 'none'], 2)],
)
def test_skip_connections_are_counted_in_the_normal_cell_on_kept_edges(normal: list[str], reduce: list[str], expected: int) -> None:
    strategy = create_strategy('darts-plus')
    strategy.mutate_model(DartsSpace(2, 3, 3, 1, nodes=2))
    sample = strategy.select()
    for kind, names in (('normal', normal), ('reduce', reduce)):
        sample |= dict(zip([f'{kind}_op_2_0', f'{kind}_op_2_1'], names))
        # The third edge of the next node, a skip connection, is not kept.
        sample |= {f'{kind}_op_3_0': 'max_pool_3x3', f'{kind}_op_3_1': 'max_pool_3x3', f'{kind}_op_3_2': 'skip_connect'}
        sample |= {f'{kind}_input_2': [0, 1], f'{kind}_input_3': [0, 1]}
    assert sample.keys() == strategy.architecture.decisions.keys()
    assert normal_skips(strategy.architecture, sample) == expected


def test_darts_plus_stops_with_the_cell_that_has_enough_skip_connections(tmp_path: Path) -> None:
    """With skip connections only, both edges of the cell have one after the first epoch; a third is never there."""
    for skips, stopped in ((2, 1), (3, None)):
        made = recipe(tmp_path, 'darts-plus', {'skips': skips}, 3)
        made = Recipe.from_dict({**made.to_dict(), 'space': {**made.to_dict()['space'], 'operations': ['skip_connect', 'none']}})
        _, result = running.search(made, 'darts-plus', 1, tmp_path / str(skips))
        assert result.get('stopped_after') == result.get('cell_of_epoch') == stopped
        assert len(lines(tmp_path / str(skips))) == (stopped or 3)


def test_a_search_that_stops_on_skip_connections_resumes_as_the_unbroken_one(tmp_path: Path) -> None:
    made = recipe(tmp_path, 'darts-plus', {'skips': 1}, 5)
    (unbroken, result), (resumed, after) = broken_and_resumed(made, 'darts-plus', tmp_path, 1)
    assert resumed == unbroken and after.get('stopped_after') == result.get('stopped_after')
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


@pytest.mark.parametrize(
    ('value', 'names'),
    [({'skips': 0}, 'early_stopping: skips must be a whole number from 1'), ({'skips': 2, 'lag': 3}, "no setting 'lag'; it has skips")],
)
def test_wrong_settings_of_skips(value: object, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        create_strategy('darts-plus', early_stopping=value)
