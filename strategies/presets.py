"""The methods by name: each a combination of a relaxation, an architect and a selection. Importing this imports no torch."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nni_darts.strategies.catalogue import (
    AdversarialSettings,
    Aging,
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
from nni_darts.strategies.settings import Setting, Settings

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
        own: the settings of its parts.
        defaults: settings of its class whose defaults are others here.
        built_by: the class of ``nni_darts.strategies`` that it configures.
        relaxed: whether its supernet computes all candidates at once, so that it can be read out in other ways.
        never_stops: why it cannot stop early; '' if it can.
    """

    name: str
    summary: str
    paper: str
    parts: Callable[[Parts, Any], Parts]
    own: tuple[type[Settings], ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    built_by: str = 'DifferentiableStrategy'
    relaxed: bool = True
    never_stops: str = ''

    @property
    def supernet(self) -> bool:
        """Whether it searches in supernets; otherwise cells are trained one by one."""
        return self.built_by in ('DifferentiableStrategy', 'ProgressiveDepth')

    def settings(self) -> list[Setting]:
        """Describes all settings that a recipe may hold for this strategy."""
        listed = [entry for part in self._parts() for entry in part.listed() if entry.name != 'early_stopping' or not self.never_stops]
        return [replace(entry, default=self.defaults.get(entry.name, entry.default)) for entry in listed]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Checks the settings that a recipe holds for this strategy; imports no torch.

        Raises:
            ValueError: for an unknown setting or an impossible value.
        """
        allowed = {name: part for part in self._parts() for name in part.model_fields}
        for name in settings:
            if name not in allowed:
                raise ValueError(_no_such_setting(name, [entry.name for entry in self.settings()]))
        for part in self._parts():
            part(**{name: value for name, value in settings.items() if allowed[name] is part})
        if settings.get('early_stopping', False) is not False and self.never_stops:
            raise ValueError(self.never_stops)

    def create(self, /, **settings: Any) -> OneShotStrategy:
        """The strategy with these settings. Raises ValueError for one that it does not have, or a value that it cannot have."""
        made_by = self._class()
        if self.supernet:
            self.check({name: value for name, value in settings.items() if name not in _OBJECTS})
        for name in settings:
            if name not in (known := inspect.signature(made_by).parameters) and not self.supernet:
                raise ValueError(_no_such_setting(name, list(known)))
        own = {name: settings.pop(name) for part in self.own for name in part.model_fields if name in settings}
        return made_by(**{**self.parts(own, None), **self.defaults, **settings})

    def _parts(self) -> tuple[type[Settings], ...]:
        return (*self.own, *_OF_CLASS[self.built_by])

    def _class(self) -> type[OneShotStrategy]:
        from nni_darts import strategies

        return getattr(strategies, self.built_by)


_OF_CLASS: Mapping[str, tuple[type[Settings], ...]] = MappingProxyType(
    {'DifferentiableStrategy': (SearchedSettings,), 'ProgressiveDepth': (DepthSettings,), 'RandomSearch': (), 'Evolution': (Aging,)}
)
"""Class of a strategy → its settings, as far as a recipe may hold them."""

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


def _no_such_setting(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    return f'this strategy has no setting {name!r}{hint}; it has {", ".join(allowed) or "none"}'


def _first_order_with(relaxation: str) -> Callable[[Parts, Any], Parts]:
    """First-order DARTS with another relaxation, which takes the preset's own settings."""

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
                (SecondOrderSettings,),
            ),
            Preset(
                'fixed-alpha',
                'uniform α that never moves: a baseline for selections other than magnitude, for which all operations tie',
                'Wang et al., ICLR 2021',
                _first_order_with('Fixed'),
                never_stops=NOT_WITHOUT_ALPHA,
            ),
            Preset(
                'sdarts-rs',
                'DARTS whose weights are trained under a random perturbation of α',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('RandomSoftmax'),
                (PerturbedSettings,),
            ),
            Preset(
                'sdarts-adv',
                'DARTS whose weights are trained under the worst perturbation of α',
                'Chen & Hsieh, ICML 2020',
                _first_order_with('AdversarialSoftmax'),
                (AdversarialSettings,),
            ),
            Preset(
                'gdas',
                'one operation is sampled on each edge in every step',
                'Dong & Yang, CVPR 2019',
                _first_order_with('Gumbel'),
                (GumbelSettings,),
            ),
            Preset(
                'pc-darts',
                'only a quarter of the channels is searched, and edges have weights of their own',
                'Xu et al., ICLR 2020',
                _first_order_with('PartialChannels'),
                (PartialSettings,),
                {'warmup_epochs': 0.3},
            ),
            Preset(
                'sgas',
                'edges are decided one by one during the search',
                'Li et al., CVPR 2020',
                _sgas,
                (GreedySettings,),
                never_stops=NOT_BEFORE_DECISIONS,
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
                'an LSTM draws single paths and learns which ones validate well; the best of many drawn at the end is kept',
                'Pham et al., ICML 2018',
                _enas,
                (EnasSettings,),
                relaxed=False,
                never_stops=NOT_WITHOUT_ALPHA,
            ),
            Preset(
                'random-ws',
                'random search with weight sharing: uniform paths, and the best of many drawn at the end is kept',
                'Li & Talwalkar, UAI 2019',
                _random_ws,
                (RankingSettings,),
                relaxed=False,
                never_stops=NOT_WITHOUT_ALPHA,
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
                'random cells, trained one by one; the best one is kept',
                'Liu et al., ICLR 2019, section 3',
                lambda own, selection: {},
                built_by='RandomSearch',
                relaxed=False,
            ),
            Preset(
                'evolution',
                'cells trained one by one, each a child of the best cell in a sample of the youngest ones',
                'Real et al., AAAI 2019',
                lambda own, selection: {},
                built_by='Evolution',
                relaxed=False,
            ),
        )
    }
)
"""Name → preset."""


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
"""Suffix of a supernet's name → class of the selection, summary, paper, its settings."""

ALIASES: Mapping[str, str] = MappingProxyType({'darts-pt': 'darts-1st+pt'})
"""Other names in use."""


def _with_selection(base: Preset, suffix: str) -> Preset:
    chosen, summary, paper, mine = SELECTIONS[suffix]

    def parts(own: Parts, selection: Any) -> Parts:
        from nni_darts.strategies import selections

        options = {name: own.pop(name) for name in mine.model_fields if name in own}
        return base.parts(own, getattr(selections, chosen)(**options))

    return replace(
        base,
        name=f'{base.name}+{suffix}',
        summary=f'{base.summary}; {summary}',
        paper=f'{base.paper}; {paper}',
        parts=parts,
        own=(*base.own, mine),
    )


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
    close = difflib.get_close_matches(str(name).lower(), [*PRESETS, *ALIASES], n=1, cutoff=0.8)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    raise ValueError(
        f'unknown strategy {name!r}{hint}; known: {", ".join(PRESETS)}; all but {others} also with +pt or +pt-mag; darts-pt is darts-1st+pt'
    )


def create_strategy(name: str, /, **settings: Any) -> OneShotStrategy:
    """Builds the strategy of that name; ``settings`` are keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or setting, with the known ones in the message, and for a value of a wrong type or outside its
            range.
    """
    return preset(name).create(**settings)
