"""The explanations of the strategies are complete, and their numbers are true."""

from __future__ import annotations

import re

import pytest

from nni_darts.strategies.explanations import EXPLANATIONS, SELECTION_EXPLANATIONS, Explanation
from nni_darts.strategies.methods import METHODS, SELECTIONS
from nni_darts.strategies.registry import create_strategy

EPOCHS = 50


def passes(name: str) -> float:
    strategy = create_strategy(name)
    return sum(part.passes(strategy.stage_epochs(EPOCHS)) for part in strategy.parts)


def test_every_strategy_is_explained() -> None:
    assert EXPLANATIONS.keys() == METHODS.keys() and SELECTION_EXPLANATIONS.keys() == SELECTIONS.keys()


@pytest.mark.parametrize('name', [name for name, entry in METHODS.items() if not entry.one_by_one])
def test_the_cost_is_that_which_a_budget_counts(name: str) -> None:
    assert EXPLANATIONS[name].cost == pytest.approx(passes(name) / passes('darts-1st'), rel=0.01)


@pytest.mark.parametrize('name', [name for name, entry in METHODS.items() if entry.one_by_one])
def test_strategies_without_a_supernet_have_no_relative_cost(name: str) -> None:
    assert EXPLANATIONS[name].cost is None and EXPLANATIONS[name].cost_note


@pytest.mark.parametrize(
    'explanation', [*EXPLANATIONS.values(), *SELECTION_EXPLANATIONS.values()], ids=[*EXPLANATIONS, *SELECTION_EXPLANATIONS]
)
def test_an_explanation_is_short_and_has_a_paper(explanation: Explanation) -> None:
    assert 1 <= len(re.findall(r'[^.]\.(?: |$)', explanation.idea)) <= 4
    for text in (explanation.idea, explanation.when, explanation.cost_note):
        assert '  ' not in text and (not text or text.endswith('.'))
    assert explanation.papers
    for paper in explanation.papers:
        assert re.fullmatch(r'\d{4}\.\d{5}', paper.arxiv) or (not paper.arxiv and paper.page)
        assert paper.url.startswith('https://') and paper.url.endswith(paper.arxiv or paper.page)
