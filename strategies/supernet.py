"""The relaxed modules that replace NNI's mutables, and the mutation hook of the differentiable strategies that inserts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts._nni import InputChoice, LayerChoice, recursive_freeze
from nni_darts.strategies.architecture import Architecture, InputDecision, OperationDecision, Topology
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.base import weighted_sum
from nni_darts.strategies.relaxations.subsets import slot_weights, subset_weights, subsets
from nni_darts.strategies.relaxed import RelaxedModule

__all__ = ['MixedInputs', 'MixedOperation', 'RelaxedChoice', 'SummedInputs', 'mutation_hook']


class RelaxedChoice(RelaxedModule):
    """Base class of the modules that replace ``LayerChoice`` and ``InputChoice``."""

    def __init__(self, choice: LayerChoice | InputChoice, architecture: Architecture) -> None:
        super().__init__()
        self.label = str(choice.label)  # NNI's label is an object, which a checkpoint could not store
        self._original = Reference(choice)  # neither its modules nor its mutable belong to this module
        self._architecture = Reference(architecture)  # α is not a parameter of the supernet

    @property
    def architecture(self) -> Architecture:
        """The α of the whole supernet."""
        return self._architecture.value

    @property
    def labels(self) -> list[str]:
        """The labels on which this module depends: one."""
        return [self.label]

    def check_contains(self, sample: dict[str, Any]) -> Any:
        """Validates a sample as NNI does."""
        return self._original.value.choice.check_contains(sample)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns NNI's module of the chosen inputs."""
        return self._original.value.freeze(sample)

    def extra_repr(self) -> str:
        return f'label={self.label!r}'


class MixedOperation(RelaxedChoice):
    """A relaxed ``LayerChoice``, which weights the candidates' outputs by the relaxation. Parameters keep their names."""

    def __init__(self, choice: LayerChoice, architecture: Architecture, relaxation: Relaxation, group: str = '') -> None:
        super().__init__(choice, architecture)
        self.names = list(choice.names)
        self.relaxation = relaxation
        for name in self.names:
            self.add_module(str(name), relaxation.candidate(choice[name], str(name)))
        found = {str(name): getattr(self, str(name)) for name in self.names}
        self.auxiliary_output = relaxation.auxiliary(self.label, found)
        # In a dict, which does not register modules. If the relaxation searches other modules, the choice's own module is frozen (with new
        # weights if the searched modules are smaller).
        self._replaced = {name: choice[name] for name in self.names if getattr(self, str(name)) is not choice[name]}
        architecture.declare(self.label, OperationDecision(tuple(self.names), group))

    def candidates(self) -> list[nn.Module]:
        """Returns the candidate modules, in the order of ``names``, and the relaxation's auxiliary module, if there is one."""
        modules = [getattr(self, str(name)) for name in self.names]
        return modules if self.auxiliary_output is None else [*modules, self.auxiliary_output]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the mixed output. Arguments and result are those of the candidates."""
        if self.architecture.view.is_cut(self.label):
            return args[0].new_zeros(())  # no module reads it
        return self.relaxation.around(self._compute, args, kwargs)

    def _compute(self, *args: Any, **kwargs: Any) -> Tensor:
        view, candidates = self.architecture.view, self.candidates()
        decided = view.operation(self.label)
        if decided is not None:
            return candidates[decided](*args, **kwargs)
        alpha = self.architecture.alpha(self.label)
        return self.relaxation.mix(self.label, alpha, candidates, args, kwargs, view.mask_of(self.label))

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns the chosen candidate with its present weights, unless the relaxation searched a smaller module in its place."""
        chosen = self._original.value.choice.freeze(sample)
        return recursive_freeze(self._replaced.get(chosen, getattr(self, str(chosen))), sample)[0]


class SummedInputs(RelaxedChoice):
    """A relaxed ``InputChoice`` whose inputs are edges. All edges are summed; the strengths of their operations decide which are kept.

    It has no α unless edges are ``weighted``. The weight of an edge is part of its operations' probabilities, which include ``none``.
    The weights of PC-DARTS, softmax(β) over all inputs, do not change when an input is left out.
    """

    def __init__(
        self, choice: InputChoice, architecture: Architecture, edges: Sequence[str], group: str = '', *, weighted: bool = False
    ) -> None:
        super().__init__(choice, architecture)
        if len(edges) != choice.n_candidates or choice.reduction != 'sum' or not choice.n_chosen:
            raise ValueError(
                f'the topology of {self.label!r} needs one edge for each of its {choice.n_candidates} inputs, reduction sum and a fixed '
                f'n_chosen; it has {len(edges)} edges, reduction {choice.reduction} and n_chosen {choice.n_chosen}'
            )
        architecture.declare(self.label, InputDecision(choice.n_candidates, choice.n_chosen, tuple(edges), group, weighted))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns the sum of the remaining inputs, which have the same shape."""
        left = self.architecture.view.inputs(self.label)
        terms = [inputs[index] for index in left]
        if self.architecture.decisions[self.label].weighted:  # type: ignore[union-attr]
            weights = self.architecture.edge_weights(self.label).unbind()
            return weighted_sum([weights[index] for index in left], terms)
        return sum(terms[1:], terms[0])


class MixedInputs(RelaxedChoice):
    """A relaxed ``InputChoice`` with its own α, whose output is the expectation of the frozen choice's output.

    The possible subsets have the probability P(S) ∝ exp(Σ_{i ∈ S} α_i). If all inputs of a choice of two are ones, the output is twos
    with ``sum``, ones with ``mean`` and two blocks of ones with ``concat``, exactly as for the frozen choice.

    Raises:
        ValueError: if the number of outputs depends on the choice, or there are too many subsets to sum over.
    """

    def __init__(self, choice: InputChoice, architecture: Architecture) -> None:
        super().__init__(choice, architecture)
        self.chosen = choice.n_chosen
        self.reduction = choice.reduction
        if self.chosen is None and self.reduction in ('concat', 'none'):
            raise ValueError(f'InputChoice {self.label!r} with reduction {self.reduction} needs a fixed n_chosen to be relaxed')
        subsets(choice.n_candidates, self.chosen)
        architecture.declare(self.label, InputDecision(choice.n_candidates, self.chosen))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Returns the expected output, in the shape of the frozen choice's output. All inputs have the same shape."""
        left = self.architecture.view.inputs(self.label)
        inputs = [inputs[index] for index in left]
        if self.architecture.view.path is None and len({tuple(entry.shape) for entry in inputs}) > 1:
            shapes = ', '.join(str(tuple(entry.shape[1:])) for entry in inputs)
            raise ValueError(
                f'the inputs of InputChoice {self.label!r} have different shapes ({shapes}), so they cannot be mixed; give them one shape, '
                'or use enas or random-ws, which sample paths, random or evolution'
            )
        if self.architecture.view.path is not None:
            return self._reduce(inputs)
        alpha = self.architecture.logits(self.label)[left]
        if self.reduction in ('sum', 'mean'):
            return weighted_sum(subset_weights(alpha, self.chosen, mean=self.reduction == 'mean'), inputs)
        slots = [weighted_sum(weights, inputs) for weights in slot_weights(alpha, self.chosen)]
        return self._reduce(slots)

    def _reduce(self, chosen: list[Tensor]) -> Tensor | list[Tensor]:
        """Returns the output of the frozen choice for its inputs."""
        if self.reduction == 'none':
            return chosen
        if self.reduction == 'concat':
            return torch.cat(chosen, dim=1)
        total = sum(chosen[1:], chosen[0])
        return total / len(chosen) if self.reduction == 'mean' else total


def mutation_hook(architecture: Architecture, relaxation: Relaxation, topology: Topology) -> Any:
    """Returns NNI's mutation hook that relaxes LayerChoice and InputChoice; ``topology`` is the result of :func:`edge_topology`."""

    def relax(module: nn.Module, name: str, memo: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module | None:
        if isinstance(module, LayerChoice):
            return MixedOperation(module, architecture, relaxation, topology.groups.get(module.label, ''))
        if isinstance(module, InputChoice):
            if str(module.label) in topology.edges:
                edges, group = topology.edges[module.label], topology.groups[module.label]
                return SummedInputs(module, architecture, edges, group, weighted=relaxation.weighted_edges)
            return MixedInputs(module, architecture)
        return None

    return relax
