"""Runs in one call, for tests; callbacks are keyword arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.run import Run
from nni_darts.runs.run import train_longer as _train_longer
from nni_darts.runs.spec import RunSpec, Watch

__all__ = ['search', 'train_cell', 'train_longer']


def search(recipe: Recipe, strategy: str, seed: int, output: Path, **options: Any) -> tuple[AnyGenotype, dict[str, Any]]:
    """Runs a search. ``options`` are ``resume``, ``plan``, and those of :class:`Watch`."""
    resume, plan = options.pop('resume', False), options.pop('plan', None)
    outcome = Run(RunSpec.search(recipe, strategy, seed, plan), output, Watch(**options)).execute(resume=resume)
    return outcome.genotype, outcome.result


def train_cell(recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int, output: Path, **options: Any) -> dict[str, Any]:
    """Trains a network. ``options`` are ``resume``, ``weights``, ``plan``, and those of :class:`Watch`."""
    resume, more = options.pop('resume', False), {name: options.pop(name) for name in ('weights', 'plan') if name in options}
    return Run(RunSpec.training(recipe, stage, genotype, seed, **more), output, Watch(**options)).execute(resume=resume).result


def train_longer(output: Path, epochs: int, *, resume: bool = False, **options: Any) -> dict[str, Any]:
    """Continues a finished training for more epochs. ``options`` are those of :class:`Watch`."""
    return _train_longer(output, epochs, resume=resume, watch=Watch(**options))
