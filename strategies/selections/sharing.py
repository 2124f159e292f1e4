"""Computes the common part of one decision's candidates only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.architecture import Architecture, InputDecision
from nni_darts.strategies.mutables import RelaxedValues
from nni_darts.strategies.supernet import MixedOperation, RelaxedChoice

__all__ = ['SharedResults']


class SharedResults:
    """Within the block, a module that is given the same tensors again, and does not hold the choice being scored, is not run again.

    So of a supernet that is evaluated without one candidate after the other, the part before the first changed cell is computed once
    for each batch, and so are in that cell the edges that do not read a changed node, the candidates of the changed edge, and the edges
    in the next cell that read what lies before. It works for any model: what is the same follows from the identity of the tensors that
    go from module to module. Results are those of a full pass, bit for bit.

    Within one pass, too, edges that are not decided share what their candidates compute alike of one state: its ReLU, its pools, and
    those pools' batch norms where they have no scale and take the batch's statistics.

    A module is run every time if it holds the choice (its parts may still be shared), draws random numbers, or gets anything but
    tensors that are known to be the same. Buffers that a module would update (the running statistics of batch norm) stay as the first
    run leaves them.

    Args:
        model: the supernet; no gradients may be needed within the block.
        architecture: its decisions.
        labels: the choice that is scored, or all those of which a candidate is left out.
    """

    def __init__(self, model: nn.Module, architecture: Architecture, *labels: str) -> None:
        self._model = model
        changed = set(labels)
        for label in labels:
            decision = architecture.decisions[label]
            changed |= set(decision.edges or ()) if isinstance(decision, InputDecision) else set()
        self._always = {module for module in model.modules() if _holds(module, changed)}
        self._devices = {parameter.device for parameter in model.parameters()}
        self._results: dict[tuple[Any, ...], tuple[Any, list[tuple[Tensor, int]]]] = {}
        self._known: dict[int, tuple[Tensor, int]] = {}
        self._alike = dict(_alike(model, architecture))
        self._pass: dict[tuple[Any, ...], tuple[Tensor, int, Tensor, int]] = {}
        self._inside = False
        self._patched: list[nn.Module] = []

    def __enter__(self) -> SharedResults:
        for module in self._model.modules():
            if 'forward' not in vars(module) and not isinstance(module, torch.jit.ScriptModule):
                module.forward = partial(self._run, module, module.forward)
                self._patched.append(module)
        return self

    def __exit__(self, *exception: object) -> None:
        for module in self._patched:
            del module.forward
        self.begin(None)

    def begin(self, batch: Any) -> None:
        """Forgets all results; the tensors of this batch are the same for all candidates."""
        self._results.clear()
        self._known.clear()
        self._know(leaf for leaf in _leaves(batch) if isinstance(leaf, Tensor))
        self.begin_pass()

    def begin_pass(self) -> None:
        """Another candidate is left out now."""
        self._pass.clear()

    def _know(self, tensors: Iterable[Tensor]) -> None:
        # Kept, so that no other tensor can get its id; its version tells whether it was written to since.
        self._known |= {id(tensor): (tensor, tensor._version) for tensor in tensors}

    def _is_known(self, value: Any) -> bool:
        return id(value) in self._known and self._known[id(value)][1] == value._version

    def _run(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if module in self._always:
            return forward(*args, **kwargs)
        if self._inside:
            return self._run_in_pass(module, forward, *args, **kwargs)
        given = [args, kwargs]
        if not all(map(self._is_known, _leaves(given))):
            return self._run_in_pass(module, forward, *args, **kwargs)
        key = (module, _shape(given))
        if key in self._results:
            result, versions = self._results[key]
            if all(tensor._version == version for tensor, version in versions):
                return result
        before = RandomState(self._devices)
        self._inside = True
        try:
            result = forward(*args, **kwargs)
        finally:
            self._inside = False
        if not before.is_current():
            self._always.add(module)
            return result
        leaves = list(_leaves(result))
        if all(isinstance(leaf, Tensor) for leaf in leaves):
            self._results[key] = result, [(tensor, tensor._version) for tensor in leaves]
            self._know(leaves)
        return result

    def _run_in_pass(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if module not in self._alike or kwargs or len(args) != 1:
            return forward(*args, **kwargs)
        (given,) = args
        key = (self._alike[module], id(given))
        if key in self._pass:
            kept, version, result, result_version = self._pass[key]
            if kept._version == version and result._version == result_version:
                return result
        result = forward(given)
        self._pass[key] = given, given._version, result, result._version  # the input is kept, so that its id stays its own
        return result


def _alike(model: nn.Module, architecture: Architecture) -> Iterator[tuple[nn.Module, Any]]:
    """Modules that have no parameters and compute the same if they are set up the same, with what they are set up with.

    Only those in candidates of choices that are not decided: there every output goes through a multiplication, so that nobody can write
    to what others read.
    """
    for choice in model.modules():
        if isinstance(choice, MixedOperation) and choice.label not in architecture.state.fixed:
            for module in choice.modules():
                if type(module) in (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d):
                    yield module, (type(module), module.extra_repr())
                elif isinstance(module, nn.BatchNorm2d) and not module.affine and module.training:
                    if type(module).forward is nn.BatchNorm2d.forward:
                        yield module, (nn.BatchNorm2d, module.eps)


def _holds(module: nn.Module, labels: set[str]) -> bool:
    return any(isinstance(child, (RelaxedChoice, RelaxedValues)) and not labels.isdisjoint(child.labels) for child in module.modules())


def _leaves(value: Any) -> Iterator[Any]:
    """Yields the leaves of nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


def _shape(value: Any) -> Any:
    """A key for nested lists, tuples and dicts of tensors: equal for the same tensors in the same places."""
    if isinstance(value, dict):
        return tuple((key, _shape(entry)) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_shape, value))
    return id(value)
