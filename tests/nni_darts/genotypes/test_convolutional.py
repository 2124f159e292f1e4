from __future__ import annotations

import json
import random

import pytest

from nni_darts import PUBLISHED, Genotype
from nni_darts.genotypes import genotype_from_code
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, strongest_edges

CONVOLUTIONAL = [name for name, genotype in PUBLISHED.items() if isinstance(genotype, Genotype)]
IN_SPACE = ('DARTS_V1', 'DARTS_V2')


@pytest.mark.parametrize('name', CONVOLUTIONAL)
def test_json_and_text_are_reversible(name: str) -> None:
    genotype = PUBLISHED[name]
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert Genotype.from_text(genotype.to_text()) == genotype


def test_reads_the_text_that_darts_prints() -> None:
    text = (
        "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
    )
    assert Genotype.from_text(text) == PUBLISHED['DARTS_V2']


@pytest.mark.parametrize('nodes', range(1, 7))
def test_code_is_reversible_and_has_four_characters_a_node(nodes: int) -> None:
    rng = random.Random(nodes)
    for _ in range(200):
        genotype = Genotype.random(rng, nodes=nodes)
        code = genotype.code()
        assert len(code) == 4 * nodes
        assert '#' not in code and '/' not in code
        assert Genotype.from_code(code) == genotype


def test_the_code_of_the_darts_cell_has_sixteen_characters() -> None:
    assert len(PUBLISHED['DARTS_V2'].code()) == 16


@pytest.mark.parametrize('name', ['NASNet-A', 'AmoebaNet-A'])
def test_cells_outside_the_space_have_a_long_code_and_no_sample(name: str) -> None:
    code = PUBLISHED[name].code()
    assert code.startswith('cell.') and genotype_from_code(code) == PUBLISHED[name] and not {'#', '/'} & set(code)
    with pytest.raises(ValueError, match='not a cell of the DARTS space'):
        PUBLISHED[name].to_sample()


@pytest.mark.parametrize('name', IN_SPACE)
def test_sample_is_reversible_up_to_the_order_in_a_node(name: str) -> None:
    genotype = PUBLISHED[name]
    back = Genotype.from_sample(genotype.to_sample())
    for kind in ('normal', 'reduce'):
        assert [set(edges) for edges in back.node_edges(kind)] == [set(edges) for edges in genotype.node_edges(kind)]
    assert Genotype.from_sample(back.to_sample()) == back


def test_sample_values_are_plain_and_cover_every_label() -> None:
    sample = PUBLISHED['DARTS_V2'].to_sample()
    assert len(sample) == 2 * (14 + 4)
    assert json.loads(json.dumps(sample)) == sample
    assert all('/' not in label for label in sample)


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('{', 'JSON'),
        ('[]', 'object'),
        ('{"normal": []}', 'lacks'),
        ('{"normal": [], "normal_concat": [2], "reduce": [], "reduce_concat": [2]}', 'normal'),
        ('{"normal": [["none", 0], ["none", 1]], "normal_concat": [2], "reduce": [["none", 0], ["none", 1]], "reduce_concat": [3]}', '3'),
        ('{"normal": [["no", 0], ["none", 1]], "normal_concat": [2], "reduce": [["none", 0], ["none", 1]], "reduce_concat": [2]}', "'no'"),
        ('{"normal": [["none", 2], ["none", 1]], "normal_concat": [2], "reduce": [["none", 0], ["none", 1]], "reduce_concat": [2]}', '2'),
        (
            '{"normal": [["none", true], ["none", 1]], "normal_concat": [2], "reduce": [["none", 0], ["none", 1]], "reduce_concat": [2]}',
            'True',
        ),
        ('{"gene": 1}', 'gene'),
        ('[' * 100_000, 'JSON'),
    ],
)
def test_broken_json_is_one_clear_error(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names) as error:
        Genotype.from_json(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'Genotype()',
        '__import__("os").system("true")',
        'Genotype(normal=__import__("os"), normal_concat=1, reduce=2, reduce_concat=3)',
        'Genotype(normal=[], normal_concat=range(10**9), reduce=[], reduce_concat=[])',
        'Other(normal=1)',
        'Genotype(1, 2, 3, 4)',
        'Genotype(**{})',
        'x = (lambda: 1)()',
        '(' * 5000,
        'a' * 30_000,
    ],
)
def test_text_is_parsed_and_never_run(text: str) -> None:
    with pytest.raises(ValueError, match='genotype|Genotype|normal') as error:
        Genotype.from_text(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('code', ['', 'a', '====', 'äöüß', 'AAAA' * 7, 'AAA=', 'A/+A', '____'])
def test_broken_codes(code: str) -> None:
    with pytest.raises(ValueError, match='is not the code of a genotype|must be a state from 0'):
        Genotype.from_code(code)


def test_random_cells_have_two_different_inputs_and_no_none() -> None:
    rng = random.Random(1)
    seen: set[str] = set()
    for _ in range(100):
        genotype = Genotype.random(rng)
        for kind in ('normal', 'reduce'):
            for edges in genotype.node_edges(kind):
                assert len({source for _, source in edges}) == 2
                seen |= {name for name, _ in edges}
    assert seen == set(DARTS_OPERATIONS) - {'none'}


def test_strength_is_a_probability_not_an_alpha() -> None:
    """Softmax first: a large α beside a larger one of ``none`` is weak. Ranking by α keeps the wrong edge."""
    import math

    alphas = [{'none': 9.0, 'conv': 3.0}, {'none': 0.0, 'conv': 1.0}, {'none': 0.0, 'conv': 2.0}]
    tables = []
    for alpha in alphas:
        total = sum(map(math.exp, alpha.values()))
        tables.append({name: math.exp(value) / total for name, value in alpha.items()})
    assert [index for _, index in strongest_edges(tables, 2)] == [2, 1]


def test_ties_keep_the_first_and_none_is_never_kept() -> None:
    table = {'none': 0.9, 'a': 0.05, 'b': 0.05}
    assert strongest_edges([table] * 3, 2) == [('a', 0), ('a', 1)]
    with pytest.raises(ValueError, match='none'):
        strongest_edges([{'none': 1.0}], 1)


def test_a_genotype_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        PUBLISHED['DARTS_V2'].normal = ()  # type: ignore[misc]
