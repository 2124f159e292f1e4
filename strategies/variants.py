"""Methods that change one part of first-order DARTS, each registered with its explanation. Imports no torch."""

from __future__ import annotations

from typing import Any

from nni_darts.strategies import families
from nni_darts.strategies.catalogue import (
    AuxiliarySkipSettings,
    DirichletSettings,
    DropPathSettings,
    PartialSettings,
    SecondOrderSettings,
    ThresholdSettings,
)
from nni_darts.strategies.combining import Parts, combined, first_order, first_order_with
from nni_darts.strategies.early_stopping import NOT_DIFFERENTIABLE_TWICE
from nni_darts.strategies.explanation import Explanation, Paper
from nni_darts.strategies.method import Method

__all__ = ['VARIANTS']

_EXPONENTIATED = 'exponentiated gradients have a learning rate only'
_GAEA = Paper('Geometry-Aware Gradient Algorithms for Neural Architecture Search', '2004.07802')


def _fair(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.relaxations import Sigmoid
    from nni_darts.strategies.selections import Threshold

    sparse = Threshold(**own)  # checks its setting, even if another selection takes its place
    return {**first_order({}, selection or sparse), 'relaxation': Sigmoid()}


def _robust(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import SecondOrder
    from nni_darts.strategies.relaxations import DropPath

    dropped = {name: own.pop(name) for name in DropPathSettings.model_fields if name in own}
    return {'relaxation': DropPath(**dropped), 'architect': SecondOrder(**own), 'selection': selection}


VARIANTS: tuple[tuple[Method, Explanation], ...] = (
    (
        combined(
            'beta-darts',
            'DARTS whose α is held back by its logsumexp, more and more',
            'Ye et al., CVPR 2022',
            first_order,
            defaults={'regularise': ('beta',)},
            family=families.ROBUST,
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
            family=families.GRADIENTS,
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
            family=families.PARTIAL,
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
            family=families.ROBUST,
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
    (
        combined(
            'drnas',
            'DARTS whose weights of operations are drawn from Dirichlet distributions',
            'Chen et al., ICLR 2021',
            first_order_with('DirichletWeights'),
            (DirichletSettings,),
            published={'learning_rate': 6e-4},
            never_stops=NOT_DIFFERENTIABLE_TWICE,
            family=families.SAMPLING,
        ),
        Explanation(
            'The weights of the operations on an edge are drawn from a Dirichlet distribution in every forward pass, and α are its '
            'parameters; the gradient goes through the draw. Drawing explores, and the weight decay of α keeps the distribution near the '
            'uniform one until the data speak.',
            'Where darts-1st commits too early; it costs no more. This is the plain form, without the progressive stages for large images.',
            (Paper('DrNAS: Dirichlet Neural Architecture Search', '2006.10355'),),
            1.0,
        ),
    ),
    (
        combined(
            'oles',
            'DARTS that freezes operations whose training and validation gradients disagree',
            'Jiang et al., NeurIPS 2023',
            first_order,
            defaults={'regularise': ('oles',)},
            family=families.ROBUST,
        ),
        Explanation(
            'First-order DARTS that compares, for each operation of each cell, the gradients of training and validation loss. Once they '
            'disagree for many steps, the operation has begun to overfit, and its weights stay as they are, so that operations with '
            'many weights do not lose against skip connections.',
            'Where darts-1st collapses in long searches. Short searches end before anything is frozen: a judgement takes 20 steps.',
            (
                Paper(
                    'Operation-Level Early Stopping for Robustifying Differentiable NAS', page='https://openreview.net/forum?id=yAOwkf4FyL'
                ),
                Paper('DARTS: Differentiable Architecture Search', '1806.09055'),
            ),
            1.5,
        ),
    ),
    (
        combined(
            'lambda-darts',
            'DARTS that aligns what its cells want of the shared α',
            'Movahedi et al., ICLR 2023',
            first_order,
            defaults={'regularise': ('lambda',)},
            family=families.ROBUST,
        ),
        Explanation(
            'All cells of a kind share α, but layers near the output dominate its gradient, which favours shallow cells. A term of the '
            'loss of the weights, with a weight that grows, makes the gradients that the cells send to α point in the same direction.',
            'Where darts-1st collapses and twice its time is available. It needs two or more normal cells.',
            (Paper('Λ-DARTS: Mitigating Performance Collapse by Harmonizing Operation Selection among Cells', '2210.07998'),),
            1.98,
        ),
    ),
    (
        combined(
            'r-darts-l2',
            'second-order DARTS with a strong weight decay of the supernet',
            'Zela et al., ICLR 2020',
            _robust,
            (SecondOrderSettings, DropPathSettings),
            defaults={'regularise': ('l2',)},
            family=families.ROBUST,
        ),
        Explanation(
            'Second-order DARTS whose supernet is trained with a much larger L2 penalty on the weights, and on request with drop-path on '
            'its edges. Both keep the minimum flat, so that less is lost when the cell is derived.',
            'Where darts-2nd collapses. The authors search with several penalties and keep the best cell: list it several times with '
            'other values of l2. Combine drop_path with data.augment and cutout.',
            (Paper('Understanding and Robustifying Differentiable Architecture Search', '1909.09656'),),
            2.5,
        ),
    ),
    (
        combined(
            'darts-plus',
            'DARTS that stops once the normal cell has two skip connections',
            'Liang et al., 2019',
            first_order,
            defaults={'early_stopping': {'skips': 2}},
            family=families.ROBUST,
        ),
        Explanation(
            'First-order DARTS that derives the cell after each epoch and stops as soon as the normal cell has two skip connections, '
            'before they take over.',
            'As a cheap guard in long searches with darts-1st. The rule fits cells with skip_connect among their candidates.',
            (Paper('DARTS+: Improved Differentiable Architecture Search with Early Stopping', '1909.06035'),),
            1.0,
            'A search that stops early costs less.',
        ),
    ),
    (
        combined(
            'fairdarts',
            'DARTS whose operations have independent weights, each pushed towards 0 or 1',
            'Chu et al., ECCV 2020',
            _fair,
            (ThresholdSettings,),
            defaults={'regularise': ('zero-one',)},
            published={'learning_rate': 3e-3, 'betas': (0.9, 0.999)},
            family=families.ROBUST,
        ),
        Explanation(
            'Each operation of an edge has a weight of its own, the sigmoid of its α, so that operations cooperate instead of competing. A '
            'zero-one term in the loss of α pushes every weight towards 0 or 1, so that little is lost when the cell is derived. Edges '
            'whose operation stays below a threshold are left out.',
            'Where skip connections win in darts-1st only because a softmax makes operations compete; it costs no more. Long searches '
            'only leave edges out: after a few epochs, every weight is near one half.',
            (Paper('Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search', '1911.12126'),),
            1.0,
        ),
    ),
)
"""Each method with its explanation."""
