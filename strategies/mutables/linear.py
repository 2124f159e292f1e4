"""Linear layers whose features are searched."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues, below, filled
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['MixedLinear']


class MixedLinear(RelaxedValues):
    """A relaxed ``Linear``. The weights of a setting are the first rows and columns of the largest matrix.

    All settings are linear in the input, so their expectation is one layer whose matrix is the expectation of theirs.
    """

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        self.inputs, self.outputs = settings.column('in_features'), settings.column('out_features')
        self.biased = [bool(bias) for bias in settings.column('bias')]
        self.weight = nn.Parameter(module.weight.new_empty(max(self.outputs), max(self.inputs)))
        self.bias = nn.Parameter(module.weight.new_empty(max(self.outputs))) if any(self.biased) else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.inputs))
            nn.init.uniform_(self.bias, -bound, bound)
        self.train(module.training)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)"""
        setting = self.path_setting()
        if setting is not None:
            return functional.linear(x, *self._slices(setting))
        weights = self.setting_weights(self.weight)
        rows, columns = below(self.outputs, len(self.weight), self.weight), below(self.inputs, self.weight.shape[1], self.weight)
        matrix = torch.einsum('s,so,si->oi', weights, rows, columns) * self.weight
        if self.bias is None:
            return functional.linear(x, matrix)
        sizes = [size * biased for size, biased in zip(self.outputs, self.biased)]
        return functional.linear(x, matrix, (weights @ below(sizes, len(self.weight), self.weight)) * self.bias)

    def frozen(self, setting: int) -> nn.Module:
        """Returns torch's layer of a setting, with its part of the matrix."""
        return filled(nn.Linear(**self.settings.arguments[setting]), *self._slices(setting)).train(self.training)

    def _slices(self, setting: int) -> tuple[Tensor, Tensor | None]:
        outputs = self.outputs[setting]
        bias = self.bias[:outputs] if self.bias is not None and self.biased[setting] else None
        return self.weight[:outputs, : self.inputs[setting]], bias
