"""The base class of modules whose arguments are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture, OperationDecision
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxed import RelaxedModule

__all__ = ['RelaxedValues', 'below', 'filled', 'pad_to', 'shared_attributes']


class RelaxedValues(RelaxedModule):
    """Base class of modules whose arguments are expressions of labels; one module holds the weights of all settings.

    Each label is a decision among its values, like that among the operations of a ``LayerChoice``. There are two ways to compute:

    - On a sampled path, the module is that of the path's setting: weights are slices, and features have the size of the frozen model's.
    - Otherwise features have the largest size, and those beyond a setting's own size are zero. The output is the expectation over the
      settings, of which each is weighted by the relaxation: ``Σ_s w_s · pad(f_s(x))``, where f_s reads the first features of x that
      its setting has. With one-hot weights this is what the frozen model computes, followed by zeros.
    """

    def __init__(self, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__()
        self.settings = settings
        self.where = where
        self.relaxation = relaxation
        self._architecture = Reference(architecture)  # α is no parameter of the supernet
        for label, candidates in settings.labels.items():
            architecture.declare(label, OperationDecision(candidates))

    @property
    def architecture(self) -> Architecture:
        """The α of the whole supernet."""
        return self._architecture.value

    @property
    def labels(self) -> list[str]:
        """The labels on which this module depends."""
        return list(self.settings.labels)

    def path_setting(self) -> int | None:
        """Returns the setting of the path that is computed, or None if no path was sampled."""
        view = self.architecture.view
        return None if view.path is None else self.settings.index([view.path[label][0] for label in self.labels])

    def setting_weights(self, like: Tensor) -> Tensor:
        """Returns the weight of each setting in this forward pass: (settings,), of the type and on the device of ``like``."""
        factors = [label_weights(self.architecture, self.relaxation, label, self) for label in self.labels]
        return self.settings.weights(factors).to(like)

    def refuse_to_mix(self, reason: str) -> None:
        """Raises ValueError unless paths are sampled, of which each computes only one setting."""
        if not self.relaxation.sampled:
            raise ValueError(
                f'{self.where}: {reason}, so their outputs cannot be mixed; enas and random-ws, which sample paths, can search it, and so '
                'can random and evolution'
            )

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns the module of a sample, with the weights that it has here."""
        return self.frozen(self.settings.index_of(sample))

    def frozen(self, setting: int) -> nn.Module:
        """Returns the module of a setting, with the weights that it has here."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f'labels={self.labels}'


def label_weights(architecture: Architecture, relaxation: Relaxation, label: str, place: nn.Module) -> Tensor:
    """Returns the weights of the values of a label in this forward pass, (candidates,): one-hot once it is decided."""
    view, alpha = architecture.view, architecture.alpha(label)
    decided = view.operation(label)
    if decided is not None:
        return functional.one_hot(torch.tensor(decided, device=alpha.device), alpha.numel()).to(alpha)
    return relaxation.value_weights(label, alpha, id(place), view.mask_of(label))


def below(sizes: Sequence[int], largest: int, like: Tensor) -> Tensor:
    """Returns, for each size, which of ``largest`` features there are: (sizes, largest), zeros and ones."""
    return (torch.arange(largest, device=like.device) < torch.tensor(sizes, device=like.device)[:, None]).to(like)


def filled(module: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Copies a weight and a bias into a layer, and returns the layer."""
    module.to(weight)
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module


def pad_to(x: Tensor, size: int, dim: int) -> Tensor:
    """Appends zeros along a dimension until it has ``size`` entries."""
    missing = size - x.shape[dim]
    return x if not missing else functional.pad(x, [0, 0] * (x.dim() - 1 - dim % x.dim()) + [0, missing])


def shared_attributes(source: nn.Module, target: nn.Module, names: Sequence[str]) -> None:
    """Copies attributes that a space may have set after it constructed a module, such as the momentum of a batch norm."""
    for name in names:
        setattr(target, name, getattr(source, name))
    target.train(source.training)
