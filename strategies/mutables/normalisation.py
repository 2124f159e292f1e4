"""Normalisations whose number of features is searched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues, below, pad_to, shared_attributes
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['MixedBatchNorm', 'MixedGroupNorm', 'MixedLayerNorm']


class MixedBatchNorm(RelaxedValues):
    """A relaxed batch norm over a width that is searched.

    A channel is normalised alike at every width that has it, so the expectation is a batch norm of the largest width times the probability
    of each channel to exist: ``P(width > c) · BN(x)_c``. The factor comes *after* the normalisation. Factors of the convolution before it
    do not reach the output in training mode, because the batch statistics divide them out again; without the factor here, α of a width
    would have a gradient only from layers further on.

    Raises:
        ValueError: if another argument than the number of features is searched.
    """

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        others = [name for name in settings.varying() if name != 'num_features']
        if others:
            raise ValueError(f'{where}: of a batch norm only num_features can be searched, not {", ".join(others)}; choose one value')
        self.widths = settings.column('num_features')
        self.norm = self._like(module, module._bound_type, max(self.widths))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) → (B, C, …)"""
        setting = self.path_setting()
        if setting is not None:
            return self._narrow(x, self.widths[setting])
        present = self.setting_weights(x) @ below(self.widths, max(self.widths), x)
        return present.reshape(-1, *[1] * (x.dim() - 2)) * self.norm(x)

    def frozen(self, setting: int) -> nn.Module:
        """Returns torch's batch norm of a setting, with its part of the parameters and running statistics."""
        width = self.widths[setting]
        module = self._like(self.norm, type(self.norm), width)
        with torch.no_grad():
            for own, tensor in self._tensors(module):
                tensor.copy_(own[:width] if own.dim() else own)
        return module

    def _like(self, source: nn.Module, kind: type[nn.Module], width: int) -> nn.Module:
        names = ('eps', 'momentum')
        module = kind(**{**self.settings.arguments[0], 'num_features': width})
        shared_attributes(source, module, names)
        tensor = next((tensor for tensor in (*source.parameters(), *source.buffers()) if tensor.is_floating_point()), None)
        return module if tensor is None else module.to(tensor)

    def _tensors(self, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
        return list(zip((*self.norm.parameters(), *self.norm.buffers()), (*other.parameters(), *other.buffers())))

    def _narrow(self, x: Tensor, width: int) -> Tensor:
        """Returns the batch norm of the first channels, whose running statistics it updates as torch does."""
        norm: Any = self.norm
        factor = 0.0 if norm.momentum is None else norm.momentum
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                factor = 1.0 / float(norm.num_batches_tracked)
        mean, variance, weight, bias = (
            None if tensor is None else tensor[:width] for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return functional.batch_norm(x, mean, variance, weight, bias, norm.training or mean is None, factor, norm.eps)


class _PerSetting(RelaxedValues):
    """A normalisation whose statistics depend on the width, so that the outputs of all settings are computed and added up."""

    width: str
    """Name of the argument that is the number of features."""

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        self.widths = [width[0] if isinstance(width, (tuple, list)) and len(width) == 1 else width for width in settings.column(self.width)]
        if not all(isinstance(width, int) for width in self.widths):
            raise ValueError(f'{where}: {self.width} must be one number to be searched, not {settings.column(self.width)[0]}')
        widest = settings.arguments[self.widths.index(max(self.widths))]
        self.norm = module._bound_type(**widest)
        tensor = next(module.parameters(), None)
        if tensor is not None:
            self.norm.to(tensor)
        changing = {'elementwise_affine', 'affine', 'bias'} & set(settings.varying())
        if changing:
            raise ValueError(f'{where}: {", ".join(sorted(changing))} cannot be searched; choose one value')
        self.train(module.training)

    def forward(self, x: Tensor) -> Tensor:
        """Input and output as those of the normalisation."""
        setting = self.path_setting()
        if setting is not None:
            return self._compute(x, setting)
        weights, widest = self.setting_weights(x), max(self.widths)
        terms = []
        for number, width in enumerate(self.widths):
            narrow = x.narrow(self.dimension, 0, width)
            terms.append(weights[number] * pad_to(self._compute(narrow, number), widest, self.dimension))
        return sum(terms[1:], terms[0])

    dimension: int
    """Dimension of the features."""

    def _compute(self, x: Tensor, setting: int) -> Tensor:
        raise NotImplementedError

    def _affine(self, setting: int) -> tuple[Tensor | None, Tensor | None]:
        norm: Any = self.norm
        width = self.widths[setting]
        return tuple(None if tensor is None else tensor[:width] for tensor in (norm.weight, norm.bias))  # type: ignore[return-value]

    def frozen(self, setting: int) -> nn.Module:
        """Returns torch's normalisation of a setting, with its part of the parameters."""
        module = type(self.norm)(**self.settings.arguments[setting])
        with torch.no_grad():
            for own, tensor in zip(self.norm.parameters(), module.parameters()):
                module.to(own)
                tensor.data = own[: self.widths[setting]].clone()
        return module.train(self.training)


class MixedLayerNorm(_PerSetting):
    """A relaxed ``LayerNorm`` over the last dimension: ``Σ_s w_s · pad(LN_s(x))``, of which each takes statistics over its own width."""

    width = 'normalized_shape'
    dimension = -1

    def _compute(self, x: Tensor, setting: int) -> Tensor:
        return functional.layer_norm(x, (self.widths[setting],), *self._affine(setting), self.settings.arguments[setting]['eps'])


class MixedGroupNorm(_PerSetting):
    """A relaxed ``GroupNorm``: ``Σ_s w_s · pad(GN_s(x))``, of which each takes statistics over its own groups."""

    width = 'num_channels'
    dimension = 1

    def _compute(self, x: Tensor, setting: int) -> Tensor:
        arguments = self.settings.arguments[setting]
        return functional.group_norm(x, arguments['num_groups'], *self._affine(setting), arguments['eps'])
