"""The settings that a recipe may hold match the settings that the strategies accept: names, defaults, ranges."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from nni_darts.strategies import DifferentiableStrategy, Evolution, ProgressiveDepth, catalogue
from nni_darts.strategies.architects import Implicit, Reinforce, SecondOrder
from nni_darts.strategies.methods import ALIASES, METHODS, SELECTIONS
from nni_darts.strategies.registry import find
from nni_darts.strategies.relaxations import (
    AdversarialSoftmax,
    AuxiliarySkip,
    BinaryGates,
    Concrete,
    DirichletWeights,
    DropPath,
    Gumbel,
    PartialChannels,
    RandomSoftmax,
    ReinMax,
    SampledPaths,
    SkipDropout,
)
from nni_darts.strategies.selections import Greedy, Magnitude, Perturbation, ProgressiveMagnitude, Ranking, Shapley, Threshold
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.settings import Settings
from nni_darts.strategies.terms.alignment import Alignment
from nni_darts.strategies.terms.beta import Beta
from nni_darts.strategies.terms.kl import Kl
from nni_darts.strategies.terms.l2 import WeightDecay
from nni_darts.strategies.terms.oles import Oles
from nni_darts.strategies.terms.registry import (
    BetaSettings,
    KlSettings,
    LambdaSettings,
    OlesSettings,
    WeightDecaySettings,
    ZeroOneSettings,
)
from nni_darts.strategies.terms.zero_one import ZeroOne
from nni_darts.strategies.trained import Aging

NAMES = [*METHODS, *ALIASES, *(f'{name}+{suffix}' for name, entry in METHODS.items() if entry.relaxed for suffix in SELECTIONS)]
SUPERNETS = [name for name in NAMES if not find(name).one_by_one]

FOR_PYTHON = {'relaxation', 'architect', 'selection', 'mutation_hooks', 'operations', 'controller', 'seed', 'optimize_mode'}
"""Arguments whose values a recipe cannot hold, or which it says elsewhere."""

CONSTRUCTORS = [
    (DifferentiableStrategy, catalogue.SearchedSettings),
    (ProgressiveDepth, catalogue.DepthSettings),
    (SecondOrder, catalogue.SecondOrderSettings),
    (Implicit, catalogue.ImplicitSettings),
    (Reinforce, catalogue.ReinforceSettings),
    (RandomSoftmax, catalogue.PerturbedSettings),
    (AdversarialSoftmax, catalogue.AdversarialSettings),
    (Gumbel, catalogue.GumbelSettings),
    (Concrete, catalogue.ConcreteSettings),
    (BinaryGates, catalogue.GateSettings),
    (ReinMax, catalogue.ReinMaxSettings),
    (PartialChannels, catalogue.PartialSettings),
    (SampledPaths, catalogue.ControllerSettings),
    (SkipDropout, catalogue.SkipDropoutSettings),
    (Magnitude, catalogue.MagnitudeSettings),
    (Scoring, catalogue.ScoringSettings),
    (Ranking, catalogue.RankingSettings),
    (Greedy, catalogue.GreedySettings),
    (ProgressiveMagnitude, catalogue.ProgressiveSettings),
    (Perturbation, catalogue.PerturbationSettings),
    (Shapley, catalogue.ShapleySettings),
    (Threshold, catalogue.ThresholdSettings),
    (AuxiliarySkip, catalogue.AuxiliarySkipSettings),
    (DirichletWeights, catalogue.DirichletSettings),
    (DropPath, catalogue.DropPathSettings),
    (Beta, BetaSettings),
    (ZeroOne, ZeroOneSettings),
    (Kl, KlSettings),
    (Alignment, LambdaSettings),
    (Oles, OlesSettings),
    (WeightDecay, WeightDecaySettings),
]

WRONG_SOMEWHERE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    0.5,
    1.0,
    2.5,
    1e9,
    float('nan'),
    float('inf'),
    '',
    'loss',
    'exact',
    'published',
    [],
    [0.5],
    [0.1, 0.9],
    [3, 4, 5],
    {},
    {'lag': 2},
    {'window': 4},
    {1: 2},
]


def direct(name: str, settings: dict[str, Any]) -> Any:
    """Builds a strategy as ``create`` does, without the check that comes first there."""
    return find(name).build(dict(settings), None)


@pytest.mark.parametrize(('made', 'settings'), CONSTRUCTORS, ids=lambda value: value.__name__)
def test_a_constructor_takes_its_settings_with_their_defaults(made: type, settings: type[Settings]) -> None:
    parameters = inspect.signature(made.__init__).parameters
    named = {name: parameter for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    passed_on = set(settings.model_fields) - set(named) if len(named) < len(parameters) else set()
    assert set(named) - FOR_PYTHON - {'self'} == set(settings.model_fields) - passed_on
    for name, field in settings.model_fields.items():
        if name not in passed_on and named[name].default is not inspect.Parameter.empty:
            assert named[name].default == field.default, name
    made(**{name: field.default for name, field in settings.model_fields.items()})


def test_evolution_takes_the_settings_of_aging() -> None:
    parameters = inspect.signature(Evolution.__init__).parameters
    assert set(parameters) - FOR_PYTHON - {'self'} == set(Aging.model_fields) - {'parallel'}
    assert all(parameters[name].default == Aging.model_fields[name].default for name in ('cells', 'population', 'sample'))


@pytest.mark.parametrize('name', SUPERNETS)
def test_listed_defaults_are_those_of_the_strategy(name: str) -> None:
    listed = {entry.name: entry.default for entry in find(name).settings()}
    assert vars(direct(name, listed)).keys() == vars(direct(name, {})).keys()
    one, other = direct(name, listed), direct(name, {})
    if isinstance(one, ProgressiveDepth):
        assert (one.cells, one.keep) == (other.cells, other.keep)
        one, other = one.parts[-1], other.parts[-1]
    assert (one.optimizer_settings, one.warmup_epochs, one.execution) == (other.optimizer_settings, other.warmup_epochs, other.execution)
    plain = [{key: value for key, value in vars(made.relaxation).items() if not key.startswith('_')} for made in (one, other)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize('name', SUPERNETS)
def test_the_check_without_torch_refuses_what_the_constructor_refuses(name: str) -> None:
    entry, refused = find(name), 0
    for setting in entry.settings():
        for value in WRONG_SOMEWHERE:
            said = []
            for way in (entry.check, lambda settings: direct(name, settings)):
                try:
                    way({setting.name: value})
                    said.append('')
                except ValueError as error:
                    said.append(str(error))
            assert said[0] == said[1], (setting, value)
            assert '\n' not in said[0] and (not said[0] or setting.name in said[0] or 'must ' in said[0]), said[0]
            refused += bool(said[0])
    assert refused > len(WRONG_SOMEWHERE)


@pytest.mark.parametrize('name', [name for name in SUPERNETS if find(name).never_stops])
def test_strategies_that_cannot_stop_early_say_why_in_both_ways(name: str) -> None:
    assert 'early_stopping' not in {entry.name for entry in find(name).settings()}
    for way in (find(name).check, lambda settings: direct(name, settings)):
        with pytest.raises(ValueError, match=find(name).never_stops):
            way({'early_stopping': True})


@pytest.mark.parametrize('name', NAMES)
def test_every_setting_is_explained(name: str) -> None:
    listed = find(name).settings()
    names = [entry.name for entry in listed]
    assert len(set(names)) == len(names) and names
    for entry in listed:
        assert entry.meaning and not entry.meaning.endswith('.') and entry.allowed


def test_words_for_what_is_allowed() -> None:
    words = {entry.name: entry.allowed for name in NAMES for entry in find(name).settings()}
    assert words['epsilon'] == 'a number above 0'
    assert words['portion'] == 'a whole number from 1'
    assert words['baseline_decay'] == 'a number from 0 to below 1'
    assert words['decision_start'] == 'a whole number from 0 to below 50'
    assert words['hessian'] == 'finite_difference or exact'
    assert words['criterion'] == 'accuracy or loss'
    assert words['batches'] == 'a whole number from 1 or null'
    assert words['keep'] == 'a list of whole numbers from 2'
    assert words['execution'] == 'fast, compiled, piecewise, joined or plain'


def test_a_typing_mistake_is_recognised() -> None:
    with pytest.raises(ValueError, match=r"no setting 'hesian' \(did you mean 'hessian'\?\); it has hessian, epsilon"):
        find('darts-2nd').check({'hesian': 'exact'})
    with pytest.raises(ValueError, match="no setting 'cells'; it has prior"):
        find('random').check({'cells': 3})
