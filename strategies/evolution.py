"""Aging evolution in the calling process (Real et al., AAAI 2019)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

from nni_darts._nni import Categorical, CategoricalMultiple, ModelSpace
from nni_darts.genotypes.neighbours import Choices, Inputs
from nni_darts.strategies.aging import Aging, evolved
from nni_darts.strategies.architecture import Topology, edge_topology
from nni_darts.strategies.one_by_one import OneByOne
from nni_darts.strategies.random_search import random_sample
from nni_darts.strategies.settings import typed

__all__ = ['Evolution', 'choices_of', 'mutated_sample_of', 'random_sample_of']

Model = tuple[tuple[str, Any], ...]
"""A sample that can be compared: labels with what was chosen, inputs as tuples."""


@typed
class Evolution(OneByOne):
    """Trains ``cells`` models of the space from scratch, random ones first, then children of the best, and keeps the best of all.

    A child differs from its parent in one operation or one input. No model is trained twice.

    Args:
        cells, population, sample: as for :class:`~nni_darts.strategies.aging.Aging`; one model is trained at a time.
        seed: of everything that is drawn.
        optimize_mode: as for :class:`OneByOne`.

    Raises:
        ValueError: for a setting outside its range.
    """

    def __init__(
        self,
        cells: int = 24,
        population: int = 10,
        sample: int = 3,
        seed: int = 1,
        optimize_mode: Literal['maximize', 'minimize'] = 'maximize',
    ) -> None:
        super().__init__(optimize_mode)
        self.settings = Aging(cells=cells, population=population, sample=sample, parallel=1)
        self.seed = seed

    def _run(self) -> None:
        space = self.model_space.model_space
        topology = edge_topology(list(space.modules()))
        mutables = space.simplify()
        choices = choices_of(mutables, topology)
        edges = [edge for labels in topology.edges.values() for edge in labels]
        # NNI wants a value for every label; what lies on an edge that is not chosen is not built.
        first = {label: values[0] for label, values in choices.operations.items()}

        def frozen(sample: Mapping[str, Any]) -> Model:
            model = choices.model(sample)
            return tuple((label, tuple(value) if label in choices.inputs else value) for label, value in model.items())

        def thawed(model: Model) -> dict[str, Any]:
            return {**first, **{label: list(value) if label in choices.inputs else value for label, value in model}}

        def draw(rng: random.Random) -> Model:
            return frozen(random_sample(mutables, edges, rng))

        def mutate(model: Model, rng: random.Random) -> Model:
            return frozen(choices.mutated(thawed(model), rng))

        scores: dict[int, float | None] = {}
        while len(models := evolved(self.settings, self.seed, draw, mutate, scores)) > len(scores):
            number = len(scores) + 1
            scores[number] = self.train(thawed(models[number - 1]))


def choices_of(mutables: Mapping[str, Any], topology: Topology) -> Choices:
    """NNI's mutables (label → mutable) as choices.

    Raises:
        ValueError: for a mutable that is no choice among values.
    """
    edges = {edge for labels in topology.edges.values() for edge in labels}
    operations: dict[str, tuple[Any, ...]] = {}
    inputs: dict[str, Inputs] = {}
    for label, mutable in mutables.items():
        if isinstance(mutable, CategoricalMultiple):
            inputs[label] = Inputs(tuple(mutable.values), mutable.n_chosen, topology.edges.get(label, ()))
        elif isinstance(mutable, Categorical):
            operations[label] = tuple(value for value in mutable.values if label not in edges or value != 'none')
        else:
            raise ValueError(f'random and evolution draw from choices among values; {label!r} is a {type(mutable).__name__}')
    return Choices(operations, inputs)


def random_sample_of(space: ModelSpace, rng: random.Random) -> dict[str, Any]:
    """Draws a sample of a space uniformly.

    Raises:
        ValueError: as :func:`choices_of`.
    """
    topology = edge_topology(list(space.modules()))
    mutables = space.simplify()
    choices_of(mutables, topology)
    return random_sample(mutables, [edge for labels in topology.edges.values() for edge in labels], rng)


def mutated_sample_of(space: ModelSpace, sample: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """Returns a sample with one other value. Errors as for :func:`choices_of`."""
    return choices_of(space.simplify(), edge_topology(list(space.modules()))).mutated(sample, rng)
