"""Random search: the baseline of the DARTS paper (Liu et al., ICLR 2019, section 3; Li & Talwalkar, UAI 2019)."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from numpy.random import RandomState
from torch import nn

from nni_darts._nni import (
    Categorical,
    CategoricalMultiple,
    Lightning,
    ModelStatus,
    OneShotStrategy,
    RawFormatModelSpace,
    SequentialExecutionEngine,
    model_context,
)
from nni_darts.strategies.architecture import edge_topology

__all__ = ['RandomSearch', 'fresh_copy', 'random_sample']


def random_sample(mutables: Mapping[str, Any], edges: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """A sample drawn uniformly from NNI's mutables (label → mutable); an edge of a cell is never ``none``."""
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


class RandomSearch(OneShotStrategy):
    """Trains ``samples`` random models of the space from scratch, one after the other, and keeps the best by its final metric.

    It runs where one-shot strategies run, in the calling process. Under ``nnictl`` the random cells are trials of their own instead.

    Args:
        samples: how many models to train.
        seed: of the draw.
        optimize_mode: whether a higher metric is better (``maximize``) or a lower one (``minimize``: perplexity, a loss).

    Raises:
        ValueError: for fewer than one sample, or another mode.
    """

    def __init__(self, samples: int = 8, seed: int = 1, optimize_mode: Literal['maximize', 'minimize'] = 'maximize') -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f'samples must be at least 1, not {samples}')
        if optimize_mode not in ('maximize', 'minimize'):
            raise ValueError(f'optimize_mode must be maximize or minimize, not {optimize_mode!r}')
        self.optimize_mode = optimize_mode
        self.samples = samples
        self.seed = seed
        self.trained: list[RawFormatModelSpace] = []

    def _initialize(self, model_space: RawFormatModelSpace, engine: SequentialExecutionEngine) -> RawFormatModelSpace:
        if not isinstance(model_space, RawFormatModelSpace) or not isinstance(model_space.evaluator, Lightning):
            raise TypeError('RandomSearch needs a PyTorch model space and a Lightning evaluator')
        return model_space

    def _run(self) -> None:
        space = self.model_space.model_space
        edges = [edge for found in edge_topology(list(space.modules())).edges.values() for edge in found]
        rng = random.Random(self.seed)
        for _ in range(self.samples):
            sample = random_sample(space.simplify(), edges, rng)
            with model_context(sample):
                network = type(space)(*space.trace_args, **space.trace_kwargs)
            model = _FixedModel(network, fresh_copy(self.model_space.evaluator), sample)
            self.trained.append(model)
            self.engine.submit_models(model)

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """The trained models, best first."""
        done = [model for model in self.trained if model.metric is not None]
        sign = -1 if self.optimize_mode == 'maximize' else 1
        ranked = sorted(done, key=lambda model: sign * model.metric) if sort else done
        yield from ranked[:limit]

    def select(self) -> dict[str, Any]:
        """The best model's sample.

        Raises:
            RuntimeError: if no model was trained or none reported a final metric.
        """
        for model in self.list_models():
            return model.sample
        raise RuntimeError('random search has no result: no model reported a final metric')


class _FixedModel(RawFormatModelSpace):
    """One trained-from-scratch model in the form NNI's engine runs."""

    def __init__(self, network: nn.Module, evaluator: Lightning, sample: dict[str, Any]) -> None:
        super().__init__(network, evaluator)
        self.sample = sample
        self.status = ModelStatus.Frozen

    def executable_model(self) -> nn.Module:
        return self.model_space


def fresh_copy(evaluator: Lightning) -> Lightning:
    """A Lightning evaluator can be used once; the loaders' data need no copy."""
    loaders = [evaluator.train_dataloaders, evaluator.val_dataloaders, evaluator.datamodule]
    return copy.deepcopy(evaluator, {id(loader): loader for loader in loaders if loader is not None})
