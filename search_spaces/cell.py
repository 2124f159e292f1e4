"""Cells: a small directed graph of operations, either still to be chosen or fixed.

A node is a :class:`ChoiceNode` (NNI's ``LayerChoice`` on every edge, one ``InputChoice``) or a :class:`FixedNode`. NNI turns the first
into the second: ``freeze`` keeps the weights, a ``model_context`` builds fresh ones.
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
"""(operation name, source state) → module"""

_CHOSEN_INPUTS = 2


class FixedNode(nn.Module):
    """The sum of fixed edges.

    Args:
        edges: pairs (operation, index of the state it reads). They are kept in the order of their inputs, so that equal cells have
            equal parameter names however their genotype was written down.

    Attributes:
        drop_path: probability of dropping an edge's output for a sample while training (Larsson et al., ICLR 2017); an identity is
            never dropped, as in NASNet and DARTS.
    """

    def __init__(self, edges: Sequence[tuple[nn.Module, int]]) -> None:
        super().__init__()
        ordered = sorted(edges, key=lambda edge: edge[1])
        self.edges = nn.ModuleList(operation for operation, _ in ordered)
        self.sources = tuple(source for _, source in ordered)
        self.drop_path = 0.0

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """states: list of (B, C, H, W) → (B, C, H', W')."""
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
    """A node that may read any earlier state, through any candidate operation, and keeps two edges.

    Args:
        kind: ``normal`` or ``reduce``; part of the labels, so that all cells of a kind share one choice.
        state: index of the state this node computes; it chooses among the states before.
        candidates: for each earlier state, the names of the operations on the edge from it.
        make_operation: builds a candidate from its name and the state it reads.
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
        """Label of the choice of inputs → labels of the choices of operation on those inputs, in their order.

        A strategy reads from this that the inputs are edges, whose strength is that of their best operation: they carry no α.
        """
        return {self.inputs.label: [str(edge.label) for edge in self.edges]}

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """states: list of (B, C, H, W) → (B, C, H', W')."""
        return self.inputs([edge(state) for edge, state in zip(self.edges, states)])

    def freeze(self, sample: dict[str, Any]) -> FixedNode:
        """The node of that sample with the weights it has here."""
        chosen = self.inputs.freeze(sample).chosen
        return FixedNode([(self.edges[source].freeze(sample), source) for source in chosen])

    @classmethod
    def create_fixed_module(
        cls, sample: dict[str, Any], kind: str, state: int, candidates: Sequence[Sequence[str]], make_operation: MakeOperation
    ) -> FixedNode:
        """NNI calls this in a ``model_context``: only the chosen edges are built."""
        chosen = CategoricalMultiple(range(state), n_chosen=_CHOSEN_INPUTS, label=input_label(kind, state)).freeze(sample)
        edges = []
        for source in chosen:
            choice = Categorical(list(candidates[source]), label=operation_label(kind, state, source))
            edges.append((make_operation(choice.freeze(sample), source), source))
        return FixedNode(edges)


class Cell(nn.Module):
    """One cell: two inputs brought to ``channels``, nodes one after the other, concatenation of the states in ``concat``.

    Args:
        earlier_channels: channels of the outputs of the cell before the previous one and of the previous one.
        channels: channels of every state inside.
        nodes: the nodes, in order.
        concat: indices of the states that make up the output.
        reduction_before: whether the previous cell halved height and width: then the older input must be halved too.
        affine: passed to the batch norms of the input layers.
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
        """Two feature maps (B, C', H', W') → (B, len(concat) · channels, H, W)."""
        states = [self.preprocess_0(older), self.preprocess_1(previous)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat([states[index] for index in self.concat], dim=1)
