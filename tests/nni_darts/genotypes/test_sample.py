"""Samples of any space as genotypes."""

from __future__ import annotations

import json

import pytest

from nni_darts.genotypes import genotype_from_code, genotype_from_dict, genotype_from_text
from nni_darts.genotypes.sample import SampleGenotype

SAMPLE = {'block0': 'ghost', "it's": 3, 'wide': True, 'rate': 0.5, 'nothing': None, 'inputs': [0, 2]}
GENOTYPE = SampleGenotype.of('ghosts:GhostNet', SAMPLE)


def test_every_form_is_reversible() -> None:
    assert GENOTYPE.to_sample() == SAMPLE and list(GENOTYPE.sample) == list(SAMPLE)
    assert genotype_from_text(GENOTYPE.to_text()) == genotype_from_text(str(GENOTYPE.to_dict())) == GENOTYPE
    assert genotype_from_dict(json.loads(GENOTYPE.to_json())) == genotype_from_code(GENOTYPE.code()) == GENOTYPE
    assert not set(GENOTYPE.code()) & set('#/ :"\'%+=') and hash(GENOTYPE) == hash(genotype_from_code(GENOTYPE.code()))


def test_values_that_json_cannot_hold_are_named_by_their_label() -> None:
    with pytest.raises(ValueError, match=r'block: .* is a type; candidates must be text, numbers, true, false or null'):
        SampleGenotype.of('ghosts:GhostNet', {'block': int})
    with pytest.raises(ValueError, match='rate: .* is a float'):
        SampleGenotype.of('ghosts:GhostNet', {'rate': float('nan')})


@pytest.mark.parametrize('code', ['own.', 'own.AAAA', 'own.ä', GENOTYPE.code()[:-4], GENOTYPE.code() + 'AAAA'])
def test_texts_that_are_no_code_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match='is not a packed genotype'):
        genotype_from_code(code)


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ({'sample': {'a': 1}}, "lacks 'space'"),
        ({'space': 'a:B'}, "lacks 'sample'"),
        ({'space': 'a:B', 'sample': {}}, 'a sample has the name of its space'),
        ({'space': 3, 'sample': {'a': 1}}, 'a sample has the name of its space'),
        ({'space': 'a:B', 'sample': {'a': 1}, 'more': 1}, 'more'),
    ],
)
def test_other_data_is_refused(value: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        genotype_from_dict(value)


def test_the_graph_has_a_box_for_each_choice_and_each_value() -> None:
    (graph,) = GENOTYPE.graphs({'block0': 0.7})
    assert [box.text for box in graph.boxes if box.role == 'state'] == list(SAMPLE)
    assert {box.text for box in graph.boxes} >= {'GhostNet', 'ghost', '3', 'True', '0.5', 'None', '0', '2'}
    assert [box.strength for box in graph.boxes if box.text == 'ghost'] == [0.7]
    assert GENOTYPE.strengths({'block0': {'ghost': 0.7, 'conv': 0.3}}) == {'block0': 0.7}
