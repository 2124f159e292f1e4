"""The methods of this package: most of them a combination of a relaxation, an architect and a selection. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nni_darts.strategies.catalogue import (
    AdversarialSettings,
    ControllerSettings,
    DepthSettings,
    EnasSettings,
    GreedySettings,
    GumbelSettings,
    PartialSettings,
    PerturbationSettings,
    PerturbedSettings,
    ProgressiveSettings,
    RankingSettings,
    ReinforceSettings,
    SearchedSettings,
    SecondOrderSettings,
)
from nni_darts.strategies.early_stopping import NOT_BEFORE_DECISIONS, NOT_WITHOUT_ALPHA
from nni_darts.strategies.method import Method, checked_call
from nni_darts.strategies.settings import Settings
from nni_darts.strategies.trained import Aging, RandomCells

__all__ = ['ALIASES', 'METHODS', 'SELECTIONS']

Parts = dict[str, Any]
"""Keyword arguments of a strategy's class."""


def _combined(
    name: str,
    summary: str,
    paper: str,
    parts: Callable[[Parts, Any], Parts],
    own: tuple[type[Settings], ...] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    **capabilities: Any,
) -> Method:
    """Returns a method that combines a relaxation, an architect and a selection.

    Args:
        name: name of the method.
        summary: description in one line.
        paper: reference to the paper.
        parts: (settings of the parts, selection that replaces the method's own, or None) → keyword arguments of the strategy's class.
        own: settings of the parts.
        defaults: default values that differ from the defaults of the strategy's class.
        capabilities: further attributes of the method.
    """

    def build(settings: Parts, selection: Any) -> Any:
        from nni_darts.strategies.differentiable import DifferentiableStrategy

        mine = {name: settings.pop(name) for part in own for name in part.model_fields if name in settings}
        return DifferentiableStrategy(**{**parts(mine, selection), **defaults, **settings})

    return Method(name, summary, paper, build, own, (SearchedSettings,), defaults, **capabilities)


def _built_by(module: str, made_by: str) -> Callable[[Parts, Any], Any]:
    """Returns a function that builds a strategy with a constructor: (settings, selection) → strategy."""

    def build(settings: Parts, selection: Any) -> Any:
        from importlib import import_module

        return checked_call(getattr(import_module(f'nni_darts.strategies.{module}'), made_by), settings)

    return build


def _darts_1st(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import FirstOrder

    return {'architect': FirstOrder(), 'selection': selection}


def _with_architect(architect: str) -> Callable[[Parts, Any], Parts]:
    """Returns a function that makes the parts of DARTS with another architect: (settings, selection) → parts."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import architects

        return {'architect': getattr(architects, architect)(), 'selection': selection}

    return parts


def _darts_2nd(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import SecondOrder

    return {'architect': SecondOrder(**own), 'selection': selection}


def _first_order_with(relaxation: str) -> Callable[[Parts, Any], Parts]:
    """Returns a function that makes the parts of first-order DARTS with another relaxation, which takes the method's settings."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import relaxations

        return {**_darts_1st({}, selection), 'relaxation': getattr(relaxations, relaxation)(**own)}

    return parts


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

    return _darts_1st({}, Greedy(operations=selection, **own))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _combined('darts-1st', 'DARTS, first order: α follows its validation gradient', 'Liu et al., ICLR 2019', _darts_1st),
            _combined(
                'darts-2nd',
                'DARTS, second order: α looks one weight step ahead',
                'Liu et al., ICLR 2019',
                _darts_2nd,
                (SecondOrderSettings,),
            ),
            _combined(
                'fixed-alpha',
                'uniform α that never moves: a baseline for selections other than magnitude, for which all operations tie',
                'Wang et al., ICLR 2021',
                _first_order_with('Fixed'),
                never_stops=NOT_WITHOUT_ALPHA,
            ),
            _combined(
                'sdarts-rs',
                'DARTS whose weights are trained under a random perturbation of α',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('RandomSoftmax'),
                (PerturbedSettings,),
            ),
            _combined(
                'sdarts-adv',
                'DARTS whose weights are trained under the worst perturbation of α',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('AdversarialSoftmax'),
                (AdversarialSettings,),
            ),
            _combined(
                'gdas',
                'one operation is sampled on each edge in every step',
                'Dong & Yang, CVPR 2019',
                _first_order_with('Gumbel'),
                (GumbelSettings,),
            ),
            _combined(
                'pc-darts',
                'only a quarter of the channels is searched, and edges have weights of their own',
                'Xu et al., ICLR 2020',
                _first_order_with('PartialChannels'),
                (PartialSettings,),
                {'warmup_epochs': 0.3},
            ),
            _combined(
                'sgas',
                'edges are decided one by one during the search',
                'Li et al., CVPR 2020',
                _sgas,
                (GreedySettings,),
                decides_early=True,
                never_stops=NOT_BEFORE_DECISIONS,
            ),
            _combined(
                'darts-joint',
                'an ablation: α and the weights by the same SGD on training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Joint'),
            ),
            _combined(
                'darts-coordinate',
                'an ablation: α and the weights in turn on every batch of training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Coordinate'),
            ),
            _combined(
                'enas',
                'an LSTM draws single paths and learns which ones validate well; the best of many drawn at the end is kept',
                'Pham et al., ICML 2018',
                _enas,
                (EnasSettings,),
                relaxed=False,
                never_stops=NOT_WITHOUT_ALPHA,
            ),
            _combined(
                'random-ws',
                'random search with weight sharing: uniform paths, and the best of many drawn at the end is kept',
                'Li & Talwalkar, UAI 2019',
                _random_ws,
                (RankingSettings,),
                relaxed=False,
                never_stops=NOT_WITHOUT_ALPHA,
            ),
            Method(
                'p-darts',
                'first-order DARTS in stages: deeper and deeper networks, fewer and fewer operations, few skip connections',
                'Chen et al., ICCV 2019',
                _built_by('progressive_depth', 'ProgressiveDepth'),
                common=(DepthSettings,),
                relaxed=False,
                in_stages=True,
            ),
            Method(
                'random',
                'random cells, trained one by one; the best one is kept',
                'Liu et al., ICLR 2019, section 3',
                _built_by('trained.in_process', 'RandomSearch'),
                relaxed=False,
                proposer=RandomCells,
                cells_key='random_samples',
            ),
            Method(
                'evolution',
                'cells trained one by one, each a child of the best cell in a sample of the youngest ones',
                'Real et al., AAAI 2019',
                _built_by('trained.in_process', 'Evolution'),
                common=(Aging,),
                relaxed=False,
                proposer=Aging,
            ),
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
    }
)
"""Suffix of a method's name → class of the selection, summary, paper, settings of the selection."""

ALIASES: Mapping[str, str] = MappingProxyType({'darts-pt': 'darts-1st+pt'})
"""Alias → full name of a method."""
