"""Methods that change one part of first-order DARTS, each registered with its explanation. Imports no torch."""

from __future__ import annotations

from nni_darts.strategies.catalogue import AuxiliarySkipSettings, PartialSettings
from nni_darts.strategies.combining import combined, first_order, first_order_with
from nni_darts.strategies.explanation import Explanation, Paper
from nni_darts.strategies.method import Method

__all__ = ['VARIANTS']

_EXPONENTIATED = 'exponentiated gradients have a learning rate only'
_GAEA = Paper('Geometry-Aware Gradient Algorithms for Neural Architecture Search', '2004.07802')

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
    (
        combined(
            'gaea-darts',
            'DARTS whose α are probabilities that follow exponentiated gradients',
            'Li, Khodak et al., ICLR 2021',
            first_order_with('Simplex'),
            published={'learning_rate': 0.1},
            lacks={'betas': _EXPONENTIATED, 'weight_decay': _EXPONENTIATED},
            on_simplex=True,
        ),
        Explanation(
            'The mixture of DARTS without a softmax: α are the probabilities themselves. They start uniform and are multiplied by '
            'exp(−η · gradient) and normalised in each step, which favours sparse mixtures, so that less is lost when the cell is derived.',
            'Where α of darts-1st stays near uniform; it costs no more. Its learning rate of 0.1 is not that of other strategies.',
            (_GAEA,),
            1.0,
        ),
    ),
    (
        combined(
            'gaea-pc-darts',
            'PC-DARTS whose α and edge weights are probabilities that follow exponentiated gradients',
            'Li, Khodak et al., ICLR 2021',
            first_order_with('PartialSimplex'),
            (PartialSettings,),
            published={'learning_rate': 0.1},
            lacks={'betas': _EXPONENTIATED, 'weight_decay': _EXPONENTIATED},
            on_simplex=True,
        ),
        Explanation(
            'Like pc-darts, but the probabilities of operations and the weights of edges are trained directly, by exponentiated gradients, '
            'and from the first epoch on.',
            'As pc-darts, for larger batches or less memory. It needs operations made of convolutions and batch norms.',
            (_GAEA, Paper('PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search', '1907.05737')),
            1.0,
            'A pass computes operations on a part of the channels.',
        ),
    ),
    (
        combined(
            'darts-minus',
            'DARTS with auxiliary skip connections on all edges, which fade away during the search',
            'Chu et al., ICLR 2021',
            first_order_with('AuxiliarySkip'),
            (AuxiliarySkipSettings,),
        ),
        Explanation(
            'Every edge has one more skip connection beside its mixed operation, with a weight that falls from 1 to 0. It takes over the '
            'part of skip connections that makes training easier, so that α of the candidate skip_connect measures only its worth as an '
            'operation.',
            'Where darts-1st collapses to skip connections. It needs a candidate skip_connect, so it works on images only.',
            (Paper('DARTS-: Robustly Stepping out of Performance Collapse Without Indicators', '2009.01027'),),
            1.0,
        ),
    ),
)
"""Each method with its explanation."""
