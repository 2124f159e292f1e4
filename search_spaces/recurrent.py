"""The recurrent language model of DARTS (Liu et al., ICLR 2019, section 3.1): a tied embedding and one searched cell.

The same code builds the search space and, from a genotype, the network to retrain. With x the word, h the previous hidden state, [·, ·]
concatenation and ⊙ the elementwise product::

    (c₀, h₀) = [x, h]·W₀        s₀ = h + σ(c₀) ⊙ (tanh(h₀) − h)
    (cᵢ, hᵢ) = sⱼ·Wᵢ            sᵢ = sⱼ + σ(cᵢ) ⊙ (f(hᵢ) − sⱼ)      for node i with input j and activation f
    the new h and the output    = the mean of the nodes' states

In a search, sᵢ is replaced by the expectation over inputs and activations, and a batch norm without scale and shift follows every
state, including s₀.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nni_darts._nni import Categorical, CategoricalMultiple, InputChoice, LayerChoice, ModelSpace, MutableModule, current_model
from nni_darts.genotypes.base import input_label, operation_label
from nni_darts.genotypes.recurrent import ACTIVATIONS, KIND, RnnGenotype

__all__ = [
    'DartsRnnSpace',
    'Dropouts',
    'Encoded',
    'RecurrentCell',
    'RecurrentChoiceNode',
    'RecurrentNetwork',
    'RecurrentNode',
    'RecurrentOutput',
    'dropout_mask',
    'recurrent_network',
]

INITIAL_RANGE = 0.04
"""Weights are initialised uniformly within ± this value."""


@dataclass(frozen=True)
class Dropouts:
    """Dropout probabilities in training. Every mask is drawn once for a sequence and is the same in all of its time steps.

    Attributes:
        embedding: probability of dropping a word wherever it occurs in the batch (Gal & Ghahramani, NIPS 2016).
        input, x: probabilities of dropping a unit of the embedding, which are applied one after the other, as in the authors' code.
        hidden: probability of dropping a unit of a state before a matrix product.
        output: probability of dropping a unit of the decoder's input.

    Raises:
        ValueError: for a value outside [0, 1).
    """

    embedding: float = 0.0
    input: float = 0.2
    x: float = 0.75
    hidden: float = 0.25
    output: float = 0.75

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < 1:
                raise ValueError(f'the {field.name} dropout must lie in [0, 1), not {getattr(self, field.name)!r}')


class Encoded(NamedTuple):
    """The hidden outputs of a recurrent network, for T time steps and a batch of B. Attributes as for :class:`RecurrentOutput`."""

    hidden: Tensor
    outputs: Tensor
    dropped: Tensor


class RecurrentOutput(NamedTuple):
    """The output of a recurrent network, for T time steps and a batch of B.

    Attributes:
        logits: (T·B, vocabulary); row t·B + b predicts the word after ``tokens[t, b]``.
        hidden: (B, hidden), the state from which the following words continue.
        outputs: (T, B, hidden), the outputs of the cell.
        dropped: (T, B, hidden), the outputs after dropout.
    """

    logits: Tensor
    hidden: Tensor
    outputs: Tensor
    dropped: Tensor


def dropout_mask(like: Tensor, shape: Sequence[int], probability: float) -> Tensor:
    """Returns a mask that is zero with this probability, and otherwise 1 / (1 − probability)."""
    return like.new_empty(shape).bernoulli_(1 - probability).div_(1 - probability)


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns).uniform_(-INITIAL_RANGE, INITIAL_RANGE))


# Nodes ----------------------------------------------------------------------------------------------------------------------------


class Activation(nn.Module):
    """A candidate on an edge: ``state + gate ⊙ (f(update) − state)``; ``none`` returns zeros."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, state: Tensor, gate: Tensor, update: Tensor) -> Tensor:
        """Returns (B, hidden) for three tensors (B, hidden)."""
        if self.name == 'none':
            return torch.zeros_like(state)
        return state + gate * ((update if self.name == 'identity' else getattr(torch, self.name)(update)) - state)

    def extra_repr(self) -> str:
        return self.name


def _gate_and_update(state: Tensor, weight: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    gate, update = ((state if mask is None else state * mask) @ weight).chunk(2, dim=-1)
    return torch.sigmoid(gate), update


class RecurrentNode(nn.Module):
    """A node with one input and one activation.

    Args:
        weight: Wᵢ, (hidden, 2·hidden).
        activation: the module on its edge.
        source: index of the source state.
    """

    def __init__(self, weight: nn.Parameter, activation: nn.Module, source: int) -> None:
        super().__init__()
        self.weight = weight
        self.activation = activation
        self.source = source

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Returns (B, hidden) for a list of states (B, hidden) and the mask of the hidden dropout (B, hidden)."""
        state = states[self.source]
        return self.activation(state, *_gate_and_update(state, self.weight, mask))

    def extra_repr(self) -> str:
        return f'source={self.source}'


class RecurrentChoiceNode(MutableModule):
    """A node that may read any earlier state through any activation, and keeps one edge. All of its edges share one matrix.

    Args:
        state: index of the state that this node computes from earlier states.
        hidden: number of units of a state.
    """

    group = KIND

    def __init__(self, state: int, hidden: int) -> None:
        super().__init__()
        self.weight = _matrix(hidden, 2 * hidden)
        self.edges = nn.ModuleList(
            LayerChoice({name: Activation(name) for name in ACTIVATIONS}, label=operation_label(KIND, state, source))
            for source in range(state)
        )
        self.inputs = InputChoice(n_candidates=state, n_chosen=1, reduction='sum', label=input_label(KIND, state))

    def topology(self) -> Mapping[str, Sequence[str]]:
        """Returns the labels as :meth:`nni_darts.search_spaces.cell.ChoiceNode.topology` does: the inputs are edges and have no α."""
        return {self.inputs.label: [str(edge.label) for edge in self.edges]}

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Returns (B, hidden) for a list of states (B, hidden) and the mask of the hidden dropout (B, hidden)."""
        return self.inputs([edge(state, *_gate_and_update(state, self.weight, mask)) for edge, state in zip(self.edges, states)])

    def freeze(self, sample: dict[str, Any]) -> RecurrentNode:
        """Returns the fixed node of a sample, with the present matrix."""
        (source,) = self.inputs.freeze(sample).chosen
        return RecurrentNode(self.weight, self.edges[source].freeze(sample), source)

    @classmethod
    def create_fixed_module(cls, sample: dict[str, Any], state: int, hidden: int) -> RecurrentNode:
        """Returns the fixed node of a sample with only the chosen edge. NNI calls this in a ``model_context``."""
        (source,) = CategoricalMultiple(range(state), n_chosen=1, label=input_label(KIND, state)).freeze(sample)
        name = Categorical(list(ACTIVATIONS), label=operation_label(KIND, state, source)).freeze(sample)
        return RecurrentNode(_matrix(hidden, 2 * hidden), Activation(name), source)


class RecurrentCell(nn.Module):
    """The cell, which runs over all time steps of a sequence.

    Args:
        embedding, hidden: number of units of a word and of a state.
        nodes: the nodes, in order.
        concat: indices of the states whose mean is the output.
        batch_norm: whether every state is normalised over the batch, all by one module, as in the authors' code. In training, sharing
            the module makes no difference; in evaluation, every state is scaled by the statistics of all states. With separate
            statistics, evaluation has been observed to diverge, because nothing then damps the state from one time step to the next.
    """

    def __init__(self, embedding: int, hidden: int, nodes: Sequence[nn.Module], concat: Sequence[int], *, batch_norm: bool) -> None:
        super().__init__()
        self.weight = _matrix(embedding + hidden, 2 * hidden)
        self.nodes = nn.ModuleList(nodes)
        self.norm = nn.BatchNorm1d(hidden, affine=False) if batch_norm else nn.Identity()
        self.concat = tuple(concat)

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns outputs (T, B, hidden) and the last output.

        Args:
            words: (T, B, embedding).
            hidden: (B, hidden).
            mask: mask of the hidden dropout, (B, hidden), or None.
        """
        of_words, of_hidden = self.weight.split([words.shape[-1], hidden.shape[-1]])
        outputs = []
        for word in (words @ of_words).unbind():  # the part that does not depend on the state is one product for all steps
            hidden = self.step(torch.addmm(word, hidden if mask is None else hidden * mask, of_hidden), hidden, mask)
            outputs.append(hidden)
        return torch.stack(outputs), hidden

    def step(self, first: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the state (B, hidden) after one time step, from (c₀, h₀) (B, 2·hidden), the previous state (B, hidden) and the mask."""
        gate, update = first.chunk(2, dim=-1)
        states = [self.norm(hidden + torch.sigmoid(gate) * (torch.tanh(update) - hidden))]
        for node in self.nodes:
            states.append(self.norm(node(states, mask)))
        return torch.stack([states[index] for index in self.concat]).mean(dim=0)


# Networks -------------------------------------------------------------------------------------------------------------------------


class _RecurrentNetwork(nn.Module):
    """Base class of the space and the network: embedding, dropout, cell, decoder."""

    def _build(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        dropouts: Dropouts,
        nodes: Sequence[nn.Module],
        concat: Sequence[int],
        *,
        batch_norm: bool,
    ) -> None:
        self.hidden = hidden
        self.dropouts = dropouts
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -INITIAL_RANGE, INITIAL_RANGE)
        self.cell = RecurrentCell(embedding, hidden, nodes, concat, batch_norm=batch_norm)
        self.decoder = nn.Linear(embedding, vocabulary)
        self.decoder.weight = self.embedding.weight  # tied (Press & Wolf, EACL 2017; Inan et al., ICLR 2017)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> RecurrentOutput:
        """Returns the output for tokens (T, B), whole numbers below the vocabulary, and hidden (B, hidden), which is zero if None."""
        encoded = self.encode(tokens, hidden)
        return RecurrentOutput(self.decoder(encoded.dropped.flatten(0, 1)), *encoded)

    def encode(self, tokens: Tensor, hidden: Tensor | None = None) -> Encoded:
        """Returns the output without logits, which are large; a loss can apply ``decoder`` to a few rows at a time."""
        words = self.embedding(tokens)
        batch = tokens.shape[1]
        mask = None
        if self.training:
            dropouts = self.dropouts
            if dropouts.embedding:
                words = words * dropout_mask(words, (self.embedding.num_embeddings, 1), dropouts.embedding)[tokens]
            for probability in (dropouts.input, dropouts.x):
                words = words * dropout_mask(words, (1, batch, words.shape[-1]), probability) if probability else words
            mask = dropout_mask(words, (batch, self.hidden), dropouts.hidden) if dropouts.hidden else None
        if hidden is None:
            hidden = words.new_zeros(batch, self.hidden)
        outputs, hidden = self.cell(words, hidden, mask)
        dropped = outputs
        if self.training and self.dropouts.output:
            dropped = outputs * dropout_mask(outputs, (1, batch, self.hidden), self.dropouts.output)
        return Encoded(hidden, outputs, dropped)


def _check_sizes(vocabulary: int, embedding: int, hidden: int) -> None:
    for name, value in (('vocabulary', vocabulary), ('embedding', embedding), ('hidden', hidden)):
        if value < 1:
            raise ValueError(f'{name} must be at least 1, not {value}')
    if embedding != hidden:
        raise ValueError(f'embedding and hidden must be equal, since the decoder is tied to the embedding: not {embedding} and {hidden}')


class DartsRnnSpace(_RecurrentNetwork, ModelSpace):
    """The recurrent search space of DARTS as an NNI ``ModelSpace``: tokens (T, B) → :class:`RecurrentOutput`.

    The activation on each edge is a ``LayerChoice`` (``recurrent_op_1_0``, …), and the input of each node is an ``InputChoice`` of one
    (``recurrent_input_1``, …), which makes 36 and 8 labels for eight nodes.

    Args:
        vocabulary: number of words.
        embedding, hidden: number of units of a word and of a state; they are equal, because the decoder is tied to the embedding.
        nodes: number of nodes of the cell.
        dropouts: see :class:`Dropouts`; the defaults are those of the authors' search on PTB.

    Under ``model_context(sample)``, the space is a network with new weights and without batch norm, as :func:`recurrent_network` builds
    it. ``freeze(sample)`` keeps the weights and the batch norms of the space.

    Raises:
        ValueError: for invalid sizes.
    """

    def __init__(self, vocabulary: int, embedding: int = 300, hidden: int = 300, nodes: int = 8, dropouts: Dropouts | None = None) -> None:
        super().__init__()
        _check_sizes(vocabulary, embedding, hidden)
        if nodes < 1:
            raise ValueError(f'nodes must be at least 1, not {nodes}')
        fixed = current_model() is not None  # NNI builds one model of the space, not the space itself
        states = range(1, nodes + 1)
        made = [RecurrentChoiceNode(state, hidden) for state in states]
        self._build(vocabulary, embedding, hidden, dropouts or Dropouts(), made, states, batch_norm=not fixed)


class RecurrentNetwork(_RecurrentNetwork):
    """The network of one cell. The arguments are those of :func:`recurrent_network`."""

    def __init__(
        self, genotype: RnnGenotype, *, vocabulary: int, embedding: int, hidden: int, dropouts: Dropouts, batch_norm: bool
    ) -> None:
        super().__init__()
        _check_sizes(vocabulary, embedding, hidden)
        made = [RecurrentNode(_matrix(hidden, 2 * hidden), Activation(name), source) for name, source in genotype.recurrent]
        self._build(vocabulary, embedding, hidden, dropouts, made, genotype.concat, batch_norm=batch_norm)
        self.genotype = genotype


def recurrent_network(
    genotype: RnnGenotype,
    vocabulary: int,
    embedding: int = 850,
    hidden: int = 850,
    *,
    dropouts: Dropouts | None = None,
    batch_norm: bool = False,
) -> RecurrentNetwork:
    """Returns the network to retrain: tokens (T, B) → :class:`RecurrentOutput`.

    Args:
        genotype: any recurrent cell.
        vocabulary, embedding, hidden: see :class:`DartsRnnSpace`; the defaults are those of the authors on PTB.
        dropouts: the default is that of the authors on PTB, which adds a dropout of 0.1 on the embedding to those of the search.
        batch_norm: whether to normalise every state, as in the supernet.

    Raises:
        ValueError: for invalid sizes.
    """
    return RecurrentNetwork(
        genotype,
        vocabulary=vocabulary,
        embedding=embedding,
        hidden=hidden,
        dropouts=dropouts or Dropouts(embedding=0.1),
        batch_norm=batch_norm,
    )
