"""The methods of this package: most of them a combination of a relaxation, an architect and a selection. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nni_darts.strategies import families
from nni_darts.strategies.catalogue import (
    AdversarialSettings,
    ConcreteSettings,
    ControllerSettings,
    DepthSettings,
    EnasSettings,
    GateSettings,
    GreedySettings,
    GumbelSettings,
    ImplicitSettings,
    PartialSettings,
    PerturbationSettings,
    PerturbedSettings,
    ProgressiveSettings,
    ProxylessSettings,
    RankingSettings,
    ReinforceSettings,
    ReinMaxSettings,
    SecondOrderSettings,
    ShapleySettings,
)
from nni_darts.strategies.combining import Parts, combined, first_order, first_order_with
from nni_darts.strategies.early_stopping import NOT_BEFORE_DECISIONS, NOT_WITHOUT_ALPHA
from nni_darts.strategies.method import Method, checked_call
from nni_darts.strategies.settings import Settings
from nni_darts.strategies.trained import Aging, ProxyCells, RandomCells
from nni_darts.strategies.trained.prior import PriorSettings
from nni_darts.strategies.variants import VARIANTS

__all__ = ['ALIASES', 'METHODS', 'SELECTIONS']


def _built_by(module: str, made_by: str) -> Callable[[Parts, Any], Any]:
    """Returns a function that builds a strategy with a constructor: (settings, selection) → strategy."""

    def build(settings: Parts, selection: Any) -> Any:
        from importlib import import_module

        return checked_call(getattr(import_module(f'nni_darts.strategies.{module}'), made_by), settings)

    return build


def _with_architect(architect: str) -> Callable[[Parts, Any], Parts]:
    """Returns a function that makes the parts of DARTS with another architect: (settings, selection) → parts."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import architects

        return {'architect': getattr(architects, architect)(), 'selection': selection}

    return parts


def _darts_2nd(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import SecondOrder

    return {'architect': SecondOrder(**own), 'selection': selection}


def _idarts(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import Implicit

    return {'architect': Implicit(**own), 'selection': selection}


def _snas(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import SingleLevel
    from nni_darts.strategies.relaxations import Concrete

    return {'relaxation': Concrete(**own), 'architect': SingleLevel(), 'selection': selection}


def _proxyless(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import FirstOrder
    from nni_darts.strategies.relaxations import BinaryGates

    architect = FirstOrder(weight_steps=own.get('weight_steps', ProxylessSettings().weight_steps))
    return {'relaxation': BinaryGates(**_take(own, GateSettings)), 'architect': architect, 'selection': selection}


def _take(own: Parts, part: type[Settings]) -> Parts:
    return {name: own[name] for name in part.model_fields if name in own}


def _random_ws(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.relaxations import SampledPaths
    from nni_darts.strategies.selections import Ranking

    return {'relaxation': SampledPaths(), 'selection': Ranking(**own)}


def _enas(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import Reinforce
    from nni_darts.strategies.relaxations import SampledPaths

    return {
        **_random_ws(_take(own, RankingSettings), None),
        'relaxation': SampledPaths(controller=True, **_take(own, ControllerSettings)),
        'architect': Reinforce(**_take(own, ReinforceSettings)),
    }


def _sgas(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.selections import Greedy

    return first_order({}, Greedy(operations=selection, **own))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            combined(
                'darts-1st',
                'DARTS, first order: α follows its validation gradient',
                'Liu et al., ICLR 2019',
                first_order,
                family=families.GRADIENTS,
            ),
            combined(
                'darts-2nd',
                'DARTS, second order: α looks one weight step ahead',
                'Liu et al., ICLR 2019',
                _darts_2nd,
                (SecondOrderSettings,),
                family=families.GRADIENTS,
            ),
            combined(
                'idarts',
                'DARTS with the implicit gradient: a Neumann series for the inverse Hessian of the weights',
                'Zhang et al., ICML 2021',
                _idarts,
                (ImplicitSettings,),
                family=families.GRADIENTS,
            ),
            combined(
                'fixed-alpha',
                'uniform α that never moves: a baseline for selections other than magnitude, for which all operations tie',
                'Wang et al., ICLR 2021',
                first_order_with('Fixed'),
                trains_alpha=False,
                never_stops=NOT_WITHOUT_ALPHA,
                family=families.GRADIENTS,
            ),
            combined(
                'sdarts-rs',
                'DARTS whose weights are trained under a random perturbation of α',
                'Chen & Hsieh, ICML 2020',
                first_order_with('RandomSoftmax'),
                (PerturbedSettings,),
                family=families.ROBUST,
            ),
            combined(
                'sdarts-adv',
                'DARTS whose weights are trained under the worst perturbation of α',
                'Chen & Hsieh, ICML 2020',
                first_order_with('AdversarialSoftmax'),
                (AdversarialSettings,),
                family=families.ROBUST,
            ),
            combined(
                'gdas',
                'one operation is sampled on each edge in every step',
                'Dong & Yang, CVPR 2019',
                first_order_with('Gumbel'),
                (GumbelSettings,),
                mixes_by_weights=False,
                family=families.SAMPLING,
            ),
            combined(
                'snas',
                'a soft sample of operations on each edge; α and the weights follow the same training loss',
                'Xie et al., ICLR 2019',
                _snas,
                (ConcreteSettings,),
                family=families.SAMPLING,
            ),
            combined(
                'reinmax',
                'one operation is sampled on each edge, with a gradient of second-order accuracy from all operations',
                'Liu et al., NeurIPS 2023',
                first_order_with('ReinMax'),
                (ReinMaxSettings,),
                family=families.SAMPLING,
            ),
            combined(
                'proxyless',
                'one path is computed in each step of the weights; the gradient of α is that of binary gates',
                'Cai et al., ICLR 2019',
                _proxyless,
                (ProxylessSettings,),
                {'learning_rate': 1e-3, 'betas': (0.0, 0.999), 'weight_decay': 0.0, 'warmup_epochs': 0.25},
                family=families.SAMPLING,
            ),
            combined(
                'pc-darts',
                'only a quarter of the channels is searched, and edges have weights of their own',
                'Xu et al., ICLR 2020',
                first_order_with('PartialChannels'),
                (PartialSettings,),
                {'warmup_epochs': 0.3},
                family=families.PARTIAL,
            ),
            combined(
                'sgas',
                'edges are decided one by one during the search',
                'Li et al., CVPR 2020',
                _sgas,
                (GreedySettings,),
                decides_early=True,
                never_stops=NOT_BEFORE_DECISIONS,
                family=families.STEPWISE,
            ),
            combined(
                'darts-joint',
                'an ablation: α and the weights by the same SGD on training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Joint'),
                family=families.GRADIENTS,
            ),
            combined(
                'darts-coordinate',
                'an ablation: α and the weights in turn on every batch of training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Coordinate'),
                family=families.GRADIENTS,
            ),
            combined(
                'enas',
                'an LSTM draws single paths and learns which ones validate well; the best of many drawn at the end is kept',
                'Pham et al., ICML 2018',
                _enas,
                (EnasSettings,),
                relaxed=False,
                trains_alpha=False,
                mixes_by_weights=False,
                never_stops=NOT_WITHOUT_ALPHA,
                family=families.PATHS,
            ),
            combined(
                'random-ws',
                'random search with weight sharing: uniform paths, and the best of many drawn at the end is kept',
                'Li & Talwalkar, UAI 2019',
                _random_ws,
                (RankingSettings,),
                relaxed=False,
                trains_alpha=False,
                mixes_by_weights=False,
                never_stops=NOT_WITHOUT_ALPHA,
                family=families.PATHS,
            ),
            Method(
                'p-darts',
                'first-order DARTS in stages: deeper and deeper networks, fewer and fewer operations, few skip connections',
                'Chen et al., ICCV 2019',
                _built_by('progressive_depth', 'ProgressiveDepth'),
                common=(DepthSettings,),
                relaxed=False,
                in_stages=True,
                family=families.STEPWISE,
            ),
            Method(
                'random',
                'random cells, trained one by one; the best one is kept',
                'Liu et al., ICLR 2019, section 3',
                _built_by('trained.in_process', 'RandomSearch'),
                common=(PriorSettings,),
                relaxed=False,
                proposer=RandomCells,
                cells_key='random_samples',
                family=families.TRAINED,
            ),
            Method(
                'evolution',
                'cells trained one by one, each a child of the best cell in a sample of the youngest ones',
                'Real et al., AAAI 2019',
                _built_by('trained.in_process', 'Evolution'),
                common=(Aging,),
                relaxed=False,
                proposer=Aging,
                family=families.TRAINED,
            ),
            Method(
                'proxy',
                'the best of many untrained networks by a zero-cost proxy, such as synflow',
                'Abdelfattah et al., ICLR 2021',
                _built_by('trained.in_process', 'ProxySearch'),
                common=(ProxyCells,),
                relaxed=False,
                proposer=ProxyCells,
                fixed_cells=True,
                family=families.TRAINED,
            ),
            *(method for method, _ in VARIANTS),
        )
    }
)
"""Name → method."""


SELECTIONS: Mapping[str, tuple[str, str, str, type[Settings]]] = MappingProxyType(
    {
        'pt': (
            'Perturbation',
            'selected by how much the supernet loses without a choice, with fine-tuning between decisions',
            'Wang et al., ICLR 2021',
            PerturbationSettings,
        ),
        'pt-mag': (
            'ProgressiveMagnitude',
            'selected by magnitude, with the same fine-tuning',
            'Wang et al., ICLR 2021',
            ProgressiveSettings,
        ),
        'shapley': (
            'Shapley',
            'selected by the Shapley values of the operations in the supernet',
            'Xiao et al., CVPR 2022',
            ShapleySettings,
        ),
    }
)
"""Suffix of a method's name → class of the selection, summary, paper, settings of the selection."""

ALIASES: Mapping[str, str] = MappingProxyType({'darts-pt': 'darts-1st+pt'})
"""Alias → full name of a method."""
