"""Ranks untrained networks by a zero-cost proxy before a strategy trains cells one by one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nni_darts.activity import announce
from nni_darts.data import ImageDataModule
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.cells import on_data, prior_of, ranked_cells, ranking_passes
from nni_darts.runs.costs import as_input_error
from nni_darts.runs.folder import RANKING, read_json, write_json
from nni_darts.runs.spec import Work
from nni_darts.runs.tasks import task_of
from nni_darts.search_spaces import network_from_genotype
from nni_darts.strategies.proxies import Batch, score
from nni_darts.strategies.trained.prior import Prior, best_first, distinct_cells
from nni_darts.training.run import device_type

__all__ = ['Ranking', 'ranked', 'score_cells', 'scoring_batch']

_SAVED_EVERY = 10.0
"""Seconds between two writes of the scores so far."""


@dataclass(frozen=True)
class Ranking:
    """The best cells by a proxy.

    Attributes:
        cells: as many as the strategy takes from the ranking, best first.
        proxy: name of the proxy.
        score: score of the best cell; None if no score is defined.
        drawn: number of different cells that were drawn and scored.
        seconds: seconds that drawing and scoring took.
        passes: cost in passes over the training data.
    """

    cells: tuple[AnyGenotype, ...]
    proxy: str
    score: float | None
    drawn: int
    seconds: float
    passes: float

    def result(self) -> dict[str, Any]:
        """Returns the measurements of a search that consists of this ranking."""
        best = {} if self.score is None else {'score': self.score}
        spent = {'seconds': round(self.seconds, 3), 'passes': round(self.passes, 3)}
        return {'proxy': self.proxy, **best, 'drawn': self.drawn, **spent}


def ranked(work: Work) -> Ranking | None:
    """Ranks the cells with which a strategy begins; None for a strategy that begins without a ranking.

    Scores are kept in ``ranking.json``, so that a resumed run does not repeat them.

    Args:
        work: the run of a search that trains cells one by one.

    Raises:
        InputError: if the proxy cannot score the networks of the recipe.
    """
    recipe, spec = work.recipe, work.spec
    prior = prior_of(recipe, spec.strategy)
    if prior is None:
        return None
    begun = time.monotonic()
    path = work.output / RANKING
    kept = read_json(path) if work.resume and path.exists() else {'proxy': prior.proxy, 'seconds': 0.0, 'scores': {}}
    scores, before = dict(kept['scores']), float(kept['seconds'])
    cells = distinct_cells(on_data(recipe).space, spec.seed, prior.draw)
    codes = [cell.code() for cell in cells]
    missing = [cell for cell, code in zip(cells, codes) if code not in scores]
    saved = begun
    for cell, value in zip(missing, score_cells(recipe, work.data, missing, prior, spec.seed)):
        scores[cell.code()] = value if math.isfinite(value) else None
        if time.monotonic() - saved > _SAVED_EVERY:
            saved = time.monotonic()
            _keep(path, prior, before + saved - begun, scores)
    seconds = before + time.monotonic() - begun
    if missing:
        _keep(path, prior, seconds, scores)
    values = [-math.inf if scores[code] is None else float(scores[code]) for code in codes]
    order = best_first(cells, values)
    best, passes = scores[order[0].code()], ranking_passes(recipe, prior, len(work.data.train))
    return Ranking(tuple(order[: ranked_cells(recipe, spec.strategy)]), prior.proxy, best, len(cells), seconds, passes)


def _keep(path: Path, prior: Prior, seconds: float, scores: dict[str, float | None]) -> None:
    write_json(path, {'proxy': prior.proxy, 'seconds': round(seconds, 2), 'scores': scores})


def scoring_batch(recipe: Recipe, data: Any, seed: int, size: int) -> Batch:
    """Returns the first batch of the short training under a seed, without augmentation.

    Args:
        recipe: all settings of a recipe for images.
        data: as ``task_of(recipe).load(recipe)`` returns it.
        seed: seed of the order of the training images.
        size: number of images; all training images if there are fewer.
    """
    settings = recipe.data.model_copy(update={'augment': 'none', 'workers': 0})
    portion = 1 - recipe.select.validation_portion
    module = ImageDataModule(data, settings, train_portion=portion, batch_size=size, seed=seed)
    images, labels = next(iter(module.train_dataloader()))
    return Batch(images, labels)


def score_cells(recipe: Recipe, data: Any, cells: Sequence[AnyGenotype], prior: Prior, seed: int) -> Iterator[float]:
    """Yields the score of each cell's network at the size of the short training (``select``).

    All networks are initialised and scored with the same seed, on the same batch. The global random numbers stay as they are.

    Args:
        recipe: all settings of a recipe for images.
        data: as ``task_of(recipe).load(recipe)`` returns it.
        cells: the cells.
        prior: the proxy and the size of its batch.
        seed: seed of the batch and the initial weights.

    Raises:
        InputError: if the proxy cannot score such networks.
    """
    device = torch.device(device_type(recipe.accelerator))
    batch = scoring_batch(recipe, data, seed, prior.batch_size)
    batch = Batch(batch.images.to(device), batch.labels.to(device))
    options = task_of(recipe).network_options(recipe, 'select', data)
    options.pop('auxiliary', None)  # its head is not a part of the network whose quality is predicted
    for number, cell in enumerate(cells):
        announce('ranking', number + 1, len(cells))
        with as_input_error(f'proxy {prior.proxy}'):
            with torch.random.fork_rng([device] if device.type == 'cuda' else []):
                torch.manual_seed(seed)
                network = network_from_genotype(cell, **options).to(device)
            yield score(prior.proxy, network, batch, seed)
