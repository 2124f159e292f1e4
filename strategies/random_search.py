"""Random search: the baseline of the DARTS paper (Liu et al., ICLR 2019, section 3; Li & Talwalkar, UAI 2019)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from numpy.random import RandomState

from nni_darts._nni import Categorical, CategoricalMultiple
from nni_darts.strategies.architecture import edge_topology
from nni_darts.strategies.one_by_one import OneByOne
from nni_darts.strategies.settings import typed

__all__ = ['RandomSearch', 'random_sample']


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


@typed
class RandomSearch(OneByOne):
    """Trains ``samples`` random models of the space from scratch, one after the other, and keeps the best by its final metric.

    Args:
        samples: how many models to train.
        seed: of the draw.
        optimize_mode: as for :class:`OneByOne`.

    Raises:
        ValueError: for fewer than one sample, or another mode.
    """

    def __init__(self, samples: int = 8, seed: int = 1, optimize_mode: Literal['maximize', 'minimize'] = 'maximize') -> None:
        super().__init__(optimize_mode)
        if samples < 1:
            raise ValueError(f'samples must be at least 1, not {samples}')
        self.samples = samples
        self.seed = seed

    def _run(self) -> None:
        space = self.model_space.model_space
        edges = [edge for found in edge_topology(list(space.modules())).edges.values() for edge in found]
        rng = random.Random(self.seed)
        for _ in range(self.samples):
            self.train(random_sample(space.simplify(), edges, rng))
