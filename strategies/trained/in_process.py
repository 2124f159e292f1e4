"""Strategies that train models of any NNI space from scratch, one by one in the calling process, and keep the best."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from numpy.random import RandomState
from torch import Tensor, nn

from nni_darts._nni import (
    Categorical,
    CategoricalMultiple,
    Lightning,
    ModelSpace,
    ModelStatus,
    OneShotStrategy,
    RawFormatModelSpace,
    SequentialExecutionEngine,
    model_context,
)
from nni_darts.genotypes.neighbours import Choices, Inputs
from nni_darts.strategies.architecture import Topology, edge_topology
from nni_darts.strategies.proxies import Batch, score
from nni_darts.strategies.settings import typed
from nni_darts.strategies.trained.aging import Aging
from nni_darts.strategies.trained.base import OneByOne
from nni_darts.strategies.trained.prior import Prior, Ranked, best_first, distinct_cells
from nni_darts.strategies.trained.proxy_cells import ProxyCells
from nni_darts.strategies.trained.random_cells import RandomCells

__all__ = ['Evolution', 'InProcess', 'ProxySearch', 'RandomSearch', 'SampleSpace', 'choices_of', 'fresh_copy', 'random_sample']

Model = tuple[tuple[str, Any], ...]
"""A hashable sample: (label, chosen value) pairs, with several chosen inputs as a tuple."""


@typed
class InProcess(OneShotStrategy):
    """Trains the models that a :class:`OneByOne` proposes. In an experiment under ``nnictl``, such models are separate trials instead.

    Args:
        proposer: proposes one model after the other.
        seed: seed of all random numbers.
        optimize_mode: ``maximize`` if a higher metric is better, ``minimize`` if a lower one is (perplexity, a loss).

    Attributes:
        trained: all models trained so far, in order.

    Raises:
        ValueError: for any other mode.
    """

    one_by_one = True

    def __init__(self, proposer: OneByOne, seed: int = 1, optimize_mode: Literal['maximize', 'minimize'] = 'maximize') -> None:
        super().__init__()
        self.proposer = proposer
        self.seed = seed
        self.optimize_mode = optimize_mode
        self.trained: list[RawFormatModelSpace] = []

    def _initialize(self, model_space: RawFormatModelSpace, engine: SequentialExecutionEngine) -> RawFormatModelSpace:
        if not isinstance(model_space, RawFormatModelSpace) or not isinstance(model_space.evaluator, Lightning):
            raise TypeError(f'{type(self).__name__} needs a PyTorch model space and a Lightning evaluator')
        return model_space

    def _run(self) -> None:
        space = SampleSpace(self.model_space.model_space)
        prior = getattr(self.proposer, 'prior', None)
        ranked = self._ranked(space, prior) if isinstance(prior, Prior) else []
        scores: dict[int, float | None] = {}
        while len(models := self.proposer.named(Ranked(space, ranked), self.seed, scores)) > len(scores):
            number = len(scores) + 1
            scores[number] = self.train(space.sample(models[number - 1]))

    def _ranked(self, space: SampleSpace, prior: Prior) -> list[Model]:
        """Returns the models that random search draws first, in the order of their scores by a proxy, best first."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # which the loader's shuffling follows
            batch = _first_batch(self.model_space.evaluator, prior.batch_size)
        models = distinct_cells(space, self.seed, prior.draw)
        scores = []
        for model in models:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)  # so that all networks start from the same random numbers
                scores.append(score(prior.proxy, self._network(space.sample(model)), batch, self.seed))
        return best_first(models, scores)

    def _network(self, sample: dict[str, Any]) -> nn.Module:
        space = self.model_space.model_space
        with model_context(sample):
            return type(space)(*space.trace_args, **space.trace_kwargs)

    def train(self, sample: dict[str, Any]) -> float | None:
        """Trains the model of a sample. Returns its final metric so that larger is better, or None if it reported no metric."""
        model = _FixedModel(self._network(sample), fresh_copy(self.model_space.evaluator), sample)
        self.trained.append(model)
        self.engine.submit_models(model)
        return self._score(model)

    def _score(self, model: RawFormatModelSpace) -> float | None:
        if model.metric is None:
            return None
        return model.metric if self.optimize_mode == 'maximize' else -model.metric

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """Yields the trained models, best first."""
        done = [model for model in self.trained if model.metric is not None]
        yield from (sorted(done, key=lambda model: -(self._score(model) or 0.0)) if sort else done)[:limit]

    def select(self) -> dict[str, Any]:
        """Returns the sample of the best model.

        Raises:
            RuntimeError: if no model has reported a final metric.
        """
        for model in self.list_models():
            return model.sample
        raise RuntimeError('the search has no result: no model reported a final metric')


class _FixedModel(RawFormatModelSpace):
    """A model to train from scratch, in the form that NNI's engine runs."""

    def __init__(self, network: nn.Module, evaluator: Lightning, sample: dict[str, Any]) -> None:
        super().__init__(network, evaluator)
        self.sample = sample
        self.status = ModelStatus.Frozen

    def executable_model(self) -> nn.Module:
        return self.model_space


def _first_batch(evaluator: Lightning, size: int) -> Batch:
    """Returns the first images and labels that an evaluator trains on; fewer than ``size`` if it has fewer.

    Raises:
        ValueError: if its batches are not pairs of images and labels.
    """
    loader = evaluator.train_dataloaders if evaluator.datamodule is None else evaluator.datamodule.train_dataloader()
    parts: list[tuple[Tensor, Tensor]] = []
    for batch in loader:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
            raise ValueError('proxies score networks on batches of images and labels, and the training batches of the evaluator are not')
        parts.append((batch[0], batch[1]))
        if sum(len(labels) for _, labels in parts) >= size:
            break
    images, labels = (torch.cat(tensors)[:size] for tensors in zip(*parts))
    return Batch(images, labels)


def fresh_copy(evaluator: Lightning) -> Lightning:
    """Returns a copy of a Lightning evaluator, which can be used only once; the copy shares the loaders' data."""
    loaders = [evaluator.train_dataloaders, evaluator.val_dataloaders, evaluator.datamodule]
    return copy.deepcopy(evaluator, {id(loader): loader for loader in loaders if loader is not None})


@typed
class RandomSearch(InProcess):
    """Trains random models of the space from scratch, one by one, and keeps the best by its final metric.

    Args:
        samples: number of models to train.
        seed: as for :class:`InProcess`.
        optimize_mode: as for :class:`InProcess`.
        prior: settings of :class:`~nni_darts.strategies.trained.Prior`, such as ``{'proxy': 'synflow'}``, by which the models to train are
            chosen from many; None draws them.

    Raises:
        ValueError: for fewer than one sample, or an unknown mode.
    """

    def __init__(
        self,
        samples: int = 8,
        seed: int = 1,
        optimize_mode: Literal['maximize', 'minimize'] = 'maximize',
        prior: Any = None,
    ) -> None:
        if samples < 1:
            raise ValueError(f'samples must be at least 1, not {samples}')
        super().__init__(RandomCells(cells=samples, prior=prior), seed, optimize_mode)


@typed
class ProxySearch(InProcess):
    """Ranks random models of the space by a zero-cost proxy, trains the best from scratch, and keeps the best of them.

    Args:
        proxy: as for :class:`~nni_darts.strategies.trained.Prior`.
        draw: as for :class:`~nni_darts.strategies.trained.Prior`.
        batch_size: number of images of the evaluator's first training batches on which networks are scored.
        cells: number of the best-ranked models that are trained.
        seed: as for :class:`InProcess`.
        optimize_mode: as for :class:`InProcess`.

    Raises:
        ValueError: for an unknown proxy, or a number outside its range.
    """

    def __init__(
        self,
        proxy: str = 'synflow',
        draw: int = 1000,
        batch_size: int = 64,
        cells: int = 1,
        seed: int = 1,
        optimize_mode: Literal['maximize', 'minimize'] = 'maximize',
    ) -> None:
        super().__init__(ProxyCells(proxy=proxy, draw=draw, batch_size=batch_size, cells=cells), seed, optimize_mode)


@typed
class Evolution(InProcess):
    """Trains models of the space from scratch by aging evolution, and keeps the best: random models first, then children of good ones.

    A child differs from its parent in one operation or one input. No model is trained twice.

    Args:
        cells: total number of models to train.
        population: as for :class:`~nni_darts.strategies.trained.Aging`.
        sample: as for :class:`~nni_darts.strategies.trained.Aging`.
        seed: as for :class:`InProcess`.
        optimize_mode: as for :class:`InProcess`.
        prior: as for :class:`RandomSearch`; it chooses the first ``population`` models.

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
        prior: Any = None,
    ) -> None:
        super().__init__(Aging(cells=cells, population=population, sample=sample, parallel=1, prior=prior), seed, optimize_mode)


class SampleSpace:
    """The :class:`~nni_darts.strategies.trained.CellSpace` of an NNI model space: draws and mutates its models.

    Args:
        space: an NNI model space.
    """

    def __init__(self, space: ModelSpace) -> None:
        topology = edge_topology(list(space.modules()))
        self._mutables = space.simplify()
        several = [label for label, mutable in self._mutables.items() if isinstance(mutable, CategoricalMultiple)]
        topology.check(several, [label for label in self._mutables if label not in several])
        self._edges = [edge for labels in topology.edges.values() for edge in labels]
        # Mutables that are not choices among values can be drawn, but have no neighbours.
        only_choices = all(isinstance(mutable, (Categorical, CategoricalMultiple)) for mutable in self._mutables.values())
        self._choices = choices_of(self._mutables, topology) if only_choices else None
        # NNI requires a value for every label; operations on edges that are not chosen are not built.
        self._first = {label: values[0] for label, values in self._choices.operations.items()} if self._choices else {}

    @property
    def choices(self) -> Choices:
        """The choices of the space as data. Raises ValueError if the space has a mutable that is not a choice among values."""
        if self._choices is None:
            choices_of(self._mutables, Topology())
        return self._choices  # type: ignore[return-value]  # choices_of raises for what has no choices

    def random_cell(self, rng: random.Random) -> Model:
        """Draws a model uniformly."""
        return self._frozen(random_sample(self._mutables, self._edges, rng))

    def mutated_cell(self, model: Model, rng: random.Random) -> Model:
        """Returns a copy of a model in which one operation or one input is another one.

        Raises:
            ValueError: if the space has a mutable that is not a choice among values.
        """
        if self._choices is None:
            other = next(label for label, mutable in self._mutables.items() if not isinstance(mutable, (Categorical, CategoricalMultiple)))
            raise ValueError(f'evolution changes choices among values; {other!r} is a {type(self._mutables[other]).__name__}')
        return self._frozen(self._choices.mutated(self.sample(model), rng))

    def model(self, sample: Mapping[str, Any]) -> Model:
        """Returns the model of an NNI sample. Samples that differ only in parts that are not built are the same model."""
        return self._frozen(sample)

    def sample(self, model: Model) -> dict[str, Any]:
        """Returns the NNI sample of a model: a value for every label."""
        lists = {label for label, mutable in self._mutables.items() if isinstance(mutable, CategoricalMultiple)}
        return {**self._first, **{label: list(value) if label in lists else value for label, value in model}}

    def _frozen(self, sample: Mapping[str, Any]) -> Model:
        model = sample if self._choices is None else self._choices.model(sample)
        return tuple((label, tuple(value) if isinstance(value, list) else value) for label, value in model.items())


def random_sample(mutables: Mapping[str, Any], edges: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Draws a sample uniformly from NNI's mutables (label → mutable); an edge of a cell is never ``none``."""
    sample: dict[str, Any] = {}
    for label, mutable in mutables.items():
        if isinstance(mutable, CategoricalMultiple):
            count = mutable.n_chosen or rng.randint(1, len(mutable.values))
            sample[label] = sorted(rng.sample(mutable.values, count))
        elif isinstance(mutable, Categorical):
            sample[label] = rng.choice([value for value in mutable.values if label not in edges or value != 'none'])
        else:
            sample[label] = mutable.random(random_state=RandomState(rng.randrange(2**32)))
    return sample


def choices_of(mutables: Mapping[str, Any], topology: Topology) -> Choices:
    """Returns NNI's mutables (label → mutable) as choices.

    Raises:
        ValueError: if a mutable is not a choice among values.
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
            raise ValueError(f'only choices among values are possible here; {label!r} is a {type(mutable).__name__}')
    return Choices(operations, inputs)
