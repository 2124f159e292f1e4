"""Modules without a super-kernel whose arguments are searched: one module for each setting, or parameters that are cut to size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nni_darts._nni import ParametrizedModule, model_context
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.base import weighted_sum

__all__ = ['MixedModule', 'MixedParameters', 'is_linear_in_parameters']

_LINEAR_IN_PARAMETERS = {
    ('nni.nas.hub.pytorch.autoformer', 'ClassToken'),
    ('nni.nas.hub.pytorch.autoformer', 'AbsolutePositionEmbedding'),
}


def is_linear_in_parameters(module: ParametrizedModule) -> bool:
    """Returns whether a module's output is an affine function of its parameters, so that their expectation gives the output's.

    A user's own ``ParametrizedModule`` says so with a class attribute ``linear_in_parameters = True``.
    """
    kind = type(module)
    return bool(getattr(kind, 'linear_in_parameters', False)) or (kind.__module__, kind.__name__) in _LINEAR_IN_PARAMETERS


class MixedModule(RelaxedValues):
    """One module for each setting, with parameters of its own; the expectation of their outputs.

    Raises:
        ValueError: if the settings' parameters differ in shape and the relaxation does not sample paths, since then their outputs may
            differ in shape, too; if the module has choices inside that its arguments do not name.
    """

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        inside = set(map(str, module.simplify())) - set(settings.labels)
        if inside:
            raise ValueError(
                f'{where}: a module whose arguments are choices cannot contain another choice, {sorted(inside)[0]!r}; put that choice '
                'outside'
            )
        tensor = next(module.parameters(), None)
        modules = [module.freeze(settings.sample_of(number)) for number in range(len(settings))]
        self.modules_of_settings = nn.ModuleList(modules if tensor is None else [each.to(tensor) for each in modules])
        shapes = [[parameter.shape for parameter in each.parameters()] for each in modules]
        if any(other != shapes[0] for other in shapes[1:]):
            self.refuse_to_mix('the parameters of its settings have different shapes')
        self.train(module.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Arguments and result as those of the module."""
        setting = self.path_setting()
        if setting is not None:
            return self.modules_of_settings[setting](*args, **kwargs)
        outputs = [module(*args, **kwargs) for module in self.modules_of_settings]
        if any(output.shape != outputs[0].shape for output in outputs):
            shapes = ', '.join(str(tuple(output.shape)) for output in outputs)
            raise ValueError(
                f'{self.where}: its settings give outputs of different shapes ({shapes}), which cannot be mixed; enas and random-ws, which '
                'sample paths, can search it, and so can random and evolution'
            )
        return weighted_sum(self.setting_weights(outputs[0]), outputs)

    def frozen(self, setting: int) -> nn.Module:
        """Returns the module of a setting."""
        return self.modules_of_settings[setting]


class MixedParameters(RelaxedValues):
    """A module whose output is an affine function of its parameters, of which a setting has the first entries in each dimension."""

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        modules = [module.freeze(settings.sample_of(number)) for number in range(len(settings))]
        self.shapes = [{name: tuple(parameter.shape) for name, parameter in each.named_parameters()} for each in modules]
        self.module = max(modules, key=lambda each: sum(parameter.numel() for parameter in each.parameters()))
        for name, parameter in self.module.named_parameters():
            if any(size > most for shapes in self.shapes for size, most in zip(shapes[name], parameter.shape)):
                raise ValueError(f'{where}: no setting has all of the parameter {name!r}, so settings cannot share it')
        self.module.to(next(module.parameters()))
        self.train(module.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Arguments and result as those of the module."""
        return functional_call(self.module, self._expected(), args, kwargs)

    def _expected(self) -> dict[str, Tensor]:
        setting = self.path_setting()
        parameters = dict(self.module.named_parameters())
        if setting is not None:
            return {name: parameter[_corner(self.shapes[setting][name])] for name, parameter in parameters.items()}
        weights = self.setting_weights(next(self.module.parameters()))
        expected = {}
        for name, parameter in parameters.items():
            factor = torch.zeros_like(parameter)
            for number, shapes in enumerate(self.shapes):
                part = torch.zeros_like(parameter)
                part[_corner(shapes[name])] = 1.0
                factor = factor + weights[number] * part
            expected[name] = factor * parameter
        return expected

    def frozen(self, setting: int) -> nn.Module:
        """Returns a copy of the module in which parameters have a setting's size."""
        frozen = self._fresh(setting)
        with torch.no_grad():
            for (name, own), parameter in zip(self.module.named_parameters(), frozen.parameters()):
                parameter.copy_(own[_corner(self.shapes[setting][name])])
        return frozen.train(self.training)

    def _fresh(self, setting: int) -> nn.Module:
        module: Any = self.module
        arguments = self.settings.arguments[setting]
        with model_context(self.settings.sample_of(setting)):
            return type(module)(**arguments).to(next(module.parameters()))


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)
