"""Derivation by ranking: sample many architectures, and keep the one that validates best with the shared weights."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from nni_darts.strategies.architecture import Architecture, Path
from nni_darts.strategies.catalogue import RankingSettings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.selections.limited import program_of, within_limits
from nni_darts.strategies.selections.magnitude import Selection
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Ranking']


@typed(settings=RankingSettings)
class Ranking(Selection):
    """When the search is over, ``samples`` paths are drawn from the policy and ranked by what they score on a few validation batches.

    The ``finalists`` are then ranked by what they score on all validation data, and the first of the best is kept: Li & Talwalkar
    (UAI 2019) evaluate 1,000 on one batch and ten of them fully. Paths that are drawn twice count once. Until then :meth:`select` gives
    the most probable path of the policy.

    If the architecture has limits, paths that exceed them are drawn again. Where none of 1,000 draws is within them, the path is the best
    by random scores within the limits.

    Args:
        samples: N.
        finalists: how many are scored on all validation data.
        batches: validation batches for the first ranking; None scores all paths on all of them, and there are no finalists.
        scoring: ``criterion`` and ``batch_norm`` as for :class:`Scoring`.

    Raises:
        ValueError: for a setting outside its range.
    """

    ranks_paths = True

    def __init__(self, *, samples: int = 1000, finalists: int = 10, batches: int | None = 1, **scoring: Any) -> None:
        self.samples = samples
        self.finalists = finalists
        self.first = Scoring(batches=batches, **scoring)
        self.final = Scoring(**scoring)

    def rounds_due(self, finished: int, search_epochs: int, architecture: Architecture) -> int:
        """One, at the end of the search."""
        return int(finished == search_epochs)

    def decisions(self, architecture: Architecture) -> int:
        """One: all choices at once."""
        return 1

    def scored(self, architecture: Architecture) -> list[tuple[int, int | None]]:
        """All that are drawn, and the finalists."""
        both = self.first.batches is not None and self.samples > self.finalists
        return [(self.samples, self.first.batches), (self.finalists, None)] if both else [(self.samples, None)]

    def decide(self, architecture: Architecture, module: DifferentiableModule) -> list[dict[str, Any]]:
        """See :class:`Selection`. What is written down are the finalists, best first."""
        drawn: dict[tuple[Any, ...], Path] = {}
        for _ in range(self.samples):
            path = _drawn(architecture)
            drawn.setdefault(tuple(sorted(path.items())), path)
        paths = list(drawn.values())
        if self.first.batches is not None and len(paths) > self.finalists:
            paths = [path for _, path in _ranked(self.first, architecture, module, paths)][: self.finalists]
        ranked = _ranked(self.final, architecture, module, paths)
        architecture.state.memory['ranked'] = {label: list(chosen) for label, chosen in ranked[0][1].items()}
        record = {
            'stage': 'ranking',
            'label': 'architecture',
            'candidates': [architecture.sample_of(path, only_path=True) for _, path in ranked],
            'scores': [score for score, _ in ranked],
            'choice': f'the best of {len(drawn)}',
            'margin': ranked[0][0] - ranked[1][0] if len(ranked) > 1 else None,
        }
        architecture.state.history.append(record)
        return [record]

    def select(self, architecture: Architecture, relaxation: Relaxation) -> dict[str, Any]:
        """The NNI sample of the best path, once they are ranked."""
        if 'ranked' in architecture.state.memory:
            return architecture.sample_of(architecture.state.memory['ranked'])
        sample = architecture.sample_of(architecture.policy.best())  # type: ignore[union-attr]
        return within_limits(architecture, sample, _tables(architecture))


def _drawn(architecture: Architecture) -> Path:
    """A path within the limits."""
    program = program_of(architecture)
    for _ in range(1 if program is None else _DRAWS):
        path = architecture.policy.draw()  # type: ignore[union-attr]
        if program is None or program.holds(architecture.sample_of(path)):
            return path
    assert program is not None  # otherwise the first path is returned
    rng = random.Random(int(torch.randint(2**31, ())))  # torch's random state is in the checkpoint
    scores = {(label, value): rng.random() for label, values in program.choices.operations.items() for value in values}
    scores |= {(label, value): rng.random() for label, inputs in program.choices.inputs.items() for value in inputs.values}
    sample = program.best(scores)
    assert sample is not None  # the limits are checked before the search
    return architecture.path_of(sample)


def _tables(architecture: Architecture) -> dict[str, dict[Any, float]]:
    """Label → operation → probability that the policy gives it, where an architecture has limits."""
    if architecture.limits is None:
        return {}
    named = architecture.policy.probabilities()  # type: ignore[union-attr]
    return {
        label: {name: named[label][str(name)] for name in decision.names}
        for label, decision in architecture.operations().items()
        if label in named
    }


_DRAWS = 1000


def _ranked(scoring: Scoring, architecture: Architecture, module: DifferentiableModule, paths: list[Path]) -> list[tuple[float, Path]]:
    """(score, path), best first; ties keep their order."""
    scores = scoring.scores(module, 'paths', [partial(architecture.viewed, path=path) for path in paths])
    return sorted(zip(scores, paths), key=lambda entry: -entry[0])
