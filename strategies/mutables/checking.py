"""A check of a supernet before its search: it runs, and certain of one architecture it computes what that architecture computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nni_darts._nni import ModelSpace, recursive_freeze
from nni_darts.strategies.architecture import Architecture, InputDecision

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableStrategy

__all__ = ['check_supernet']


@torch.no_grad()
def check_supernet(strategy: DifferentiableStrategy, space: ModelSpace, inputs: Tensor) -> None:
    """Checks that a strategy can search a space, on inputs (B, …). The space becomes a supernet and is of no use afterwards.

    Raises:
        ValueError: if the supernet fails, or with one-hot weights computes something else than the frozen model of the same weights.
    """
    name = type(space).__name__
    strategy.execution = 'plain'
    model = strategy.mutate_model(space).eval()
    try:
        model(inputs)
    except (IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f'{name} cannot be searched with one supernet: it fails on inputs {tuple(inputs.shape)} ({str(error).splitlines()[0]}); enas '
            'and random-ws, which sample paths, or random and evolution may be able to'
        ) from error
    if any(getattr(module, '_replaced', None) for module in model.modules()):
        return  # candidates that are searched are not those that are frozen: pc-darts searches smaller ones
    for last in (False, True):
        sample = _corner(strategy.architecture, last=last)
        frozen = recursive_freeze(model, sample, include_root=False)[0].eval()
        expected, again = _first(frozen(inputs)), _first(frozen(inputs))
        with _certain(strategy.architecture, sample):
            found = _first(model(inputs))
        if torch.equal(expected, again) and not _close(found, expected):
            raise ValueError(
                f'{name} cannot be searched with one supernet: certain of {sample}, it computes something else than this architecture. '
                'Perhaps features whose number is searched are concatenated, so that those of a narrower width are not the first ones; '
                'enas and random-ws, which sample paths, or random and evolution can search it'
            )


def _corner(architecture: Architecture, *, last: bool) -> dict[str, Any]:
    """Returns the sample of the first, or last, candidates of all labels."""
    sample: dict[str, Any] = {}
    for label, decision in architecture.decisions.items():
        if isinstance(decision, InputDecision):
            chosen = decision.chosen or 1
            sample[label] = list(range(decision.candidates))[-chosen:] if last else list(range(chosen))
        else:
            sample[label] = decision.names[-1 if last else 0]
    return sample


def _certain(architecture: Architecture, sample: dict[str, Any]) -> AbstractContextManager[None]:
    """Makes a supernet certain of a sample: by its path, or by decisions, which stay."""
    operations = {label: decision.names.index(sample[label]) for label, decision in architecture.operations().items()}
    if architecture.view.path is not None:
        path = {label: (index,) for label, index in operations.items()}
        return architecture.viewed(path=path | {label: tuple(sample[label]) for label in architecture.inputs()})
    architecture.state.fixed = operations
    architecture.state.dropped = {
        label: [index for index in range(decision.candidates) if index not in sample[label]]
        for label, decision in architecture.inputs().items()
    }
    return nullcontext()


def _first(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
