"""Sentences that warn of results which look right and are not: searches in which α hardly moved, decisions that were ties. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ['MOST_ENTROPY', 'LEAST_REACH', 'after_search', 'before_search']

LEAST_REACH = 0.1
"""How far α must be able to move. Adam moves each entry by about its learning rate a step: at 0.1, the best of 8 operations gets at most
15 % where the worst gets 12 %."""

MOST_ENTROPY = 0.9995
"""Mean entropy of the operations' probabilities, 1 where all are equal, above which a cell is close to chance: entries of α that differ
by a deviation of 0.05 give 0.9994."""

REMEDY = (
    'raise search.epochs or search.architecture_learning_rate, or lower search.batch_size; the recipe photos-small is made for few images'
)


def before_search(strategy: str, steps: int, learning_rate: float) -> list[str]:
    """Warns of a search with too few steps of α.

    Args:
        strategy: name.
        steps: number of steps of α.
        learning_rate: of α's Adam.
    """
    if steps * learning_rate >= LEAST_REACH:
        return []
    return [
        f'{strategy}: {steps} steps of α at a learning rate of {learning_rate:g} move it by about {steps * learning_rate:.2g} at most, '
        f'so the cell will be close to chance (from {LEAST_REACH:g} on it is not): {REMEDY}'
    ]


def after_search(epochs: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warns of a finished search that has decided nothing.

    Args:
        epochs: of ``search.json``, with ``entropy`` where α has probabilities.
        decisions: of the same file; a search that decides one by one is judged by their margins, any other by its last entropy.
    """
    margins = [entry['margin'] for entry in decisions if entry['margin'] is not None]
    if margins:
        ties = sum(math.isclose(margin, 0, abs_tol=1e-9) for margin in margins)
        return (
            [
                f'{ties} of {len(margins)} decisions were ties: too few validation images tell the candidates apart; lower '
                'search.train_portion, use more images, or let the strategy decide by the loss (criterion: loss)'
            ]
            if 2 * ties > len(margins)
            else []
        )
    entropy = next((entry['entropy'] for entry in reversed(epochs) if 'entropy' in entry), 0.0)
    if entropy <= MOST_ENTROPY:
        return []
    return [f'the entropy of α is {entropy:.4f}, where 1 means that nothing was decided: the cell is close to chance; {REMEDY}']
