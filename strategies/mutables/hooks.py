"""NNI's mutation hook that relaxes the mutables of this package, and refuses what no supernet can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from nni_darts._nni import Cell, MutableModule, ParametrizedModule, Repeat
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.attention import MixedAttention
from nni_darts.strategies.mutables.base import RelaxedValues
from nni_darts.strategies.mutables.cell import MixedCell, needs_mixed_cell
from nni_darts.strategies.mutables.convolution import MixedConvolution
from nni_darts.strategies.mutables.linear import MixedLinear
from nni_darts.strategies.mutables.normalisation import MixedBatchNorm, MixedGroupNorm, MixedLayerNorm
from nni_darts.strategies.mutables.other import MixedModule, MixedParameters, is_linear_in_parameters
from nni_darts.strategies.mutables.repeat import MixedRepeat
from nni_darts.strategies.mutables.settings import Settings, value_labels
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['value_hook']

_BY_TYPE: dict[type[nn.Module], Callable[..., RelaxedValues]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), MixedConvolution),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), MixedBatchNorm),
    nn.Linear: MixedLinear,
    nn.LayerNorm: MixedLayerNorm,
    nn.GroupNorm: MixedGroupNorm,
    nn.MultiheadAttention: MixedAttention,
}


def value_hook(architecture: Architecture, relaxation: Relaxation) -> Any:
    """Returns NNI's mutation hook that relaxes modules whose arguments are choices.

    Raises:
        ValueError: when it is applied to a module that the strategy cannot search.
    """

    def relax(module: nn.Module, name: str, memo: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module | None:
        if not isinstance(module, MutableModule) or isinstance(module, RelaxedValues):
            return None
        if isinstance(module, Cell) and needs_mixed_cell(module):
            return MixedCell(module, architecture, relaxation)
        if not module.mutables:
            _keep_weights(module)
            return None
        labels = ', '.join(value_labels(module.mutables, f'{type(module).__name__} {name!r}'))
        where = f'{type(module).__name__} {name!r} (label {labels})'
        if isinstance(module, Repeat):
            return MixedRepeat(module, where, architecture, relaxation)
        if not isinstance(module, ParametrizedModule):
            raise ValueError(
                f'{where}: a mutable that is no argument of a ParametrizedModule cannot be searched by a supernet; random and evolution can'
            )
        settings = Settings.of(module.args, where)
        if is_linear_in_parameters(module):
            return MixedParameters(module, settings, where, architecture, relaxation)
        kind = _BY_TYPE.get(module._bound_type, MixedModule)
        return kind(module, settings, where, architecture, relaxation)

    return relax


def _keep_weights(module: nn.Module) -> None:
    """Makes a torch layer of NNI's, without any choice, the torch layer that it is: NNI would freeze it with fresh weights."""
    if isinstance(module, ParametrizedModule) and module._bound_type is not None:
        module.__class__ = module._bound_type
