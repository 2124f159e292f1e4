"""Warnings about results that look right but are not: searches in which α hardly moved, decisions that were ties, and networks that
are no better than always predicting the largest class. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nni_darts.report.spread import accuracy_interval

__all__ = ['MOST_ENTROPY', 'LEAST_REACH', 'after_search', 'after_training', 'before_search', 'no_better_than_chance']

LEAST_REACH = 0.1
"""The least distance that α must be able to move. Adam moves each entry by about its learning rate in each step: if the entries move by
0.1, the best of 8 operations gets at most 15 % and the worst 12 %."""

MOST_ENTROPY = 0.9995
"""Mean entropy of the operations' probabilities, 1 if all are equal, above which a cell is close to chance. Entries of α with a standard
deviation of 0.05 give 0.9994."""

REMEDY = 'raise search.epochs or search.architecture_learning_rate, or lower search.batch_size; for few images, use the recipe photos-small'


def before_search(strategy: str, steps: int, learning_rate: float) -> list[str]:
    """Returns a warning if a search has too few steps of α.

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
    """Returns a warning if a finished search decided nothing.

    Args:
        epochs: the epochs in ``search.json``; they have ``entropy`` if α has probabilities.
        decisions: the decisions in the same file. A search that makes its decisions one by one is judged by their margins, any other
            search by its last entropy.
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
    """Returns a warning if there is no evidence that a network does better than always predicting the largest class; otherwise ''.

    The network does better if the lower end of the 95 % interval of its accuracy is above the fraction of images in that class.

    Args:
        accuracy: accuracy of the network, from 0 to 1.
        images: number of images on which it was measured.
        share: fraction of these images in the largest class, from 0 to 1.
        part: name of this part of the data, such as ``test``.
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
    """Returns a warning if an accuracy is no better than that of always predicting the largest class.

    Args:
        result: result of a training or a search: ``test_accuracy``, or else ``valid_accuracy``, with ``largest_class`` and ``images`` of
            the same part of the data. A result without these values, such as that of a language model, gives no warning.
    """
    part = next((part for part in ('test', 'valid') if f'{part}_accuracy' in result), None)
    if part is None or not result.get('images') or 'largest_class' not in result:
        return []
    name = {'test': 'test', 'valid': 'validation'}[part]
    said = no_better_than_chance(float(result[f'{part}_accuracy']), int(result['images']), float(result['largest_class']), name)
    return [said] if said else []
