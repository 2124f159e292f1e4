"""Tests of the check of a user's relaxation, which accepts or refuses it before the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nni_darts.errors import InputError
from nni_darts.strategies.relaxations import Relaxation, SampledPaths, Softmax
from nni_darts.strategies.relaxations.check import check_relaxation

SIZES = {'first': 3, 'second': 5, 'third': 3}


def relaxation(**methods: Any) -> Relaxation:
    """A relaxation of a user's, with these methods and attributes."""
    return type('Mine', (Relaxation,), methods)()


def cold(self: Relaxation, alpha: Tensor) -> Tensor:
    return torch.softmax(alpha / 0.1, dim=-1)


def stateful(self: Relaxation, alpha: Tensor) -> Tensor:
    return self.scale * torch.softmax(alpha, dim=-1)


@pytest.mark.parametrize(
    'right',
    [
        Softmax(),
        SampledPaths(),
        relaxation(),
        relaxation(probabilities=cold),
        relaxation(trains_alpha=False, probabilities=lambda self, alpha: torch.full_like(alpha, 0.5).detach()),
        relaxation(probabilities=stateful, begin_step=lambda self, progress: setattr(self, 'scale', 1.0)),
        relaxation(probabilities=lambda self, alpha: cold(self, alpha.detach()), weights=lambda self, label, alpha: alpha.softmax(-1)),
        relaxation(mix=lambda self, label, alpha, candidates, *rest: candidates[0], weights=lambda self, label, alpha: None),
    ],
)
def test_a_relaxation_that_can_search_passes(right: Relaxation) -> None:
    before = torch.random.get_rng_state()
    check_relaxation(right, SIZES)
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ('methods', 'said'),
    [
        (
            {'probabilities': lambda self, alpha: alpha[1:]},
            r'probabilities returns a tensor of shape \(2,\) for α of shape \(3,\); it must have',
        ),
        (
            {'weights': lambda self, label, alpha: torch.cat([alpha, alpha])},
            r'weights returns a tensor of shape \(6,\) for α of shape \(3,\)',
        ),
        ({'probabilities': lambda self, alpha: alpha[None]}, r'a tensor of shape \(1, 3\) for α'),
        ({'probabilities': lambda self, alpha: alpha[:3] * 2}, r'a tensor of shape \(3,\) for α of shape \(5,\)'),
        ({'probabilities': lambda self, alpha: alpha.tolist()}, r'an object of list; it must return a tensor of shape \(3,\)'),
        ({'probabilities': lambda self, alpha: None}, 'an object of NoneType'),
        ({'probabilities': lambda self, alpha: alpha / 0}, r'returns \[-inf, nan, inf\] for α of about 0; all numbers must be finite'),
        (
            {'probabilities': lambda self, alpha: alpha.long()},
            r'numbers of torch.int64 for α of torch.float32; they must be of the type of α',
        ),
        ({'probabilities': lambda self, alpha: alpha.double().softmax(-1)}, 'numbers of torch.float64 for α'),
        (
            {'probabilities': lambda self, alpha: cold(self, alpha).detach()},
            'do not depend on α, which would never move; .* trains_alpha = False',
        ),
        (
            {'probabilities': lambda self, alpha: 1 / 0},
            r'relaxation Mine failed: ZeroDivisionError: division by zero \(\S+test_check.py:\d+\)',
        ),
        ({'probabilities': lambda self: None}, r'relaxation Mine failed: TypeError: .* takes 1 positional argument but 2 were given'),
        ({'begin_step': lambda self, progress: 1 / 0}, 'relaxation Mine failed: ZeroDivisionError'),
    ],
)
def test_a_relaxation_that_cannot_search_is_refused(methods: dict[str, Callable[..., Any]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_relaxation(relaxation(**methods), SIZES)
