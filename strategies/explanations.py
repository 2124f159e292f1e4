"""Explanations of the strategies: idea, papers, cost, when to use them. Imports no torch; settings are in the classes that take them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nni_darts.strategies.explanation import Explanation, Paper
from nni_darts.strategies.variants import VARIANTS

__all__ = ['EXPLANATIONS', 'SELECTION_EXPLANATIONS', 'Explanation', 'Paper']


DARTS = Paper('DARTS: Differentiable Architecture Search', '1806.09055')
DARTS_PT = Paper('Rethinking Architecture Selection in Differentiable NAS', '2108.04392')
SDARTS = Paper('Stabilizing Differentiable Architecture Search via Perturbation-based Regularization', '2002.05283')
IDARTS = Paper('iDARTS: Differentiable Architecture Search with Stochastic Implicit Gradients', '2106.10784')
GDAS = Paper('Searching for A Robust Neural Architecture in Four GPU Hours', '1910.04465')
SNAS = Paper('SNAS: Stochastic Neural Architecture Search', '1812.09926')
REINMAX = Paper('Bridging Discrete and Backpropagation: Straight-Through and Beyond', '2304.08612')
PROXYLESS = Paper('ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware', '1812.00332')
PC_DARTS = Paper('PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search', '1907.05737')
SGAS = Paper('SGAS: Sequential Greedy Architecture Search', '1912.00195')
SHAPLEY = Paper('Shapley-NAS: Discovering Operation Contribution for Neural Architecture Search', '2206.09811')
P_DARTS = Paper('Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and Evaluation', '1904.12760')
ENAS = Paper('Efficient Neural Architecture Search via Parameter Sharing', '1802.03268')
RANDOM_WS = Paper('Random Search and Reproducibility for Neural Architecture Search', '1902.07638')
EVOLUTION = Paper('Regularized Evolution for Image Classifier Architecture Search', '1802.01548')
PROXIES = Paper('Zero-Cost Proxies for Lightweight NAS', '2101.08134')
SYNFLOW = Paper('Pruning neural networks without any data by iteratively conserving synaptic flow', '2006.05467')
NASWOT = Paper('Neural Architecture Search without Training', '2006.04647')
SNIP = Paper('SNIP: Single-shot Network Pruning based on Connection Sensitivity', '1810.02340')
ZEN = Paper('Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition', '2102.01063')
ROBUST = Paper('Understanding and Robustifying Differentiable Architecture Search', '1909.09656')

_ONE_BY_ONE = 'The cost of its short trainings: every cell is trained separately, and several can be trained at the same time.'

EXPLANATIONS: Mapping[str, Explanation] = MappingProxyType(
    {
        'darts-1st': Explanation(
            'Every edge of a cell computes all candidate operations at once, mixed by a softmax over architecture parameters '
            'α. Steps of the weights on training batches alternate with steps of α on validation batches; α follows the plain '
            'gradient of the validation loss at the current weights. At the end each node keeps its two strongest edges with '
            'their strongest operations.',
            'Start with this one: it is fast, and it is the reference for all other strategies. Long searches tend to collapse '
            "to skip connections; watch their number on the search's page, or set early_stopping.",
            (DARTS, ROBUST),
            1.0,
        ),
        'darts-2nd': Explanation(
            'Like darts-1st, but α minimises the validation loss after one more step of the weight optimizer. The gradient '
            'goes through that step, including momentum and weight decay. The product with the Hessian is a finite difference, '
            'as published, or exact.',
            'The method with which the DARTS paper found DARTS_V2. It costs more than twice as much as first order; whether that '
            'pays off depends on the data, so compare both.',
            (DARTS,),
            2.5,
        ),
        'idarts': Explanation(
            'α minimises the validation loss at the weights that minimise the training loss. The derivative of these weights is implicit '
            'in the condition of a minimum; its inverse Hessian is replaced by a few terms of a Neumann series. α takes one step for '
            'several steps of the weights.',
            'Where the single virtual step of darts-2nd looks too short ahead. It assumes that the weights are close to a minimum, so it '
            'suits long searches.',
            (IDARTS,),
            1.125,
        ),
        'fixed-alpha': Explanation(
            'A supernet whose α stays uniform: only the weights are trained. The cell is derived by a selection that judges each '
            'operation by how much the supernet loses without it.',
            'Use it as fixed-alpha+pt, which is stable and cheap. By itself it is no search: by magnitude all operations tie, and '
            'the first one is kept.',
            (DARTS_PT,),
            0.5,
        ),
        'sdarts-rs': Explanation(
            'First-order DARTS whose weights are trained under a random perturbation of α that grows over time. The weights then '
            'suit a neighbourhood of architectures, so that the step from the mixture to a single cell loses less.',
            'Where darts-1st collapses, or where the cell found is much worse than the supernet; it costs no more.',
            (SDARTS,),
            1.0,
        ),
        'sdarts-adv': Explanation(
            'Like sdarts-rs, but the perturbation of α is the worst one within its radius, found by a few steps of projected '
            'gradient ascent before each step of the weights.',
            'Where sdarts-rs is not stable enough and there is time.',
            (SDARTS,),
            4.8,
        ),
        'gdas': Explanation(
            'Each step samples one operation on every edge by the Gumbel trick and computes only that one; the gradient '
            'of α flows through the sampling. A temperature falls during the search.',
            'Where memory or time for the mixture of all operations is scarce: a step computes one operation on each edge '
            'instead of eight.',
            (GDAS,),
            1.0,
            'A pass computes one operation on each edge, not all of them.',
        ),
        'snas': Explanation(
            'Every step mixes the operations of an edge by a random soft sample, which gets closer to a single operation as a temperature '
            'falls. α and the weights follow the same training loss, from the same pass. There is no second level.',
            'Where time is scarce: an epoch costs half as much as one of darts-1st. α sees no validation data, so it may favour '
            'operations that overfit.',
            (SNAS,),
            0.5,
        ),
        'reinmax': Explanation(
            'First-order DARTS in which each step samples one operation on every edge, and computes all of them for a gradient of α '
            'that is accurate to second order, where a straight-through gradient is accurate to first order.',
            'Where the weights should suit single operations instead of mixtures; it costs as much as darts-1st, not as little as gdas.',
            (REINMAX,),
            1.0,
        ),
        'proxyless': Explanation(
            'Each step of the weights samples one operation for every choice and trains only this path. Once in five steps, α follows the '
            'gradient of the gates that open and close the paths, for which all operations, or two of them, are computed. α stays fixed in '
            'the first quarter of the search.',
            'Where memory or time for mixtures is scarce, and for spaces whose choices follow each other in a chain; it needs more epochs '
            'than DARTS.',
            (PROXYLESS,),
            0.576,
            'A step of the weights computes one operation for each choice, not all of them.',
        ),
        'pc-darts': Explanation(
            'Only a part of the channels goes through the mixed operation, and the remaining channels bypass it. Edges have weights '
            'of their own, which offset the instability that the sampling of channels causes. α stays fixed at the start of the '
            'search.',
            'Where the supernet of darts-1st does not fit into memory, or for larger batches. It needs operations made of '
            'convolutions and batch norms.',
            (PC_DARTS,),
            0.85,
            'A pass computes operations on a part of the channels.',
        ),
        'sgas': Explanation(
            'Edges are decided one by one during the search, the most certain one first; from then on the supernet computes '
            'only the chosen operation on that edge. The last decisions are therefore made in a network that is nearly the final one.',
            'Where the step from the supernet to the cell loses much accuracy; searches get faster as edges are decided.',
            (SGAS,),
            1.0,
            'Passes get faster with every edge that is decided.',
        ),
        'darts-joint': Explanation(
            'An ablation of the DARTS paper: α and the weights are trained together by the same SGD, on training and validation '
            'data. There is no second level.',
            'To see what the two levels contribute; on small data sets it can be a strong baseline.',
            (DARTS,),
            1.0,
        ),
        'darts-coordinate': Explanation(
            'An ablation of the DARTS paper: α and the weights take turns on every batch of the training and validation data,'
            ' so that both see all of the data.',
            'To see what reserving validation data for α contributes.',
            (DARTS,),
            2.0,
        ),
        'enas': Explanation(
            'An LSTM controller draws one path through the supernet at a time; the paths share their weights. The '
            'controller learns by REINFORCE which paths validate well, and of many paths drawn at the end the one that '
            'validates best is kept.',
            'As the classic search with shared weights, for comparison; it needs little memory.',
            (ENAS,),
            0.67,
            'Ranking the paths at the end is extra.',
        ),
        'random-ws': Explanation(
            'The supernet is trained on paths drawn uniformly and learns no preference. Of many paths drawn at the '
            'end, the one that validates best with the shared weights is kept.',
            'The baseline for every method with shared weights: a method that is no better has learned nothing through its α.',
            (RANDOM_WS,),
            0.5,
            'Ranking the paths at the end is extra.',
        ),
        'p-darts': Explanation(
            'Three first-order searches in a row, each with a deeper network and fewer operations on each edge, so'
            ' that the last one is nearly as deep as the network to be trained. Dropout after skip connections and a limit '
            'on their number keep the search from collapsing.',
            'Where the cell found will go into a deep network, and memory allows a deep supernet. It works in the spaces darts '
            'and s1 to s5.',
            (P_DARTS,),
            1.2,
            'Its supernets are deeper.',
        ),
        'random': Explanation(
            'Draws search.random_samples cells, trains each of them separately for a short time, and keeps the one that validates '
            'best. There is no supernet.',
            'Always, as the baseline: nni-darts table compares every other strategy with it.',
            (DARTS, RANDOM_WS),
            None,
            _ONE_BY_ONE,
        ),
        'evolution': Explanation(
            'Random cells come first; each further cell is a child of the best cell in a sample of the youngest ones, with one '
            'operation or one input changed. Every cell is trained separately for a short time, no cell twice, and the best'
            ' one is kept.',
            'Where there is time for dozens of short trainings: it does not rely on a supernet, so nothing can collapse.',
            (EVOLUTION,),
            None,
            _ONE_BY_ONE,
        ),
        'proxy': Explanation(
            'Draws many random cells, scores the untrained network of each by a zero-cost proxy on one minibatch, and keeps the best. '
            'With cells above 1, that many of the best are trained briefly, and validation decides among them.',
            'As a baseline that takes minutes. The numbers of parameters and multiply-adds are proxies, too, often as good as the others.',
            (PROXIES, SYNFLOW, NASWOT, SNIP, ZEN),
            None,
            'One forward and backward pass of a minibatch for each cell drawn; synflow needs a single image, and sizes need none.',
        ),
        **{method.name: explanation for method, explanation in VARIANTS},
    }
)
"""Name of a preset → its explanation."""

_TUNING = 'Fine-tuning between decisions is extra: search.tuning_epochs epochs after each decision but the last.'

SELECTION_EXPLANATIONS: Mapping[str, Explanation] = MappingProxyType(
    {
        'pt': Explanation(
            'The cell is not derived from the magnitude of α. Edge by edge, each operation of the trained supernet is left out in '
            'turn, and the one whose absence costs the most validation accuracy is kept; then the supernet is fine-tuned for some '
            'epochs before the next edge. At the end the inputs are chosen in the same way.',
            "Where the magnitude of α misleads: a search's page shows skip connections taking over, or cells are worse than random cells.",
            (DARTS_PT,),
            None,
            f'{_TUNING} So is scoring: a forward pass over the validation data for each candidate.',
        ),
        'pt-mag': Explanation(
            'The same order of decisions with the same fine-tuning in between, but the operation with the largest α is kept.',
            'As an ablation of +pt: it shows whether the perturbation or the fine-tuning makes the difference.',
            (DARTS_PT,),
            None,
            _TUNING,
        ),
        'shapley': Explanation(
            'Operations are left out of the trained supernet one after the other, in random orders over all edges. An operation is worth '
            'what accuracy falls by when it goes, on average over the orders and less their standard deviation. All choices follow from '
            'these values at once, and the cell found is fine-tuned for one epoch.',
            'Where the magnitude of α misleads and the fine-tuning of +pt takes too long. Unlike +pt, it also counts what an operation is '
            'worth when others are gone.',
            (SHAPLEY,),
            None,
            'Scoring is extra: a forward pass over search.settings.batches validation batches for each operation in each order.',
        ),
    }
)
"""Suffix of a strategy's name → explanation of the selection."""
