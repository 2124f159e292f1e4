from __future__ import annotations

import json
import random

import pytest

from nni_darts import PUBLISHED, Genotype, RnnGenotype
from nni_darts.genotypes import genotype_from_code, genotype_from_sample, genotype_from_text
from nni_darts.genotypes.recurrent import ACTIVATIONS

RECURRENT = [name for name, genotype in PUBLISHED.items() if isinstance(genotype, RnnGenotype)]


def test_published_cells() -> None:
    assert RECURRENT == ['ENAS-RNN', 'DARTS_V1-RNN', 'DARTS_V2-RNN']
    assert [PUBLISHED[name].nodes for name in RECURRENT] == [11, 8, 8]
    assert PUBLISHED['ENAS-RNN'].concat == (2, 5, 6, 9, 10, 11)


@pytest.mark.parametrize('name', RECURRENT)
def test_json_text_and_code_are_reversible_and_recognised(name: str) -> None:
    genotype = PUBLISHED[name]
    assert RnnGenotype.from_json(genotype.to_json()) == genotype == genotype_from_text(genotype.to_json())
    assert RnnGenotype.from_text(genotype.to_text()) == genotype == genotype_from_text(f'{name[:4]} = {genotype.to_text()}')
    assert RnnGenotype.from_code(genotype.code()) == genotype == genotype_from_code(genotype.code())


def test_reads_the_text_that_darts_prints() -> None:
    text = (
        "DARTS_V2 = Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5), "
        "('tanh', 3), ('relu', 5)], concat=range(1, 9))"
    )
    assert genotype_from_text(text) == PUBLISHED['DARTS_V2-RNN']
    assert PUBLISHED['DARTS_V2-RNN'].to_text() in text
    assert PUBLISHED['DARTS_V2-RNN'].code() == 'rnn.s0r1r1i1t2s5t3r5'
    assert PUBLISHED['ENAS-RNN'].code() == 'rnn.t0t1r1t3t3r3r4r7r8r8r8.2569ab'


@pytest.mark.parametrize('nodes', [1, 2, 8, 11, 35])
def test_random_cells(nodes: int) -> None:
    rng = random.Random(nodes)
    used: set[str] = set()
    for _ in range(100):
        genotype = RnnGenotype.random(rng, nodes=nodes)
        assert genotype_from_code(genotype.code()) == genotype
        assert '#' not in genotype.code() and '/' not in genotype.code()
        assert genotype_from_sample(genotype.to_sample()) == genotype
        assert sum(map(genotype.count, ACTIVATIONS[1:])) == nodes
        used |= {name for name, _ in genotype.recurrent}
    assert used == set(ACTIVATIONS[1:])


def test_sample_values_are_plain_and_cover_every_label() -> None:
    sample = PUBLISHED['DARTS_V2-RNN'].to_sample()
    assert len(sample) == 36 + 8
    assert json.loads(json.dumps(sample)) == sample
    with pytest.raises(ValueError, match='mean'):
        PUBLISHED['ENAS-RNN'].to_sample()
    for label in ('recurrent_op_1_0', 'recurrent_input_1'):
        with pytest.raises(ValueError, match=label):
            RnnGenotype.from_sample({key: value for key, value in sample.items() if key != label})


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('{"recurrent"', 'JSON'),
        ('{"recurrent": []}', 'concat'),
        ('{"concat": [1], "recurrent": []}', 'recurrent'),
        ('{"recurrent": [["tanh", 0]], "concat": [2]}', '2'),
        ('{"recurrent": [["tanh", 0]], "concat": [1, 1]}', '1'),
        ('{"recurrent": [["tanh", 0]], "concat": [true]}', 'True'),
        ('{"recurrent": [["tan", 0]], "concat": [1]}', "'tan'"),
        ('{"recurrent": [["none", 0]], "concat": [1]}', "'none'"),
        ('{"recurrent": [["tanh", 1]], "concat": [1]}', 'node 1'),
        ('{"recurrent": [["tanh", 0, 1]], "concat": [1]}', 'pair'),
        ('{"recurrent": [["tanh", 0]], "concat": [1], "cell": 1}', 'cell'),
        ('Genotype(recurrent=__import__("os"), concat=1)', 'names, numbers'),
        ('Genotype([("recurrent", 1)])', 'lacks'),
    ],
)
def test_broken_text_is_one_clear_error(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names) as error:
        genotype_from_text(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('code', ['rnn.', 'rnn.t', 'rnn.t1', 'rnn.x0', 'rnn.t0.', 'rnn.t0.2', 'rnn.t0é', 'rnn.T0'])
def test_broken_codes(code: str) -> None:
    with pytest.raises(ValueError, match='is not the code of a recurrent cell|must be a state from 0|concat must list'):
        genotype_from_code(code)


def test_a_pair_of_cells_is_no_recurrent_cell() -> None:
    assert isinstance(genotype_from_text(PUBLISHED['DARTS_V2'].to_text()), Genotype)
    with pytest.raises(ValueError, match='normal'):
        RnnGenotype.from_text(PUBLISHED['DARTS_V2'].to_text())
