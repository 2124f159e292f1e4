"""The methods by name: each a combination of a relaxation, an architect and a selection. Importing this imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nni_darts._nni import OneShotStrategy

__all__ = ['ALIASES', 'PRESETS', 'SELECTIONS', 'Preset', 'create_strategy', 'preset']


@dataclass(frozen=True)
class Preset:
    """One word for the YAML.

    Attributes:
        name: the word.
        summary: one line.
        paper: where the method comes from.
        supernet: whether it searches one supernet; otherwise it draws cells to be trained one by one.
        build: keyword settings → strategy.
    """

    name: str
    summary: str
    paper: str
    supernet: bool
    build: Callable[..., OneShotStrategy]


def _differentiable(**settings: Any) -> OneShotStrategy:
    from nni_darts.strategies.differentiable import DifferentiableStrategy

    return DifferentiableStrategy(**_known(settings, DifferentiableStrategy))


def _darts_1st(**settings: Any) -> OneShotStrategy:
    from nni_darts.strategies.architects import FirstOrder

    return _differentiable(architect=FirstOrder(), **settings)


def _darts_2nd(**settings: Any) -> OneShotStrategy:
    from nni_darts.strategies.architects import SecondOrder

    options = {key: settings.pop(key) for key in ('hessian', 'epsilon', 'clip_norm') if key in settings}
    return _differentiable(architect=SecondOrder(**options), **settings)


def _first_order_with(relaxation: str, *options: str, **defaults: Any) -> Callable[..., OneShotStrategy]:
    """First-order DARTS with another relaxation; ``options`` are settings that go to it, ``defaults`` the strategy's own."""

    def build(**settings: Any) -> OneShotStrategy:
        from nni_darts.strategies import relaxations
        from nni_darts.strategies.architects import FirstOrder

        chosen = {key: settings.pop(key) for key in options if key in settings}
        return _differentiable(architect=FirstOrder(), relaxation=getattr(relaxations, relaxation)(**chosen), **{**defaults, **settings})

    return build


def _sgas(**settings: Any) -> OneShotStrategy:
    from nni_darts.strategies.architects import FirstOrder
    from nni_darts.strategies.selections import Greedy

    names = ('greedy_criterion', 'decision_start', 'decision_every', 'batch_increase', 'history')
    chosen = {key: settings.pop(key) for key in names if key in settings}
    return _differentiable(architect=FirstOrder(), selection=Greedy(operations=settings.pop('selection', None), **chosen), **settings)


def _random(**settings: Any) -> OneShotStrategy:
    from nni_darts.strategies.random_search import RandomSearch

    return RandomSearch(**_known(settings, RandomSearch))


def _known(settings: Mapping[str, Any], strategy: type) -> dict[str, Any]:
    allowed = [name for name in inspect.signature(strategy.__init__).parameters if name != 'self']
    for name in settings:
        if name not in allowed:
            raise ValueError(f'this strategy has no setting {name!r}; it has {", ".join(allowed)}')
    return dict(settings)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Preset('darts-1st', 'DARTS, first order: α follows its validation gradient', 'Liu et al., ICLR 2019', True, _darts_1st),
            Preset('darts-2nd', 'DARTS, second order: α looks one weight step ahead', 'Liu et al., ICLR 2019', True, _darts_2nd),
            Preset(
                'fixed-alpha',
                'uniform α that never moves; magnitude then keeps the first of equals, so this is a baseline for other selections',
                'Wang et al., ICLR 2021',
                True,
                _first_order_with('Fixed'),
            ),
            Preset(
                'sdarts-rs',
                'DARTS whose weights learn under a randomly perturbed α',
                'Chen & Hsieh, ICML 2020',
                True,
                _first_order_with('RandomSoftmax', 'first', 'last'),
            ),
            Preset(
                'sdarts-adv',
                'DARTS whose weights learn under the perturbation of α that hurts most',
                'Chen & Hsieh, ICML 2020',
                True,
                _first_order_with('AdversarialSoftmax', 'first', 'last', 'steps'),
            ),
            Preset(
                'gdas',
                'one sampled operation on each edge at a time',
                'Dong & Yang, CVPR 2019',
                True,
                _first_order_with('Gumbel', 'first', 'last'),
            ),
            Preset(
                'pc-darts',
                'a quarter of the channels is searched, and edges have weights of their own',
                'Xu et al., ICLR 2020',
                True,
                _first_order_with('PartialChannels', 'portion', 'edge_weights', warmup_epochs=0.3),
            ),
            Preset('sgas', 'edges are decided one by one while the search goes on', 'Li et al., CVPR 2020', True, _sgas),
            Preset('random', 'random cells, trained one by one; the best stays', 'Liu et al., ICLR 2019, section 3', False, _random),
        )
    }
)
"""Name → preset."""


SELECTIONS: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = MappingProxyType(
    {
        'pt': (
            'Perturbation',
            'selected by what the supernet loses without a choice, with fine-tuning between decisions',
            'Wang et al., ICLR 2021',
            ('criterion', 'batch_norm', 'batches', 'renormalise'),
        ),
        'pt-mag': ('ProgressiveMagnitude', 'selected by magnitude, with the same fine-tuning', 'Wang et al., ICLR 2021', ()),
    }
)
"""Suffix of a supernet's name → class of the selection, summary, paper, settings of its own."""

_PROGRESSIVE = ('epochs_between', 'learning_rate_factor', 'step_schedule')
ALIASES: Mapping[str, str] = MappingProxyType({'darts-pt': 'darts-1st+pt'})
"""Other names in use."""


def _with_selection(base: Preset, suffix: str) -> Preset:
    chosen, summary, paper, own = SELECTIONS[suffix]

    def build(**settings: Any) -> OneShotStrategy:
        from nni_darts.strategies import selections

        options = {key: settings.pop(key) for key in (*_PROGRESSIVE, *own) if key in settings}
        return base.build(selection=getattr(selections, chosen)(**options), **settings)

    return Preset(f'{base.name}+{suffix}', f'{base.summary}; {summary}', f'{base.paper}; {paper}', True, build)


def preset(name: str) -> Preset:
    """Looks a preset up: a name of ``PRESETS``, or one of its supernets with ``+pt`` or ``+pt-mag``.

    Raises:
        ValueError: for any other name; the message lists the known ones.
    """
    base, _, suffix = str(ALIASES.get(name, name)).partition('+')
    if base in PRESETS and not suffix and '+' not in str(name):
        return PRESETS[base]
    if base in PRESETS and PRESETS[base].supernet and suffix in SELECTIONS:
        return _with_selection(PRESETS[base], suffix)
    raise ValueError(
        f'unknown strategy {name!r}; known: {", ".join(PRESETS)}; all but random also with +pt or +pt-mag; darts-pt is darts-1st+pt'
    )


def create_strategy(name: str, **settings: Any) -> OneShotStrategy:
    """Builds the strategy of that name; ``settings`` are keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or setting; the message lists the known ones.
    """
    return preset(name).build(**settings)
