"""A user's own NNI ``ModelSpace``, and the networks of its samples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts._lazy import in_user_code, named, source_file
from nni_darts._nni import (
    Categorical,
    CategoricalMultiple,
    Cell,
    LayerChoice,
    ModelSpace,
    MutableSymbol,
    ParametrizedModule,
    Repeat,
    model_context,
)
from nni_darts.errors import InputError, did_you_mean
from nni_darts.genotypes.sample import SampleGenotype

__all__ = ['built', 'check_own_space', 'check_shared_inputs', 'drawn_space', 'own_network', 'own_space']

_MOST_SAMPLES = 64
"""Largest number of networks that a check builds."""

_FACTS = ('num_classes', 'in_channels', 'image_size', 'num_labels', 'img_size')

_SHOWN = 80
"""Largest number of characters of the settings in a message."""

_passed: set[tuple[Any, str]] = set()
"""(class, its arguments as text) of each space that has passed the check, since every strategy of an experiment asks for it."""

_drawn: dict[tuple[Any, str], ModelSpace] = {}
"""(class, its arguments as text) → the space from which cells are drawn, since a strategy may draw many."""


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
    known = _arguments(path, _parameters(kind), settings, facts)
    with in_user_code(f'{path}{_with(settings)}', 'space', source_file(kind)):
        return built(lambda: kind(**known))


def drawn_space(path: str, settings: Mapping[str, Any], facts: Callable[[], Mapping[str, Any]]) -> ModelSpace:
    """Builds a user's model space on torch's meta device, which is enough to draw from its choices.

    Args:
        path: as for :func:`own_space`.
        settings: as for :func:`own_space`.
        facts: returns the values of the data. It is called only if the constructor has a parameter for one of them. An InputError counts as
            no values, because the data may lie on another machine.

    Raises:
        InputError: as for :func:`own_space`.
    """
    kind, known = named(path, 'space'), {}
    if isinstance(kind, type) and any(parameter.name in _FACTS and parameter.name not in settings for parameter in _parameters(kind)):
        with suppress(InputError):
            known = dict(facts())
    key = kind, repr((settings, known))
    if key not in _drawn:
        with torch.device('meta'):
            _drawn[key] = own_space(path, settings, known)
    return _drawn[key]


def _parameters(kind: type[ModelSpace]) -> list[inspect.Parameter]:
    """Returns the parameters of a constructor, without ``self``."""
    return list(inspect.signature(_constructor(kind)).parameters.values())[1:]


def _arguments(path: str, parameters: Sequence[inspect.Parameter], settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments of a constructor. Raises InputError for an unknown setting, or a parameter without a value."""
    kinds = inspect.Parameter
    names = [parameter.name for parameter in parameters if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    if all(parameter.kind is not kinds.VAR_KEYWORD for parameter in parameters):
        for name in settings:
            if name not in names:
                raise InputError(f'space {path} has no setting {name!r}{did_you_mean(name, names)}; it has {", ".join(names) or "none"}')
    arguments = {**{name: value for name, value in _with_names_of_the_hub(facts).items() if name in names}, **settings}
    for parameter in parameters:
        if parameter.default is kinds.empty and parameter.kind is kinds.POSITIONAL_ONLY:
            raise InputError(f'space {path} must take its parameter {parameter.name} by name, because settings have names')
        if parameter.default is kinds.empty and parameter.name in names and parameter.name not in arguments:
            raise InputError(f'space {path} needs a value for its parameter {parameter.name}: set space.settings.{parameter.name}')
    return arguments


def _with(settings: Mapping[str, Any]) -> str:
    """Returns a phrase with the settings for a message; '' without settings."""
    text = ', '.join(f'{name}={value!r}' for name, value in settings.items())
    return f' with {text[:_SHOWN]}{"…" if len(text) > _SHOWN else ""}' if text else ''


def built(build: Callable[[], Any]) -> Any:
    """Builds a user's module on the current device, or if that is torch's meta device and the code reads numbers, on the CPU.

    Constructors such as ``[rate.item() for rate in torch.linspace(0, 0.1, depth)]`` need numbers, which the meta device does not have.

    Args:
        build: function that builds the module.

    Returns:
        The module, on the meta device in either case.
    """
    try:
        return build()
    except (RuntimeError, NotImplementedError) as error:
        if torch.get_default_device().type != 'meta' or 'meta' not in str(error):
            raise
    with torch.random.fork_rng(devices=[]), torch.device('cpu'):
        module = build()
    return module.to('meta') if isinstance(module, nn.Module) else module


def _with_names_of_the_hub(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the names that spaces of NNI's hub have for facts about the data: ``num_labels``, and ``img_size`` of square images."""
    named_there = {'num_labels': facts['num_classes']} if 'num_classes' in facts else {}
    if 'image_size' in facts and len(set(facts['image_size'])) == 1:
        named_there['img_size'] = facts['image_size'][0]
    return {**named_there, **facts}


def _constructor(kind: type[ModelSpace]) -> Callable[..., Any]:
    """Returns the constructor as its author wrote it, because NNI replaces it in the class and in all classes that inherit it."""
    for parent in kind.__mro__:
        written = vars(parent).get('_init_wrapped')
        if written is not None and written.__name__ == '__init__':
            return written
    return kind.__init__


def check_own_space(path: str, settings: Mapping[str, Any], facts: Mapping[str, Any], trained: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks a space: builds networks with all candidates of its choices on torch's meta device, and runs each on two empty images.

    Args:
        path: as for :func:`own_space`.
        settings: as for :func:`own_space`.
        facts: as for :func:`own_space`.
        trained: key of a recipe, such as ``retrain.space`` → settings that replace some of ``settings`` in the networks that are trained.

    Raises:
        InputError: as for :func:`own_space`; also if the space has no choices, its choices change with the replaced settings, or a network
            fails or does not return logits (2, num_classes).
    """
    key = named(path, 'space'), repr((settings, facts, trained))
    if key in _passed:
        return
    with torch.device('meta'), torch.no_grad():
        space = own_space(path, settings, facts)
        choices = _choices(space, path)
        if not choices:
            raise InputError(f'space {path!r} has no choices: it must contain mutables of NNI, such as LayerChoice')
        for label, mutable in choices.items():
            if not isinstance(mutable, MutableSymbol):
                raise InputError(
                    f'space {path!r}: {str(label)!r} is a {type(mutable).__name__}, which is no choice of a value or of inputs; a genotype '
                    'cannot hold it, so no strategy of this package searches this space'
                )
        _check_networks(path, space, settings, facts)
        for section, changes in trained.items():
            try:
                other = own_space(path, {**settings, **changes}, facts)
                _check_networks(path, other, {**settings, **changes}, facts)
            except InputError as error:
                raise InputError(f'{section}: {error}') from None
            _check_same(choices, _choices(other, path), path, section)
    _passed.add(key)


def check_shared_inputs(path: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Checks that no candidate changes its input in place, because in a supernet all candidates of a choice read the same input.

    The next candidate would silently compute with other numbers. Arguments as for :func:`check_own_space`, which must have passed.

    Raises:
        InputError: for a candidate that changes its input.
    """
    changed: list[str] = []
    versions: list[int] = []

    def before(module: nn.Module, args: Any) -> None:
        versions.append(_versions(args))

    def after(candidate: str, module: nn.Module, args: Any, output: Any) -> None:
        if _versions(args) != versions.pop():
            changed.append(candidate)

    with torch.device('meta'), torch.no_grad():
        space = own_space(path, settings, facts)
        for choice in space.modules():
            for name in choice.names if isinstance(choice, LayerChoice) and len(choice.names) > 1 else ():
                choice[name].register_forward_pre_hook(before)
                choice[name].register_forward_hook(partial(after, f'candidate {name!r} of the choice {str(choice.label)!r}'))
        for sample in _samples(space):
            space.freeze(sample)(torch.empty(2, facts['in_channels'], *facts['image_size']))
    if changed:
        raise InputError(
            f'{changed[0]} of {path} changes its input in place, which the other candidates in a supernet read, too; use inplace=False'
        )


def _versions(args: Sequence[Any]) -> int:
    """Returns how often the tensors among the arguments of a module have been changed in place."""
    return sum(arg._version for arg in args if isinstance(arg, Tensor))


def _choices(space: ModelSpace, path: str) -> dict[str, Any]:
    """Returns label → mutable.

    Raises:
        InputError: if two different choices have the same label, or a module is None, which NNI cannot read.
    """
    for module in space.modules():
        for name, child in module._modules.items():
            if child is None:
                where = f'candidate {name!r} of the choice {str(module.label)!r}' if isinstance(module, LayerChoice) else f'module {name!r}'
                raise InputError(f'{where} of {path} is None; use a module, such as torch.nn.Identity()')
    try:
        return space.simplify()
    except ValueError as error:
        label = re.search(r'the same label (.+) but', str(error))
        raise InputError(
            f'space {path!r} has two choices with the label {label[1] if label else "?"!r} but different candidates; choices with the same '
            'label are one choice, so give them the same candidates or another label'
        ) from None


def _check_same(choices: Mapping[str, Any], others: Mapping[str, Any], path: str, key: str) -> None:
    """Raises InputError if the choices of a space change with the settings under a key of the recipe."""
    for label in [*choices, *(label for label in others if label not in choices)]:
        if label not in choices or label not in others or not choices[label].equals(others[label]):
            raise InputError(
                f'{key} changes the choice {label!r} of {path}; the choices of the networks that are trained must stay the same'
            )


def _check_networks(path: str, space: ModelSpace, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raises InputError unless networks with all candidates return logits (2, num_classes)."""
    for number, sample in enumerate(_samples(space)):
        where = f'{path}{_with(settings)} on images of {"×".join(map(str, (facts["in_channels"], *facts["image_size"])))}'
        where += f' and candidate {number + 1} of each choice' if number else ''
        with in_user_code(where, 'space', source_file(type(space))):
            answers = _network(space, sample)(torch.empty(2, facts['in_channels'], *facts['image_size']))
        given = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        wanted = (2, facts['num_classes'])
        if given != wanted:
            raise InputError(f'space {where} returns {given} for two images; it must return logits {wanted}')
        if not answers.is_floating_point():
            raise InputError(f'space {where} returns numbers of {answers.dtype}; logits must be of a floating-point type')


def _samples(space: ModelSpace) -> Iterator[dict[str, Any]]:
    """Yields the default sample, and samples with the second, third, … candidate of each choice that has as many."""
    choices = space.simplify()
    longest = max([1, *(len(mutable.values) for mutable in choices.values() if isinstance(mutable, (Categorical, CategoricalMultiple)))])
    for number in range(min(longest, _MOST_SAMPLES)):
        sample = {label: _candidate(mutable, number) for label, mutable in choices.items()}
        if not number or space.contains(sample):  # there may be constraints
            yield sample


def _candidate(mutable: Any, number: int) -> Any:
    if isinstance(mutable, CategoricalMultiple):
        count = mutable.n_chosen or (1 if number else len(mutable.values))
        return [mutable.values[index] for index in sorted((number + offset) % len(mutable.values) for offset in range(count))]
    if isinstance(mutable, Categorical):
        return mutable.values[min(number, len(mutable.values) - 1)]
    return mutable.default({})


def _network(space: ModelSpace, sample: Mapping[str, Any]) -> nn.Module:
    """Returns the network of a sample, with newly initialised weights."""
    if not any(isinstance(module, (Cell, ParametrizedModule, Repeat)) for module in space.modules()):
        return space.freeze(sample)
    # Frozen, NNI's layers would lose what the space's constructor set after it made them, such as the epsilon of batch norms.
    with model_context(sample):
        return built(lambda: type(space)(*space.trace_args, **space.trace_kwargs))


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
    mutables, sample = {str(label): mutable for label, mutable in space.simplify().items()}, genotype.sample
    for found, others, what in ((mutables, sample, 'no value for'), (sample, mutables, 'a value for the unknown choice')):
        if set(found) - set(others):
            raise InputError(f'the architecture has {what} {sorted(set(found) - set(others))[0]!r} of {path} with these settings')
    for label, mutable in mutables.items():
        if not mutable.contains({mutable.label: sample[label]}):
            allowed = f'; it has {", ".join(map(str, mutable.values))}' if hasattr(mutable, 'values') else ''
            raise InputError(f'the architecture has {sample[label]!r} for the choice {label!r} of {path}, which has no such value{allowed}')
    with in_user_code(path, 'space', source_file(type(space))):
        return _network(space, sample)
