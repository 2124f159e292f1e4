"""Convolutions whose channels, kernel, groups, padding or dilation are searched: one super-kernel holds the weights of all settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues, below, filled
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['MixedConvolution']

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class _Kernel:
    """The sizes of one setting; kernel, stride, padding and dilation have an entry for each dimension of space."""

    inputs: int
    outputs: int
    groups: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    bias: bool

    @property
    def ratios(self) -> tuple[int, int] | None:
        """Returns the channels (in, out) of a group; None if there is a single group."""
        return None if self.groups == 1 else (self.inputs // self.groups, self.outputs // self.groups)

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Returns by how much each dimension of space shrinks before the stride."""
        return tuple(d * (k - 1) - 2 * p for d, k, p in zip(self.dilation, self.size, self.padding))


class MixedConvolution(RelaxedValues):
    """A relaxed convolution in one, two or three dimensions.

    The weights of a setting are the first output channels and the first input channels (of each group) of the super-kernel, at the taps in
    the middle of its largest size. All settings are linear in the input, so their expectation is a single convolution, whose kernel is the
    expectation of the settings' kernels, each at the taps where its padding and dilation put it.

    Raises:
        ValueError: if the settings give outputs of different height or width and the relaxation does not sample paths, or for padding that
            a setting cannot have on both sides.
    """

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        self.kind: type[nn.Module] = module._bound_type
        self.dimensions = module.weight.dim() - 2
        self.kernels = [self._kernel(setting) for setting in settings.arguments]
        self.padding_mode = module.padding_mode
        if 'padding_mode' in settings.varying():
            raise ValueError(f'{where}: padding_mode cannot be searched; choose one')
        if len({(kernel.stride, kernel.shrinks) for kernel in self.kernels}) > 1:
            self.refuse_to_mix('its settings give outputs of different height and width')
        largest = [max(sizes) for sizes in zip(*(kernel.size for kernel in self.kernels))]
        outputs = max(kernel.outputs for kernel in self.kernels)
        inputs = max(kernel.inputs // kernel.groups for kernel in self.kernels)
        self.weight = nn.Parameter(module.weight.new_empty(outputs, inputs, *largest))
        self.bias = nn.Parameter(module.weight.new_empty(outputs)) if any(kernel.bias for kernel in self.kernels) else None
        self._alignment = self._align(largest)
        self.reset_parameters()
        self.train(module.training)

    def reset_parameters(self) -> None:
        """Draws initial weights as torch's convolutions do."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *sizes) → (B, C', *sizes')"""
        setting = self.path_setting()
        if setting is not None:
            kernel = self.kernels[setting]
            weight, bias = self._slices(setting)
            return self._convolve(x, weight, bias, kernel.stride, kernel.padding, kernel.dilation, kernel.groups)
        weights = self.setting_weights(self.weight)
        weight, groups = self._expected_kernel(weights)
        bias = None
        if self.bias is not None:
            sizes = [kernel.outputs * kernel.bias for kernel in self.kernels]
            bias = (weights @ below(sizes, len(self.bias), self.weight)) * self.bias
        return self._convolve(x, weight, bias, self.kernels[0].stride, *self._alignment[:2], groups)

    def frozen(self, setting: int) -> nn.Module:
        """Returns torch's convolution of a setting, with the slices of the super-kernel."""
        return filled(self.kind(**self.settings.arguments[setting]), *self._slices(setting)).train(self.training)

    # geometry ---------------------------------------------------------------------------------------------------------------------

    def _kernel(self, setting: Mapping[str, Any]) -> _Kernel:
        size, stride, dilation = (self._each(setting[name]) for name in ('kernel_size', 'stride', 'dilation'))
        padding = setting['padding']
        if padding == 'valid':
            padding = 0
        elif padding == 'same':
            both = [d * (k - 1) for d, k in zip(dilation, size)]
            if any(total % 2 for total in both):
                raise ValueError(f"{self.where}: padding 'same' needs an odd kernel here, and {size} is not; give the padding as a number")
            padding = tuple(total // 2 for total in both)
        inputs, outputs, groups = (setting[name] for name in ('in_channels', 'out_channels', 'groups'))
        if inputs % groups or outputs % groups:
            raise ValueError(f'{self.where}: {groups} groups do not divide {inputs} input and {outputs} output channels')
        return _Kernel(inputs, outputs, groups, size, stride, self._each(padding), dilation, bool(setting['bias']))

    def _each(self, value: int | Sequence[int]) -> tuple[int, ...]:
        return (value,) * self.dimensions if isinstance(value, int) else tuple(value)

    def _middle(self, kernel: _Kernel) -> tuple[Any, ...]:
        """Returns the taps of a setting in the super-kernel: those in the middle."""
        starts = [(most - size) // 2 for most, size in zip(self.weight.shape[2:], kernel.size)]
        return (..., *(slice(start, start + size) for start, size in zip(starts, kernel.size)))

    def _slices(self, setting: int) -> tuple[Tensor, Tensor | None]:
        kernel = self.kernels[setting]
        weight = self.weight[self._middle(kernel)][: kernel.outputs, : kernel.inputs // kernel.groups]
        return weight, self.bias[: kernel.outputs] if kernel.bias and self.bias is not None else None

    def _align(self, largest: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Returns padding, dilation and size, in each dimension, of a kernel with a tap wherever a setting has one."""
        paddings, dilations, sizes = [], [], []
        for dimension in range(len(largest)):
            shapes = [(kernel.padding[dimension], kernel.dilation[dimension], kernel.size[dimension]) for kernel in self.kernels]
            padding = max(shape[0] for shape in shapes)
            dilation = math.gcd(*(shape[1] for shape in shapes), *(padding - shape[0] for shape in shapes))
            paddings.append(padding)
            dilations.append(dilation)
            sizes.append(max(padding - own + step * (size - 1) for own, step, size in shapes) // dilation + 1)
        return tuple(paddings), tuple(dilations), tuple(sizes)

    def _expected_kernel(self, weights: Tensor) -> tuple[Tensor, int]:
        """Returns the expectation of the settings' kernels, (outputs, inputs / groups, *taps), and its number of groups."""
        ratios = {kernel.ratios for kernel in self.kernels}
        outputs = self.weight.shape[0]
        ratio = self.kernels[0].ratios
        groups = outputs // ratio[1] if ratio is not None and len(ratios) == 1 else 1
        columns = self.weight.shape[1] if len(ratios) == 1 else max(kernel.inputs for kernel in self.kernels)
        alike: dict[Any, list[int]] = {}
        for number, kernel in enumerate(self.kernels):
            alike.setdefault((kernel.ratios, kernel.size, kernel.padding, kernel.dilation), []).append(number)
        total = self.weight.new_zeros(outputs, columns, *self._alignment[2])
        for members in alike.values():
            kernels = [self.kernels[number] for number in members]
            rows = below([kernel.outputs for kernel in kernels], outputs, self.weight)
            inputs = below([kernel.inputs // kernel.groups for kernel in kernels], self.weight.shape[1], self.weight)
            factor = torch.einsum('s,so,si->oi', weights[members], rows, inputs)
            part = factor.reshape(*factor.shape, *[1] * self.dimensions) * self.weight[self._middle(kernels[0])]
            if columns != self.weight.shape[1] or len(ratios) > 1:
                part = self._spread(part, kernels, columns)
            total = total + self._placed(part, kernels[0])
        return total, groups

    def _spread(self, part: Tensor, kernels: Sequence[_Kernel], columns: int) -> Tensor:
        """Returns the kernel of settings with groups, (outputs, inputs / groups, *taps), as one without: (outputs, inputs, *taps)."""
        ratio = kernels[0].ratios
        if ratio is None:
            return functional.pad(part, [0, 0] * self.dimensions + [0, columns - part.shape[1]])
        used = max(kernel.outputs for kernel in kernels)
        source = torch.arange(used, device=part.device)[:, None] // ratio[1] * ratio[0] + torch.arange(ratio[0], device=part.device)
        index = source.reshape(used, ratio[0], *[1] * self.dimensions).expand(-1, -1, *part.shape[2:])
        dense = part.new_zeros(used, columns, *part.shape[2:]).scatter(1, index, part[:used, : ratio[0]])
        return functional.pad(dense, [0, 0] * (self.dimensions + 1) + [0, part.shape[0] - used])

    def _placed(self, part: Tensor, kernel: _Kernel) -> Tensor:
        """Returns the kernel of a setting at its taps in the common kernel."""
        padding, dilation, sizes = self._alignment
        if tuple(part.shape[2:]) == sizes:
            return part
        taps: list[Any] = [...]
        for most, common, own, step, size in zip(padding, dilation, kernel.padding, kernel.dilation, kernel.size):
            start = (most - own) // common
            taps.append(slice(start, start + step // common * (size - 1) + 1, step // common))
        placed = part.new_zeros(*part.shape[:2], *sizes)
        placed[tuple(taps)] = part
        return placed

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
        stride, padding, dilation, groups = sizes
        if self.padding_mode != 'zeros':
            both = [amount for size in reversed(padding) for amount in (size, size)]
            x, padding = functional.pad(x, both, mode=self.padding_mode), (0,) * self.dimensions
        return _CONVOLVE[self.dimensions](x, weight, bias, stride, padding, dilation, groups)
