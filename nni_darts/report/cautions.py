"""Warnings about results that look right but are not: searches in which α hardly moved, decisions that were ties, networks that
do no better than always predicting the largest class. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nni_darts.report.spread import accuracy_interval

__all__ = ['MOST_ENTROPY', 'LEAST_REACH', 'after_search', 'after_training', 'before_search', 'no_better_than_chance']

LEAST_REACH = 0.1
"""Distance that α must be able to move. Adam moves each entry by about its learning rate in each step: at 0.1, the best of 8 operations
gets at most 15 % where the worst gets 12 %."""

MOST_ENTROPY = 0.9995
"""Mean entropy of the operations' probabilities (1 if all are equal) above which a cell is close to chance: entries of α with a standard
deviation of 0.05 give 0.9994."""

REMEDY = 'raise search.epochs or search.architecture_learning_rate, or lower search.batch_size; the recipe photos-small suits few images'


def before_search(strategy: str, steps: int, learning_rate: float) -> list[str]:
    """Warns of a search with too few steps of α.

    Args:
        strategy: name of the strategy.
        steps: number of steps of α.
        learning_rate: learning rate of α's Adam.
    """
    if steps * learning_rate >= LEAST_REACH:
        return []
    return [
        f'{strategy}: {steps} steps of α at a learning rate of {learning_rate:g} move α by about {steps * learning_rate:.2g} at most; '
        f'below {LEAST_REACH:g} the cell is close to chance; {REMEDY}'
    ]


def after_search(epochs: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warns of a finished search that decided nothing.

    Args:
        epochs: epochs in ``search.json``, with ``entropy`` where α has probabilities.
        decisions: decisions in the same file; a search that decides one by one is judged by their margins, any other by its last entropy.
    """
    margins = [entry['margin'] for entry in decisions if entry['margin'] is not None]
    if margins:
        ties = sum(math.isclose(margin, 0, abs_tol=1e-9) for margin in margins)
        return (
            [
                f'{ties} of {len(margins)} decisions were ties: there are too few validation images to tell the candidates apart; lower '
                'search.train_portion, use more images, or let the strategy decide by the loss (criterion: loss)'
            ]
            if 2 * ties > len(margins)
            else []
        )
    entropy = next((entry['entropy'] for entry in reversed(epochs) if 'entropy' in entry), 0.0)
    if entropy <= MOST_ENTROPY:
        return []
    return [f'the entropy of α is {entropy:.4f}, where 1 means that nothing was decided: the cell is close to chance; {REMEDY}']


def no_better_than_chance(accuracy: float, images: int, share: float, part: str = '') -> str:
    """Returns a sentence if there is no evidence that a network does better than always predicting the largest class; otherwise ''.

    It does better if the lower end of the accuracy's 95 % interval is above the share of that class.

    Args:
        accuracy: of the network, from 0 to 1.
        images: number of images on which it was measured.
        share: of these, those of the largest class, from 0 to 1.
        part: name of that part of the data, such as ``test``.
    """
    low, high = accuracy_interval(accuracy, images)
    if low > share:
        return ''
    counted = f'{images:,} image{"" if images == 1 else "s"}'
    return (
        'there is no evidence that the network does better than always predicting the largest class '
        f'({100 * share:.1f} % of the images): its {f"{part} accuracy".lstrip()} is {100 * accuracy:.1f} % '
        f'(95 % interval on {counted}: {100 * low:.1f} to {100 * high:.1f} %); train for more epochs, or use more images'
    )


def after_training(result: Mapping[str, Any]) -> list[str]:
    """Warns of an accuracy that is no better than always predicting the largest class.

    Args:
        result: of a training, or a search: ``test_accuracy``, or else ``valid_accuracy``, with ``largest_class`` and ``images`` of the same
            part of the data. A result without them, such as that of a language model, is left alone.
    """
    part = next((part for part in ('test', 'valid') if f'{part}_accuracy' in result), None)
    if part is None or not result.get('images') or 'largest_class' not in result:
        return []
    name = {'test': 'test', 'valid': 'validation'}[part]
    said = no_better_than_chance(float(result[f'{part}_accuracy']), int(result['images']), float(result['largest_class']), name)
    return [said] if said else []
