"""DARTS-: auxiliary skip connections that fade away (Chu et al., ICLR 2021)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nni_darts.strategies.catalogue import AuxiliarySkipSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment

__all__ = ['AuxiliarySkip']

_SKIP = 'skip_connect'


@typed(settings=AuxiliarySkipSettings)
class AuxiliarySkip(Relaxation):
    """``ō(x) = Σ_o softmax(α)_o · o(x) + β · skip(x)`` (equation 6), where β falls from epoch to epoch.

    In epoch e (from 0) of a search of E epochs, β is ``auxiliary · (1 − e/E)``, or ``auxiliary · (1 + cos(π·e/E)) / 2``. It is 0 while a
    selection scores and fine-tunes, on decided edges, and in the final cell. Where the candidate ``skip_connect`` is the identity, the
    auxiliary skip connection adds β to its weight, which is the same; where it has weights (stride 2), the auxiliary one has weights of
    its own. Choices without this candidate have no auxiliary skip connection.

    Args:
        auxiliary: β at the start.
        decay: ``linear`` or ``cosine``.
    """

    def __init__(self, auxiliary: float = 1.0, decay: Literal['linear', 'cosine'] = 'linear') -> None:
        self.first = auxiliary
        self.decay = decay
        self.current = auxiliary
        self._places: dict[str, int | None] = {}

    def begin(self, architecture: Architecture) -> None:
        """Raises ValueError if no choice has a skip connection."""
        if not self._places:
            raise ValueError(f'darts-minus adds auxiliary skip connections, and no choice of this space has a candidate {_SKIP}')

    def begin_epoch(self, moment: Moment) -> None:
        """Sets β for an epoch."""
        elapsed = min(moment.elapsed, 1.0)
        self.current = self.first * (1 - elapsed if self.decay == 'linear' else (1 + math.cos(math.pi * elapsed)) / 2)

    def auxiliary(self, label: str, candidates: Mapping[str, nn.Module]) -> nn.Module | None:
        """Returns a skip connection with weights of its own, unless the candidate is the identity.

        Raises:
            ValueError: if the skip connections of one label differ, some the identity and some not.
        """
        if _SKIP not in candidates:
            return None
        skip = candidates[_SKIP]
        place = list(candidates).index(_SKIP) if isinstance(skip, nn.Identity) else None
        if self._places.setdefault(label, place) != place:
            raise ValueError(f'the choices {label!r} have skip connections of different kinds, so they cannot share an auxiliary weight')
        if place is not None:
            return None
        twin = copy.deepcopy(skip)
        for module in twin.modules():
            if callable(reset := getattr(module, 'reset_parameters', None)):
                reset()
        return twin

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns the softmax with β: added to the identity's weight, or as the last entry where there is an auxiliary module."""
        probabilities = self.probabilities(alpha)
        if label not in self._places:
            return probabilities
        place = self._places[label]
        if place is None:
            return torch.cat([probabilities, probabilities.new_tensor([self.current])])
        at_skip = torch.zeros_like(probabilities)
        at_skip[place] = self.current
        return probabilities + at_skip
