"""A user's own NNI ``ModelSpace``, and the networks of its samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts._lazy import in_user_code, named, source_file
from nni_darts._nni import Cell, ModelSpace, MutableSymbol, ParametrizedModule, Repeat, model_context
from nni_darts.errors import InputError
from nni_darts.genotypes.sample import SampleGenotype

__all__ = ['check_own_space', 'own_network', 'own_space']


def own_space(path: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> ModelSpace:
    """Builds a user's model space, a map from images (B, in_channels, H, W) to logits (B, num_classes).

    Args:
        path: ``package.module:Class`` of a ``ModelSpace``.
        settings: keyword arguments of its constructor.
        facts: ``num_classes``, ``in_channels`` and ``image_size`` (height, width) of the data. The constructor receives each value for
            which it has a parameter that is not among the settings; ``num_labels`` and ``img_size`` are the names in NNI's hub.

    Raises:
        InputError: if there is no such class, it is not a ``ModelSpace``, it has no such setting, or its constructor fails.
    """
    kind = named(path, 'space')
    if not (isinstance(kind, type) and issubclass(kind, ModelSpace)):
        raise InputError(f'space {path!r} is not a ModelSpace: it must be a class that derives from nni.nas.nn.pytorch.ModelSpace')
    parameters = list(inspect.signature(_constructor(kind)).parameters.values())[1:]
    named_parameters = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(named_parameters) == len(parameters):
        for name in settings:
            if name not in named_parameters:
                raise InputError(f'space.settings: {path} has no setting {name!r}; it has {", ".join(named_parameters) or "none"}')
    known = {name: value for name, value in _with_names_of_the_hub(facts).items() if name in named_parameters}
    with in_user_code(path, 'space', source_file(kind)):
        return _built(lambda: kind(**{**known, **settings}))


def _with_names_of_the_hub(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the names that spaces of NNI's hub have for facts about the data: ``num_labels``, and ``img_size`` of square images."""
    named_there = {'num_labels': facts['num_classes']} if 'num_classes' in facts else {}
    if 'image_size' in facts and len(set(facts['image_size'])) == 1:
        named_there['img_size'] = facts['image_size'][0]
    return {**named_there, **facts}


def _constructor(kind: type[ModelSpace]) -> Callable[..., Any]:
    """Returns the constructor as its author wrote it: NNI puts another one in its place, also in each class that inherits it."""
    for parent in kind.__mro__:
        written = vars(parent).get('_init_wrapped')
        if written is not None and written.__name__ == '__init__':
            return written
    return kind.__init__


def check_own_space(path: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Checks a space: builds it and one of its networks on torch's meta device, and runs the network on two empty images.

    Arguments as for :func:`own_space`.

    Raises:
        InputError: as for :func:`own_space`; also if the space has no choices, or the network fails or does not return logits
            (2, num_classes).
    """
    with torch.device('meta'), torch.no_grad():
        space = own_space(path, settings, facts)
        if not space.simplify():
            raise InputError(f'space {path!r} has no choices: it must contain mutables of NNI, such as LayerChoice')
        for label, mutable in space.simplify().items():
            if not isinstance(mutable, MutableSymbol):
                raise InputError(
                    f'space {path!r}: {str(label)!r} is a {type(mutable).__name__}, which is no choice of a value or of inputs; a genotype '
                    'cannot hold it, so no strategy of this package searches this space'
                )
        images = torch.empty(2, facts['in_channels'], *facts['image_size'])
        with in_user_code(path, 'space', source_file(type(space))):
            answers = _built(space.default)(images)
    given = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
    if given != (2, facts['num_classes']):
        raise InputError(
            f'space {path!r} gives {given} for two images of {tuple(images.shape[1:])}; it must give logits (2, {facts["num_classes"]})'
        )


def _built(make: Callable[[], Any]) -> Any:
    """Returns the module that ``make`` builds on the default device.

    On the meta device a constructor cannot read numbers out of tensors, as AutoFormer's does for the rates of drop-path. Such a module is
    built on the CPU and then moved there.
    """
    try:
        return make()
    except RuntimeError as error:
        if 'meta tensor' not in str(error):
            raise
    with torch.random.fork_rng(devices=[]), torch.device('cpu'):
        module = make()
    return module.to('meta')


def own_network(genotype: SampleGenotype, path: str = '', settings: Mapping[str, Any] | None = None, **facts: Any) -> nn.Module:
    """Builds the network of a sample, which is the frozen space, with newly initialised weights.

    Args:
        genotype: the sample.
        path: ``package.module:Class`` of the space; empty for the path in the genotype.
        settings: keyword arguments of the constructor. Settings that differ from the search build a network of another size.
        facts: as for :func:`own_space`.

    Raises:
        InputError: as for :func:`own_space`; also if the choices of the space differ from the genotype's.
    """
    path = path or genotype.space
    space = own_space(path, settings or {}, facts)
    labels, sample = set(map(str, space.simplify())), genotype.sample
    for found, others, what in ((labels, set(sample), 'no value for'), (set(sample), labels, 'a value for the unknown choice')):
        if found - others:
            raise InputError(f'the architecture has {what} {sorted(found - others)[0]!r} of {path} with these settings')
    with in_user_code(path, 'space', source_file(type(space))):
        if not any(isinstance(module, (Cell, ParametrizedModule, Repeat)) for module in space.modules()):
            return space.freeze(sample)
        # Frozen, NNI's layers would lose what the space's constructor set after it made them, such as the epsilon of batch norms.
        with model_context(sample):
            return _built(lambda: type(space)(*space.trace_args, **space.trace_kwargs))
