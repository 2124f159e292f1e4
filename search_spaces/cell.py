"""Cells: small directed graphs of operations that are either still to be chosen or fixed.

A node is a :class:`ChoiceNode` (with NNI's ``LayerChoice`` on every edge and one ``InputChoice``) or a :class:`FixedNode`. NNI turns a
choice node into a fixed node: ``freeze`` keeps the weights, and a ``model_context`` builds new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from nni_darts._nni import Categorical, CategoricalMultiple, InputChoice, LayerChoice, MutableModule
from nni_darts.genotypes.base import candidate_name, input_label, operation_label
from nni_darts.search_spaces.operations import FactorizedReduce, ReLUConvBN

__all__ = ['Cell', 'ChoiceNode', 'FixedNode']

MakeOperation = Callable[[str, int], nn.Module]
"""(name of an operation, source state) → module"""

_CHOSEN_INPUTS = 2


class FixedNode(nn.Module):
    """A node that adds up fixed edges.

    Args:
        edges: pairs (operation, index of the source state). They are sorted by source, so that equal cells have equal parameter
            names in whatever order their genotype lists the edges.

    Attributes:
        drop_path: probability of dropping an edge's output for a sample in training (Larsson et al., ICLR 2017). As in NASNet and
            DARTS, an identity is never dropped.
    """

    def __init__(self, edges: Sequence[tuple[nn.Module, int]]) -> None:
        super().__init__()
        ordered = sorted(edges, key=lambda edge: edge[1])
        self.edges = nn.ModuleList(operation for operation, _ in ordered)
        self.sources = tuple(source for _, source in ordered)
        self.drop_path = 0.0

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Returns the sum (B, C, H', W') of the edges for a list of states (B, C, H, W)."""
        outputs = []
        for operation, source in zip(self.edges, self.sources):
            output = operation(states[source])
            if self.training and self.drop_path > 0 and not isinstance(operation, nn.Identity):
                output = stochastic_depth(output, self.drop_path, mode='row')
            outputs.append(output)
        return sum(outputs[1:], outputs[0])

    def extra_repr(self) -> str:
        return f'sources={self.sources}'


class ChoiceNode(MutableModule):
    """A node that may read any earlier state through any candidate operation, and keeps two edges.

    Args:
        kind: ``normal`` or ``reduce``. It is part of the labels, so that all cells of a kind share one choice.
        state: index of the state that this node computes from earlier states.
        candidates: names of the operations on the edge from each earlier state.
        make_operation: builds a candidate from its name and its source state.
    """

    def __init__(self, kind: str, state: int, candidates: Sequence[Sequence[str]], make_operation: MakeOperation) -> None:
        super().__init__()
        self.group = kind
        self.edges = nn.ModuleList(
            LayerChoice({candidate_name(name): make_operation(name, source) for name in names}, label=operation_label(kind, state, source))
            for source, names in enumerate(candidates)
        )
        self.inputs = InputChoice(n_candidates=state, n_chosen=_CHOSEN_INPUTS, reduction='sum', label=input_label(kind, state))

    def topology(self) -> Mapping[str, Sequence[str]]:
        """Returns label of the choice of inputs → labels of the choices of operations on these inputs, in the same order.

        It tells a strategy that the inputs are edges, whose strength is that of their best operation, so that they have no α of their own.
        """
        return {self.inputs.label: [str(edge.label) for edge in self.edges]}

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Returns (B, C, H', W') for a list of states (B, C, H, W)."""
        return self.inputs([edge(state) for edge, state in zip(self.edges, states)])

    def freeze(self, sample: dict[str, Any]) -> FixedNode:
        """Returns the fixed node of a sample, with the present weights."""
        chosen = self.inputs.freeze(sample).chosen
        return FixedNode([(self.edges[source].freeze(sample), source) for source in chosen])

    @classmethod
    def create_fixed_module(
        cls, sample: dict[str, Any], kind: str, state: int, candidates: Sequence[Sequence[str]], make_operation: MakeOperation
    ) -> FixedNode:
        """Returns the fixed node of a sample with only the chosen edges. NNI calls this in a ``model_context``."""
        chosen = CategoricalMultiple(range(state), n_chosen=_CHOSEN_INPUTS, label=input_label(kind, state)).freeze(sample)
        edges = []
        for source in chosen:
            choice = Categorical(list(candidates[source]), label=operation_label(kind, state, source))
            edges.append((make_operation(choice.freeze(sample), source), source))
        return FixedNode(edges)


class Cell(nn.Module):
    """A cell: two inputs converted to ``channels``, nodes in sequence, and the concatenation of the states in ``concat``.

    Args:
        earlier_channels: channels of the outputs of the two preceding cells, the older one first.
        channels: channels of every state in the cell.
        nodes: the nodes, in order.
        concat: indices of the states that make up the output.
        reduction_before: whether the preceding cell halved height and width, so that the older input must be halved, too.
        affine: whether the batch norms of the input layers have scale and shift.
    """

    def __init__(
        self,
        earlier_channels: tuple[int, int],
        channels: int,
        nodes: Sequence[nn.Module],
        concat: Sequence[int],
        *,
        reduction_before: bool,
        affine: bool,
    ) -> None:
        super().__init__()
        older, previous = earlier_channels
        self.preprocess_0 = (FactorizedReduce if reduction_before else ReLUConvBN)(older, channels, affine=affine)
        self.preprocess_1 = ReLUConvBN(previous, channels, affine=affine)
        self.nodes = nn.ModuleList(nodes)
        self.concat = tuple(concat)

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """Returns (B, len(concat) · channels, H, W) for two feature maps (B, C', H', W')."""
        states = [self.preprocess_0(older), self.preprocess_1(previous)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat([states[index] for index in self.concat], dim=1)
