"""The names and settings of all terms, and the setting ``regularise`` that lists them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nni_darts.errors import did_you_mean
from nni_darts.strategies.settings import Settings, setting

if TYPE_CHECKING:
    from nni_darts.strategies.terms.base import StepTerm, Term

__all__ = [
    'ALLOWED',
    'TERMS',
    'BetaSettings',
    'KlSettings',
    'LambdaSettings',
    'OlesSettings',
    'TermEntry',
    'WeightDecaySettings',
    'ZeroOneSettings',
    'check_terms_fit',
    'checked_terms',
    'created_terms',
]

AtLeast0 = Annotated[float, Field(ge=0)]


class BetaSettings(Settings):
    """Settings of β-DARTS' regularisation."""

    weight: AtLeast0 = setting(50.0, 'weight λ at the end of the search; in epoch e of E, it is multiplied by e / E')


class ZeroOneSettings(Settings):
    """Settings of FairDARTS' zero-one loss."""

    weight: AtLeast0 = setting(10.0, 'weight of the zero-one loss')
    power: Annotated[int, Field(ge=1, le=2)] = setting(2, 'power of the distance from one half: 2 as published, or 1')


class KlSettings(Settings):
    """Settings of DrNAS' regularisation."""

    weight: AtLeast0 = setting(1e-3, "weight of the divergence from the uniform distribution; the authors then set α's weight_decay to 0")


class LambdaSettings(Settings):
    """Settings of Λ-DARTS."""

    weight: AtLeast0 = setting(0.125, 'weight λ in the last epoch; in epoch e of E, it is multiplied by e / (E − 1)')
    epsilon: Annotated[float, Field(gt=0)] = setting(1e-4, "length of the finite difference's steps in the weights of candidates")


class OlesSettings(Settings):
    """Settings of OLES."""

    threshold: Annotated[float, Field(ge=-1, le=1)] = setting(0.4, 'an operation is frozen when its mean cosine falls below this number')
    steps: Annotated[int, Field(ge=1)] = setting(20, 'number of cosines that each mean is over')
    gradient: Literal['summed', 'validation'] = setting(
        'summed',
        "gradient to compare with that of the training loss: the validation loss's plus the training loss's, as published, or alone",
    )


class WeightDecaySettings(Settings):
    """Settings of the weight decay of R-DARTS."""

    value: AtLeast0 = setting(81e-4, 'L2 penalty on the weights of the supernet, in place of search.weight_decay')


@dataclass(frozen=True)
class TermEntry:
    """The entry of a term.

    Attributes:
        made: ``module:Class`` in this folder; the class takes the settings as keyword arguments.
        settings: class of the settings.
        summary: description in one line.
        of_alpha: whether it is a term of the loss of α, so that α must be trained by gradients.
        needs_weights: whether it needs a relaxation that mixes candidates by weights.
        not_on_simplex: why it is not defined where α lies on a simplex and is a probability itself; empty if it is defined there.
    """

    made: str
    settings: type[Settings]
    summary: str
    of_alpha: bool = True
    not_on_simplex: str = ''
    needs_weights: bool = False


TERMS: Mapping[str, TermEntry] = MappingProxyType(
    {
        'beta': TermEntry(
            'beta:Beta',
            BetaSettings,
            'mean logsumexp of α, with a growing weight (β-DARTS)',
            not_on_simplex='beta takes the logsumexp of logits, and where α is a probability itself, log Σ exp(ln α) is always 0',
        ),
        'zero-one': TermEntry('zero_one:ZeroOne', ZeroOneSettings, 'pushes each probability towards 0 or 1 (FairDARTS)'),
        'kl': TermEntry(
            'kl:Kl',
            KlSettings,
            'divergence of Dirichlet distributions from the uniform one (DrNAS)',
            not_on_simplex='kl is defined for the concentrations elu(α) + 1, and here α is a probability itself',
        ),
        'lambda': TermEntry(
            'alignment:Alignment',
            LambdaSettings,
            'aligns the gradients that the cells of a kind send to their weights of candidates (Λ-DARTS)',
            of_alpha=False,
            needs_weights=True,
        ),
        'oles': TermEntry('oles:Oles', OlesSettings, 'freezes operations that have begun to overfit (OLES)', of_alpha=False),
        'l2': TermEntry('l2:WeightDecay', WeightDecaySettings, 'weight decay of the supernet (RobustDARTS)', of_alpha=False),
    }
)
"""Name → term."""

ALLOWED = f'a list of terms ({", ".join(TERMS)}), or a mapping from terms to their settings'
"""Description of the setting ``regularise``."""


def checked_terms(value: Any) -> Any:
    """Returns the value of the setting ``regularise`` if it is valid.

    Args:
        value: names of terms in a list, where ``{name: {setting: value}}`` may take the place of a name, or one mapping
            ``{name: {setting: value}}``, in which null stands for the default settings.

    Raises:
        ValueError: for an unknown term or setting, or an impossible value.
    """
    _settings_of(value)
    return value


def check_terms_fit(value: Any, *, trains_alpha: bool, on_simplex: bool, mixes_by_weights: bool) -> None:
    """Checks that terms fit a strategy.

    Args:
        value: value of the setting ``regularise``.
        trains_alpha: whether the strategy trains α by gradients.
        on_simplex: whether its α lies on a simplex.
        mixes_by_weights: whether every edge is a sum of its candidates' outputs, each times a weight.

    Raises:
        ValueError: if a term does not fit, or as for :func:`checked_terms`.
    """
    for name in _settings_of(value):
        entry = TERMS[name]
        if entry.of_alpha and not trains_alpha:
            raise ValueError(f'regularise: {name} is a term of the loss of α, and this strategy does not train α by gradients')
        if entry.not_on_simplex and on_simplex:
            raise ValueError(f'regularise: {entry.not_on_simplex}')
        if entry.needs_weights and not mixes_by_weights:
            raise ValueError(f'regularise: {name} perturbs the weights of candidates, and this strategy does not mix candidates by weights')


def created_terms(value: Any) -> list[Term | StepTerm]:
    """Builds the terms of the setting ``regularise``, in its order. Arguments and exceptions as for :func:`checked_terms`."""
    made = []
    for name, settings in _settings_of(value).items():
        module, _, kind = TERMS[name].made.partition(':')
        made.append(getattr(import_module(f'nni_darts.strategies.terms.{module}'), kind)(**dict(settings)))
    return made


def _settings_of(value: Any) -> dict[str, Settings]:
    """Returns name of a term → its settings."""
    found: dict[str, Settings] = {}
    for name, settings in _pairs(value):
        if not isinstance(name, str) or name not in TERMS:
            raise ValueError(f'regularise has no term {name!r}{did_you_mean(str(name), list(TERMS))}; it has {", ".join(TERMS)}')
        if name in found:
            raise ValueError(f'regularise names the term {name!r} twice; leave one of them out')
        kind = TERMS[name].settings
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(f'regularise: the settings of {name} must be a mapping of {", ".join(kind.model_fields)}, not {settings!r}')
        for key in settings or ():
            if key not in kind.model_fields:
                raise ValueError(f'regularise: {name} has no setting {key!r}; it has {", ".join(kind.model_fields)}')
        try:
            found[name] = kind(**(settings or {}))
        except ValueError as error:
            raise ValueError(f'regularise: {name}: {error}') from None
    return found


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'regularise must be {ALLOWED}, not {value!r}')
    return [pair for entry in value for pair in (entry.items() if isinstance(entry, Mapping) else [(entry, None)])]
