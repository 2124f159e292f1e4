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


Parts = dict[str, Any]
"""Keyword arguments of a strategy's class."""


@dataclass(frozen=True)
class Preset:
    """One word for the YAML.

    Attributes:
        name: the word.
        summary: one line.
        paper: where the method comes from.
        parts: (settings of its own, a selection that is to take the place of its own or None) → what the strategy is made of.
        own: names of the settings of its own.
        built_by: the class of ``nni_darts.strategies`` that it configures.
        relaxed: whether its supernet computes all candidates at once, so that it can be read out in other ways.
    """

    name: str
    summary: str
    paper: str
    parts: Callable[[Parts, Any], Parts]
    own: tuple[str, ...] = ()
    built_by: str = 'DifferentiableStrategy'
    relaxed: bool = True

    @property
    def supernet(self) -> bool:
        """Whether it searches in supernets; otherwise cells are trained one by one."""
        return self.built_by in ('DifferentiableStrategy', 'ProgressiveDepth')

    def settings(self) -> list[str]:
        """Names of all settings: of its own, and arguments of its class."""
        return [*self.own, *inspect.signature(self._class()).parameters]

    def create(self, /, **settings: Any) -> OneShotStrategy:
        """The strategy with these settings. Raises ValueError for one that it does not have, or a value that it cannot have."""
        allowed = self.settings()
        for name in settings:
            if name not in allowed:
                plain = [known for known in allowed if known not in _OBJECTS]
                raise ValueError(f'this strategy has no setting {name!r}; it has {", ".join(plain)}')
        own = {name: settings.pop(name) for name in self.own if name in settings}
        return self._class()(**{**self.parts(own, None), **settings})

    def _class(self) -> type[OneShotStrategy]:
        from nni_darts import strategies

        return getattr(strategies, self.built_by)


_OBJECTS = ('relaxation', 'architect', 'selection', 'mutation_hooks')
"""Settings for Python code only: a recipe cannot hold their values, so no message proposes them."""


def _darts_1st(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import FirstOrder

    return {'architect': FirstOrder(), 'selection': selection}


def _with_architect(architect: str) -> Callable[[Parts, Any], Parts]:
    """The softmax with another architect."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import architects

        return {'architect': getattr(architects, architect)(), 'selection': selection}

    return parts


def _darts_2nd(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import SecondOrder

    return {'architect': SecondOrder(**own), 'selection': selection}


def _first_order_with(relaxation: str, **defaults: Any) -> Callable[[Parts, Any], Parts]:
    """First-order DARTS with another relaxation, which takes the preset's own settings; ``defaults`` are the strategy's."""

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import relaxations

        return {**_darts_1st({}, selection), 'relaxation': getattr(relaxations, relaxation)(**own), **defaults}

    return parts


_RANKING = ('samples', 'finalists', 'batches', 'criterion', 'batch_norm')
_CONTROLLER = ('hidden', 'tanh_constant')
_REINFORCE = ('paths_per_step', 'baseline_decay', 'entropy_weight')


def _take(own: Parts, names: tuple[str, ...]) -> Parts:
    return {name: own[name] for name in names if name in own}


def _random_ws(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.relaxations import SampledPaths
    from nni_darts.strategies.selections import Ranking

    return {'relaxation': SampledPaths(), 'selection': Ranking(**own)}


def _enas(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.architects import Reinforce
    from nni_darts.strategies.relaxations import SampledPaths

    return {
        **_random_ws(_take(own, _RANKING), None),
        'relaxation': SampledPaths(controller=True, **_take(own, _CONTROLLER)),
        'architect': Reinforce(**_take(own, (*_REINFORCE, 'criterion'))),
    }


def _sgas(own: Parts, selection: Any) -> Parts:
    from nni_darts.strategies.selections import Greedy

    return _darts_1st({}, Greedy(operations=selection, **own))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Preset('darts-1st', 'DARTS, first order: α follows its validation gradient', 'Liu et al., ICLR 2019', _darts_1st),
            Preset(
                'darts-2nd',
                'DARTS, second order: α looks one weight step ahead',
                'Liu et al., ICLR 2019',
                _darts_2nd,
                ('hessian', 'epsilon', 'clip_norm'),
            ),
            Preset(
                'fixed-alpha',
                'uniform α that never moves; magnitude then keeps the first of equals, so this is a baseline for other selections',
                'Wang et al., ICLR 2021',
                _first_order_with('Fixed'),
            ),
            Preset(
                'sdarts-rs',
                'DARTS whose weights learn under a randomly perturbed α',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('RandomSoftmax'),
                ('first', 'last'),
            ),
            Preset(
                'sdarts-adv',
                'DARTS whose weights learn under the perturbation of α that hurts most',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('AdversarialSoftmax'),
                ('first', 'last', 'steps', 'random_start'),
            ),
            Preset(
                'gdas',
                'one sampled operation on each edge at a time',
                'Dong & Yang, CVPR 2019',
                _first_order_with('Gumbel'),
                ('first', 'last'),
            ),
            Preset(
                'pc-darts',
                'a quarter of the channels is searched, and edges have weights of their own',
                'Xu et al., ICLR 2020',
                _first_order_with('PartialChannels', warmup_epochs=0.3),
                ('portion', 'edge_weights'),
            ),
            Preset(
                'sgas',
                'edges are decided one by one while the search goes on',
                'Li et al., CVPR 2020',
                _sgas,
                ('greedy_criterion', 'decision_start', 'decision_every', 'batch_increase', 'history'),
            ),
            Preset(
                'darts-joint',
                'an ablation: α and the weights by the same SGD on training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Joint'),
            ),
            Preset(
                'darts-coordinate',
                'an ablation: α and the weights in turn on every batch of training and validation data',
                'Liu et al., ICLR 2019, section 3.3',
                _with_architect('Coordinate'),
            ),
            Preset(
                'enas',
                'an LSTM draws single paths and learns which validate well; of many drawn at the end the best stays',
                'Pham et al., ICML 2018',
                _enas,
                (*_RANKING, *_CONTROLLER, *_REINFORCE),
                relaxed=False,
            ),
            Preset(
                'random-ws',
                'random search with weight sharing: uniform paths; of many drawn at the end the best stays',
                'Li & Talwalkar, UAI 2019',
                _random_ws,
                _RANKING,
                relaxed=False,
            ),
            Preset(
                'p-darts',
                'first-order DARTS in stages: deeper and deeper networks, fewer and fewer operations, few skip connections',
                'Chen et al., ICCV 2019',
                lambda own, selection: {},
                relaxed=False,
                built_by='ProgressiveDepth',
            ),
            Preset(
                'random',
                'random cells, trained one by one; the best stays',
                'Liu et al., ICLR 2019, section 3',
                lambda own, selection: {},
                built_by='RandomSearch',
                relaxed=False,
            ),
            Preset(
                'evolution',
                'cells trained one by one, each a child of the best of a sample of the youngest',
                'Real et al., AAAI 2019',
                lambda own, selection: {},
                built_by='Evolution',
                relaxed=False,
            ),
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
            ('criterion', 'batch_norm', 'batches', 'renormalise', 'rescore_inputs'),
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
    mine = (*_PROGRESSIVE, *own)

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import selections

        options = {name: own.pop(name) for name in mine if name in own}
        return base.parts(own, getattr(selections, chosen)(**options))

    return Preset(f'{base.name}+{suffix}', f'{base.summary}; {summary}', f'{base.paper}; {paper}', parts, (*base.own, *mine))


def preset(name: str) -> Preset:
    """Looks a preset up: a name of ``PRESETS``, or one that relaxes all candidates with ``+pt`` or ``+pt-mag``.

    Raises:
        ValueError: for any other name; the message lists the known ones.
    """
    base, _, suffix = str(ALIASES.get(name, name)).partition('+')
    if base in PRESETS and not suffix and '+' not in str(name):
        return PRESETS[base]
    if base in PRESETS and PRESETS[base].relaxed and suffix in SELECTIONS:
        return _with_selection(PRESETS[base], suffix)
    others = ', '.join(entry.name for entry in PRESETS.values() if not entry.relaxed)
    raise ValueError(
        f'unknown strategy {name!r}; known: {", ".join(PRESETS)}; all but {others} also with +pt or +pt-mag; darts-pt is darts-1st+pt'
    )


def create_strategy(name: str, /, **settings: Any) -> OneShotStrategy:
    """Builds the strategy of that name; ``settings`` are keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or setting, with the known ones in the message, and for a value of a wrong type or outside its
            range.
    """
    return preset(name).create(**settings)
