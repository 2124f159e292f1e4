"""NNI's ``Cell``: operations that depend on the input they read, and outputs that depend on which nodes are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts._nni import Cell, Mutable, create_cell_op_candidates, preprocess_cell_inputs, recursive_freeze
from nni_darts.strategies.architecture import Architecture, InputDecision, OperationDecision
from nni_darts.strategies.reference import Reference
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.base import weighted_sum
from nni_darts.strategies.relaxed import RelaxedModule

__all__ = ['ChosenCell', 'MixedCell', 'needs_mixed_cell']


def needs_mixed_cell(cell: Cell) -> bool:
    """Returns whether a cell needs more than the relaxations of its LayerChoices and InputChoices."""
    return cell.op_candidates_factory is not None or cell.merge_op != 'all'


def _check_widths(cell: Cell, relaxation: Relaxation) -> None:
    """Raises ValueError for a cell of NNI's NDS spaces whose width is searched, unless paths are sampled."""
    made = cell.op_candidates_factory
    factories = made.values() if isinstance(made, dict) else made if isinstance(made, list) else ()
    if not relaxation.sampled and any(isinstance(value, Mutable) for each in factories for value in getattr(each, 'keywords', {}).values()):
        raise ValueError(
            f'Cell {str(cell.label)!r}: the number of channels of its nodes is searched, and its output puts nodes side by side, so the '
            'channels of a narrower width are not the first ones; choose one width, or use enas or random-ws, which sample paths, random '
            'or evolution'
        )


class _Wired(RelaxedModule):
    """The wiring of a cell: nodes, each the sum of its operators, and the output of all nodes.

    Nodes that are no loose ends are zero in the output, in which every node has its place. So the modules that read the output have one
    shape whichever nodes are loose ends, and compute what modules without these channels compute.
    """

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.predecessors, self.concat_dim, self.merge = cell.num_predecessors, cell.concat_dim, cell.merge_op
        self.preprocessor, self.postprocessor = cell.preprocessor, cell.postprocessor

    def operators(self) -> Sequence[Sequence[Any]]:
        """Returns the operators of each node."""
        raise NotImplementedError

    def loose(self, node: int) -> Tensor | float:
        """Returns the weight of a node in the output, where nodes are numbered from 0 without the predecessors."""
        raise NotImplementedError

    def forward(self, *inputs: Any) -> Any:
        """Arguments and result as those of NNI's cell."""
        given = preprocess_cell_inputs(self.predecessors, *inputs)
        states: list[Tensor] = list(self.preprocessor(given))
        for operators in self.operators():
            outputs = [operator(states) for operator in operators]
            states.append(torch.stack(outputs).sum(0))
        nodes = states[self.predecessors :]
        if self.merge == 'loose_end':
            nodes = [self.loose(number) * node for number, node in enumerate(nodes)]
        return self.postprocessor(torch.cat(nodes, self.concat_dim), given)


class _Operator(nn.Module):
    """One operator of a node: ``Σ_j p_j · ō_j(x_j)``, in which ō_j are the relaxed operations that read input j."""

    def __init__(
        self, choices: tuple[Any, Any], candidates: list[list[nn.Module]], architecture: Architecture, relaxation: Relaxation
    ) -> None:
        super().__init__()
        self.operation, self.input = (str(choice.label) for choice in choices)
        self.names = list(choices[0].names)
        self.relaxation = relaxation
        searched = [[relaxation.candidate(module, str(name)) for name, module in zip(self.names, made)] for made in candidates]
        self.sources: Any = nn.ModuleList(nn.ModuleList(modules) for modules in searched)
        # In a dict, which registers no modules: where something else is searched, the candidate itself is frozen.
        self._replaced: dict[tuple[int, int], nn.Module] = {
            (source, number): module
            for source, operations in enumerate(candidates)
            for number, module in enumerate(operations)
            if searched[source][number] is not module
        }
        self._architecture = Reference(architecture)
        architecture.declare(self.input, InputDecision(len(candidates), 1))
        architecture.declare(self.operation, OperationDecision(tuple(self.names)))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """States (B, C, H, W), of which there may be several sizes → (B, C', H', W')"""
        architecture = self._architecture.value
        left = architecture.view.inputs(self.input)
        outputs = [self._read(source, states[source]) for source in left]
        if len(outputs) == 1:
            return outputs[0]
        shapes = {source: tuple(output.shape[1:]) for source, output in zip(left, outputs)}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f'the operations of {self.operation!r} give outputs of different shapes for the inputs of {self.input!r} ({shapes}), so '
                'they cannot be mixed; make the candidates from functions that get the number of the input'
            )
        return weighted_sum(torch.softmax(architecture.logits(self.input)[left], dim=0).to(outputs[0]), outputs)

    def candidate(self, source: int, number: int) -> nn.Module:
        """Returns an operation on an input to freeze, with fresh weights if something smaller was searched in its place."""
        return self._replaced.get((source, number), self.sources[source][number])

    def _read(self, source: int, x: Tensor) -> Tensor:
        return self.relaxation.around(lambda *args: self._compute(source, *args), (x,), {})

    def _compute(self, source: int, x: Tensor) -> Tensor:
        architecture, candidates = self._architecture.value, list(self.sources[source])
        decided = architecture.view.operation(self.operation)
        if decided is not None:
            return candidates[decided](x)
        mask = architecture.view.mask_of(self.operation)
        return self.relaxation.mix(self.operation, architecture.alpha(self.operation), candidates, (x,), {}, mask)


class _Existing(nn.Module):
    """One operator of a node whose operations do not depend on the input: the relaxed choices of the space, one after the other."""

    def __init__(self, operation: Any, inputs: Any) -> None:
        super().__init__()
        self.input = str(inputs.label)
        self.op, self.inp = operation, inputs  # relaxed in their turn

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """States (B, C, H, W) of one shape → (B, C', H', W')"""
        return self.op(self.inp(states))


class MixedCell(_Wired):
    """A relaxed ``Cell`` whose operations are made for the input they read, or whose output has only the loose ends.

    Every operator of a node chooses one input and one operation, with an α for each label, which are those of NNI's sample. Where a factory
    makes the candidates, each input has candidates of its own, such as strided ones behind the cell's predecessors. A node is in the
    output with the probability that no operator reads it: ``Π (1 − p(input = node))``.
    """

    def __init__(self, cell: Cell, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(cell)
        self._architecture = Reference(architecture)
        _check_widths(cell, relaxation)
        factory, like = cell.op_candidates_factory, next(cell.parameters(), None)
        self.nodes: Any = nn.ModuleList()
        for number, (operations, inputs) in enumerate(zip(cell.ops, cell.inputs)):
            operators: list[nn.Module] = []
            for place, choices in enumerate(zip(operations, inputs)):
                if factory is None:
                    operators.append(_Existing(*choices))
                    continue
                candidates = []
                for source in range(self.predecessors + number):
                    made, _ = create_cell_op_candidates(factory, self.predecessors + number, place, source)
                    candidates.append([module if like is None else module.to(like) for module in made.values()])
                operators.append(_Operator(choices, candidates, architecture, relaxation))
            self.nodes.append(nn.ModuleList(operators))

    def operators(self) -> Sequence[Sequence[Any]]:
        """Returns the operators of each node."""
        return self.nodes

    def loose(self, node: int) -> Tensor | float:
        """Returns the probability that no operator reads a node."""
        source, architecture = self.predecessors + node, self._architecture.value
        weight: Tensor | float = 1.0
        for operators in self.nodes[node + 1 :]:
            for operator in operators:
                left = architecture.view.inputs(operator.input)
                if left == [source]:
                    return 0.0
                if source in left and len(left) > 1:
                    probabilities = torch.softmax(architecture.logits(operator.input)[left], dim=0)
                    weight = weight * (1 - probabilities[left.index(source)])
        return weight

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns the cell of a sample with the weights that it has here; nodes that are no loose ends are zero in its output."""
        return ChosenCell(self, sample)


class ChosenCell(_Wired):
    """The cell of a sample, with the weights of a relaxed one.

    NNI's own cell of the sample leaves out the nodes that are no loose ends, so that the next module has fewer channels; here they are
    zero.
    """

    def __init__(self, cell: MixedCell, sample: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        self.predecessors, self.concat_dim, self.merge = cell.predecessors, cell.concat_dim, cell.merge
        self.preprocessor, self.postprocessor = (
            recursive_freeze(part, sample)[0] if isinstance(part, nn.Module) else part for part in (cell.preprocessor, cell.postprocessor)
        )
        self.nodes: Any = nn.ModuleList(nn.ModuleList(_chosen(operator, sample) for operator in operators) for operators in cell.nodes)
        used = {sample[operator.input][0] for operators in cell.nodes for operator in operators}
        self.loose_ends = [number for number in range(len(self.nodes)) if self.predecessors + number not in used]
        self.train(cell.training)

    def operators(self) -> Sequence[Sequence[Any]]:
        """Returns the operators of each node."""
        return self.nodes

    def loose(self, node: int) -> float:
        """Returns whether no operator reads a node."""
        return float(node in self.loose_ends)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Returns the cell itself: nothing is left to choose."""
        return self


class _Chosen(nn.Module):
    """The chosen operation of an operator, which reads the chosen input."""

    def __init__(self, operation: nn.Module, source: int) -> None:
        super().__init__()
        self.operation, self.source = operation, source

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """States (B, C, H, W) → (B, C', H', W')"""
        return self.operation(states[self.source])


def _chosen(operator: Any, sample: dict[str, Any]) -> _Chosen:
    (source,) = sample[operator.input]
    if isinstance(operator, _Existing):
        return _Chosen(recursive_freeze(operator.op, sample)[0], source)
    operation = operator.candidate(source, operator.names.index(sample[operator.operation]))
    return _Chosen(recursive_freeze(operation, sample)[0], source)
