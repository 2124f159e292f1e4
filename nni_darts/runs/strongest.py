"""Other cells from the α of a finished search: the strongest within limits, and the front of strength against cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import RUN, Recipe
from nni_darts.report.fronts import pareto_front
from nni_darts.runs.cost_limits import check_possible, whole_program
from nni_darts.runs.costs import as_input_error, configured_strategy
from nni_darts.runs.derive import finished_search
from nni_darts.runs.folder import DATA, GENOTYPE, RESULT, SUPERNET, check_folder, identity, write_json
from nni_darts.runs.keeping import kept_description
from nni_darts.runs.latencies import with_own_table
from nni_darts.runs.provenance import provenance
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.selections.limited import strength
from nni_darts.strategies.selections.magnitude import operation_tables

__all__ = ['Found', 'Searched']

_ALPHA = 'architecture.'
"""Prefix of α and the decisions in a checkpoint."""


@dataclass(frozen=True)
class Found:
    """A cell from the α of a finished search.

    Attributes:
        genotype: the cell.
        strength: sum of the strengths of its operations, as a fraction of the strongest cell of the search.
        costs: measure → cost of its network at the size of ``retrain``.
    """

    genotype: AnyGenotype
    strength: float
    costs: Mapping[str, float]


class Searched:
    """The α of a finished search, from which cells are read without training.

    Args:
        folder: output folder of a search with a supernet whose strategy selects by magnitude.
        overrides: changes to ``latency`` of the search's recipe; ``latency.measured=torch`` measures, if the search had no latencies.

    Attributes:
        program: the costs of the space, without limits.

    Raises:
        InputError: if the folder holds no such search, or costs do not add up in its space.

    Example:
        ``Searched(Path('out/search')).within({'parameters': 80_000}).genotype``
    """

    def __init__(self, folder: Path, overrides: Iterable[str] = ()) -> None:
        run = finished_search(folder)
        self._folder, self._seed, self._name = folder, run['seed'], str(run['strategy'])
        recipe = Recipe.of_folder(folder, overrides)
        assert recipe is not None  # run.json is there
        data = kept_description(folder) or task_of(recipe).shape(recipe)
        self._recipe = recipe = with_own_table(recipe, data)
        self.program = whole_program(recipe, data)
        self._strategy = self._restored(data)
        self._tables = operation_tables(self._strategy.architecture, self._strategy.relaxation)
        self._full = 1.0
        self._full = self.strength(self._select({})) or 1.0

    def strength(self, sample: Mapping[str, Any]) -> float:
        """Returns the strength of the cell of an NNI sample, as a fraction of the strongest cell of the search."""
        return strength(self._strategy.architecture, self._tables, sample) / self._full

    def within(self, limits: Mapping[str, float]) -> Found:
        """Returns the strongest cell within limits.

        Args:
            limits: measure → largest cost.

        Raises:
            InputError: if no cell of the space is within them.
        """
        check_possible(replace(self.program, limits=limits), self._recipe)
        return self._found(self._select(limits))

    def front(self, measure: str, limits: Mapping[str, float], points: int = 16) -> list[Found]:
        """Returns cells of the front of strength against a cost, from the cheapest cell to the strongest one.

        Args:
            measure: the cost.
            limits: limits that all cells keep.
            points: number of limits, at equal distances, under which the strongest cell is searched.

        Raises:
            InputError: as for :meth:`within`.
        """
        strongest = self.within(limits)
        most, least = strongest.costs[measure], self._least(measure, limits)
        steps = [least + (most - least) * step / (points - 1) for step in range(points - 1)]
        cells = [*(self._found(self._select({**limits, measure: step})) for step in steps), strongest]
        kept = pareto_front([cell.costs[measure] for cell in cells], [cell.strength for cell in cells], maximize=True)
        return [cells[index] for index in kept]

    def write(self, found: Found, limits: Mapping[str, float], output: Path) -> dict[str, Any]:
        """Writes a cell as a search does: ``genotype.json``, ``result.json`` and ``run.json``, whose recipe has the limits.

        Returns:
            The result.

        Raises:
            InputError: if the folder cannot be used.
        """
        recipe = self._recipe.changed({'limits': dict(limits)}, source='--limit')
        run = {**identity('search', self._seed, strategy=self._name), SUPERNET: str(self._folder.absolute())}
        check_folder(output, recipe, run, resume=False)
        output.mkdir(parents=True, exist_ok=True)
        run['recipe'] = recipe.to_dict()
        result = {'strength': round(found.strength, 6), **found.costs}
        write_json(output / RUN, run)
        write_text(output / GENOTYPE, found.genotype.to_json() + '\n')
        if (self._folder / DATA).is_file():
            shutil.copyfile(self._folder / DATA, output / DATA)
        write_json(output / RESULT, {'result': result, **run, **provenance()})
        return result

    def _restored(self, data: Any) -> DifferentiableStrategy:
        """Returns the strategy with the α of the last checkpoint; the supernet has no memory."""
        name, path = self._name, self._folder / CHECKPOINT
        strategy = configured_strategy(self._recipe, name)
        plain = isinstance(strategy, DifferentiableStrategy)
        if not plain or strategy.relaxation.sampled or strategy.selection.decides_while_searching:
            raise InputError(
                f'{self._folder} holds a search with {name}, from whose end no other cell can be read; search again with limits'
            )
        if not path.is_file():
            raise InputError(f'{self._folder} has no {CHECKPOINT}, which holds α; search again with limits in the recipe')
        with as_input_error(f'limits with {name}'), torch.device('meta'):
            strategy.keep_below(self.program)
            strategy.mutate_model(task_of(self._recipe).space(self._recipe, data))
        try:
            state = torch.load(path, map_location='cpu', weights_only=True, mmap=True)['state_dict']
        except Exception as error:  # torch raises many kinds of errors for a damaged file
            raise InputError(f'{path} is damaged ({type(error).__name__})') from None
        own = {key.removeprefix(_ALPHA): value for key, value in state.items() if key.startswith(_ALPHA)}
        strategy.architecture.load_state_dict(own, assign=True)
        if strategy.architecture.state.stopped is not None:
            raise InputError(f'the search in {self._folder} stopped early, and α has moved on since its cell; search again with limits')
        return strategy

    def _select(self, limits: Mapping[str, float]) -> dict[str, Any]:
        self._strategy.architecture.limits = replace(self.program, limits=limits)
        return self._strategy.select()

    def _least(self, measure: str, limits: Mapping[str, float]) -> float:
        """Returns the smallest cost of a cell within limits."""
        others = {name: limit for name, limit in limits.items() if name != measure}
        return replace(self.program, limits=others).cheapest(measure, within_limits=True)

    def _found(self, sample: Mapping[str, Any]) -> Found:
        costs = self.program.table.of(self.program.choices, sample)
        return Found(self._recipe.space.genotype_of(sample), self.strength(sample), costs)
