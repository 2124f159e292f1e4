"""Methods that change one part of first-order DARTS, each registered with its explanation. Imports no torch."""

from __future__ import annotations

from nni_darts.strategies.combining import combined, first_order
from nni_darts.strategies.explanation import Explanation, Paper
from nni_darts.strategies.method import Method

__all__ = ['VARIANTS']

VARIANTS: tuple[tuple[Method, Explanation], ...] = (
    (
        combined(
            'beta-darts',
            'DARTS whose α is held back by its logsumexp, more and more',
            'Ye et al., CVPR 2022',
            first_order,
            defaults={'regularise': ('beta',)},
        ),
        Explanation(
            'First-order DARTS with one more term in the loss of α: the mean of logsumexp(α) over all choices, with a weight that grows '
            'in proportion to the epochs. It takes most from the largest α, so that no operation runs away from the others early.',
            'Where darts-1st collapses to skip connections; it costs nothing. Published for NAS-Bench-201 with 100 epochs.',
            (Paper('β-DARTS: Beta-Decay Regularization for Differentiable Architecture Search', '2203.01665'),),
            1.0,
        ),
    ),
)
"""Each method with its explanation."""
