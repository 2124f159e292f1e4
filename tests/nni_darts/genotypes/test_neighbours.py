from __future__ import annotations

import random
from typing import Any

import pytest

from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.kinds import CellSpace, NasBench201Space, RecurrentSpace
from nni_darts.genotypes.neighbours import NASBENCH201_CHOICES, Choices, Inputs, darts_choices, recurrent_choices

SPACES = {
    'darts': CellSpace(channels=4, cells=3),
    'two nodes': CellSpace(channels=4, cells=3, nodes=2, operations=('none', 'skip_connect', 'sep_conv_3x3')),
    's1': CellSpace(name='s1', channels=4, cells=3),
    's4': CellSpace(name='s4', channels=4, cells=3),
    'nasbench201': NasBench201Space(name='nasbench201', channels=4, cells=3),
    'recurrent': RecurrentSpace(hidden=4, nodes=4),
}


def edges(genotype: AnyGenotype) -> dict[Any, str]:
    """(kind, node, input) → operation, written down from the genotype itself."""
    if hasattr(genotype, 'operations'):
        return dict(enumerate(genotype.operations))
    if hasattr(genotype, 'recurrent'):
        return {(node, source): name for node, (name, source) in enumerate(genotype.recurrent)}
    return {
        (kind, node, source): name
        for kind in ('normal', 'reduce')
        for node, pair in enumerate(genotype.node_edges(kind))
        for name, source in pair
    }


@pytest.mark.parametrize('name', SPACES)
def test_a_mutation_changes_one_operation_or_one_input(name: str) -> None:
    space, rng = SPACES[name], random.Random(0)
    operations = inputs = 0
    for _ in range(300):
        cell = space.random_cell(rng)
        mutant = space.mutated_cell(cell, rng)
        before, after = edges(cell), edges(mutant)
        if before.keys() == after.keys():
            assert sum(before[edge] != after[edge] for edge in before) == 1
            operations += 1
        else:
            (gone,), (new,) = before.keys() - after.keys(), after.keys() - before.keys()
            assert gone[:-1] == new[:-1]  # the same node of the same cell
            if name != 's1':  # there every edge has operations of its own
                assert before[gone] == after[new]
            assert all(before[edge] == after[edge] for edge in before.keys() & after.keys())
            inputs += 1
        assert name == 'nasbench201' or 'none' not in after.values()
        if isinstance(space, CellSpace) and space.name in ('s1', 's4'):
            mutant.to_sample(space.candidates)  # raises if an operation is no candidate of its edge
    if name == 'nasbench201':
        assert inputs == 0
    else:
        assert 110 < operations < 190


def test_every_edge_and_operation_comes_up() -> None:
    space, rng = SPACES['darts'], random.Random(1)
    cell = space.random_cell(rng)
    seen = {difference for _ in range(4000) for difference in edges(space.mutated_cell(cell, rng)).items() - edges(cell).items()}
    # Eight edges a cell with six other operations; in nodes 1, 2, 3 two inputs with 1, 2, 3 others.
    assert len(seen) == 2 * (8 * 6 + sum(_new_edges(cell, kind) for kind in ('normal', 'reduce')) / 2)


def _new_edges(cell: AnyGenotype, kind: str) -> int:
    """How many different (node, input, operation) can take the place of an edge of that kind."""
    return sum(
        len({(source, name) for source in range(2 + node) for name, _ in pair if source not in {s for _, s in pair}})
        for node, pair in enumerate(cell.node_edges(kind))
    )


def test_the_model_of_a_sample_leaves_out_what_is_not_built() -> None:
    choices = darts_choices(SPACES['two nodes'].candidates)
    rng = random.Random(0)
    cell = SPACES['two nodes'].random_cell(rng)
    sample = cell.to_sample(SPACES['two nodes'].candidates)
    model = choices.model(sample)
    assert len(model) == 2 * (2 + 4) and len(sample) == 2 * (2 + 5)
    idle = next(iter(sample.keys() - model.keys()))
    assert choices.model({**sample, idle: 'skip_connect'}) == choices.model({**sample, idle: 'sep_conv_3x3'}) == model


def test_any_number_of_inputs_gains_or_loses_one() -> None:
    choices = Choices({}, {'x': Inputs((0, 1, 2), None)})
    rng = random.Random(0)
    sizes = {len(choices.mutated({'x': [0, 1]}, rng)['x']) for _ in range(50)}
    assert sizes == {1, 3}
    assert {len(choices.mutated({'x': [2]}, rng)['x']) for _ in range(50)} == {2}


def test_spaces_without_a_choice() -> None:
    with pytest.raises(ValueError, match='single model'):
        Choices({'a': ('relu',)}, {'x': Inputs((0, 1), 2)}).mutated({'a': 'relu', 'x': [0, 1]}, random.Random(0))


def test_labels_are_those_of_the_spaces() -> None:
    for name, choices in (
        ('nasbench201', NASBENCH201_CHOICES),
        ('recurrent', recurrent_choices(4)),
        ('s1', darts_choices(SPACES['s1'].candidates)),
    ):
        space = SPACES[name]
        sample = space.random_cell(random.Random(0)).to_sample(*([space.candidates] if name == 's1' else []))
        assert set(sample) == {*choices.operations, *choices.inputs}
