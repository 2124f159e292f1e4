"""The protocol of the DARTS paper as jobs: the trials to run next, given the results so far. All functions are pure.

The protocol searches with every strategy and seed, trains each found cell for a short time, keeps each strategy's best cell by
validation, and retrains that cell from scratch. Strategies that train cells one by one, such as random search and evolution, have no
search trial: their cells go straight to the short training. If a proxy ranks untrained cells first, that ranking is their search trial.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from nni_darts.errors import InputError
from nni_darts.experiment.arguments import BEST, EACH_SEED
from nni_darts.genotypes import AnyGenotype, genotype_from_code
from nni_darts.recipes import Recipe
from nni_darts.runs.cells import number_of_cells, parts_to_train, prior_of, rungs_of
from nni_darts.runs.checks import check_strategies, check_strategy
from nni_darts.runs.derive import different_settings, different_supernet
from nni_darts.strategies.registry import find, full_name, row_parts
from nni_darts.strategies.trained.halving import Halving

__all__ = ['Job', 'Protocol', 'parse_search_space']

Results = Mapping[str, Mapping[str, Any]]
"""Key of a job → its final metric, as the trial reported it to NNI."""


@dataclass(frozen=True)
class Job:
    """The work of one trial.

    Attributes:
        stage: ``search``, ``select`` or ``retrain``.
        strategy: name of the strategy.
        seed: seed of the search; for ``retrain``, the number of the run.
        arch: code of the cell to train; empty for a search.
        cell: number of a cell, from 1, if the strategy trains cells one by one; 0 for a cell that a supernet search found.
        after: key of the job whose state this job continues: the search whose supernet another search takes, or the part of a training
            before this part; empty if it starts from scratch.
        part: epochs before and after a part of a short training (``select.halving``); None for a whole training.
        last: whether this part is the last one of a training, or the training is not divided.
    """

    stage: str
    strategy: str
    seed: int
    arch: str = ''
    cell: int = 0
    after: str = ''
    part: tuple[int, int] | None = None
    last: bool = True

    @property
    def key(self) -> str:
        """The identifier of the job, which does not change when an experiment resumes. It is short because NNI's page shows it."""
        part = '' if self.part is None else f'@{self.part[1]}'
        return f'{self.stage} {self.strategy} {self.seed}{f".{self.cell}" if self.cell else ""}{part}'


@dataclass(frozen=True)
class Protocol:
    """The plan of an experiment: its searches, short trainings and retrainings.

    Attributes:
        recipe: all settings.
        strategies: names of strategies. Settings that a strategy changes in the recipe may follow its name.
        seeds: seeds of the searches; every strategy is searched under every seed.
        retrain_runs: if ``retrain`` is ``best``, how often each strategy's best cell is trained from scratch, with seeds 1, 2, ….
        retrain: ``best`` trains the best cell of all seeds; ``each_seed`` trains the best cell of every seed once, with that seed, so that
            test results have a spread over searches.
        share_search: whether a search such as ``darts-1st+pt`` continues from the supernet that ``darts-1st`` found under the same seed.

    Raises:
        InputError: for wrong settings of a strategy or in the search space, a budget that is too small for a strategy that trains cells
            one by one, or ``share_search`` without strategies that can share.
    """

    recipe: Recipe
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    retrain_runs: int = 1
    retrain: str = BEST
    share_search: bool = False

    def __post_init__(self) -> None:
        recipes = {strategy: self._changed(strategy) for strategy in self.strategies}
        object.__setattr__(self, '_recipes', recipes)
        for strategy, recipe in recipes.items():
            check_strategies(recipe, [row_parts(strategy)[0]])
        shared = self._sharing() if self.share_search else {}
        object.__setattr__(self, '_shared', shared)
        if self.share_search and not shared:
            raise InputError(
                'classArgs.share_search: no strategy of this experiment can continue from the supernets of another one; '
                'list both, for example darts-1st and darts-1st+pt, or leave share_search out'
            )

    def _sharing(self) -> dict[str, str]:
        """Returns strategy with a selection → strategy whose supernets it continues from.

        Raises:
            InputError: with a budget, which gives them searches of different lengths.
        """
        if self.recipe.budget is not None:
            raise InputError('classArgs.share_search cannot be combined with a budget, which makes searches with +pt shorter')
        found = {}
        for strategy in self.strategies:
            base, plus, _ = full_name(strategy).partition('+')
            for other in self.strategies:
                continues = plus and full_name(other) == base and not find(base).decides_early
                recipe, of_other = self.recipe_of(strategy), self.recipe_of(other)
                if continues and not different_supernet(of_other, recipe) + different_settings((of_other, other), (recipe, strategy)):
                    found[strategy] = other
        return found

    def recipe_of(self, strategy: str) -> Recipe:
        """Returns the recipe with the settings that one of the ``strategies`` changes, such as ``darts-2nd search.epochs=5``."""
        recipes: dict[str, Recipe] = self._recipes  # type: ignore[attr-defined]
        return recipes[strategy]

    @property
    def changes_settings(self) -> bool:
        """Whether any row changes settings of the recipe."""
        return any(row_parts(strategy)[1] for strategy in self.strategies)

    def searches(self, strategy: str) -> bool:
        """Returns whether a strategy has a search trial: it trains a supernet, or ranks untrained networks by a proxy."""
        return not find(strategy).one_by_one or prior_of(self.recipe_of(strategy), row_parts(strategy)[0]) is not None

    @property
    def halves(self) -> bool:
        """Whether any short training is divided into parts, each a trial that continues from the files of the one before it."""
        return any(self.rungs(strategy) is not None for strategy in self.strategies)

    def _changed(self, strategy: str) -> Recipe:
        _, changes = row_parts(strategy)
        return self.recipe.changed(changes, source='searchSpace') if changes else self.recipe

    def jobs(self, results: Results, given_up: Collection[str]) -> list[Job]:
        """Returns all jobs that are known by now, including finished ones, in the order in which they should run.

        Args:
            results: results of the finished jobs.
            given_up: keys of jobs that failed too often.
        """
        searches: list[Job] = []
        selects: list[Job] = []
        retrains: list[Job] = []
        for strategy in self.strategies:
            pending = dict.fromkeys(self.seeds, False)
            for seed in self.seeds:
                search = self._search(strategy, seed)
                mine = self._selects(search, results, given_up)
                selects += mine
                if self.searches(strategy):
                    searches.append(search)
                    mine = [*mine, search]
                pending[seed] = any(job.key not in results and job.key not in given_up for job in mine)
            if self.retrain == EACH_SEED:
                for seed in self.seeds:
                    best = None if pending[seed] else self.best(strategy, results, (seed,))
                    retrains += [Job('retrain', strategy, seed, best['arch'])] if best else []
            else:
                best = None if any(pending.values()) else self.best(strategy, results)
                runs = range(1, self.retrain_runs + 1)
                retrains += [Job('retrain', strategy, run, best['arch']) for run in runs if best]
        return searches + selects + retrains

    def _search(self, strategy: str, seed: int) -> Job:
        shared: dict[str, str] = self._shared  # type: ignore[attr-defined]
        return Job('search', strategy, seed, after=Job('search', shared[strategy], seed).key if strategy in shared else '')

    def expected(self, given_up: Collection[str] = ()) -> Counter[tuple[str, str]]:
        """Returns (stage, strategy) → total number of jobs at the end of the experiment, as far as it is known by now.

        Args:
            given_up: keys of jobs that failed too often; they are counted, too.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for strategy in self.strategies:
            promising = []
            for seed in self.seeds:
                if self.searches(strategy):
                    counts['search', strategy] += 1
                    if Job('search', strategy, seed).key in given_up:
                        continue
                trainings = self._trainings(strategy, seed)
                halving = self.rungs(strategy)
                first = trainings if halving is None else [job for job in trainings if job.part == (0, halving.rungs[0])]
                promising.append(any(job.key not in given_up for job in first))
                counts['select', strategy] += len(first) if halving is None or not promising[-1] else sum(halving.counts(len(first)))
            if any(promising):
                counts['retrain', strategy] = sum(promising) if self.retrain == EACH_SEED else self.retrain_runs
        return counts

    def rungs(self, strategy: str) -> Halving | None:
        """Returns the rungs of the short trainings of a strategy's cells; None if each is trained in full."""
        return rungs_of(self.recipe_of(strategy), row_parts(strategy)[0])

    def _selects(self, search: Job, results: Results, given_up: Collection[str]) -> list[Job]:
        """Returns the short trainings of the cells that a strategy has found or proposed under a seed by now."""
        strategy, seed = search.strategy, search.seed
        if not find(strategy).one_by_one:
            return [Job('select', strategy, seed, results[search.key]['arch'])] if search.key in results else []
        ranked: list[AnyGenotype] = []
        if self.searches(strategy):
            if search.key not in results:
                return []
            ranked = [genotype_from_code(code) for code in results[search.key]['ranked'].split()]
        halving = self.rungs(strategy)
        values: dict[tuple[int, int], float | None] = {}
        for job in self._trainings(strategy, seed):
            if job.key in results or job.key in given_up:
                rung = 0 if halving is None or job.part is None else halving.rungs.index(job.part[1])
                values[job.cell, rung] = results[job.key]['default'] if job.key in results else None
        parts = parts_to_train(self.recipe_of(strategy), strategy, seed, values, ranked)
        return [self._part(search, part.number, part.genotype.code(), part.epochs) for part in parts]

    def _part(self, search: Job, cell: int, arch: str, part: tuple[int, int] | None) -> Job:
        """Returns the job of a part of a short training, which continues the part before it; ``part`` is None for a whole training."""
        strategy, seed = search.strategy, search.seed
        halving = self.rungs(strategy)
        if part is None or halving is None:
            return Job('select', strategy, seed, arch, cell)
        steps = dict(zip(halving.rungs, (0, *halving.rungs)))  # epochs after a part → epochs before it
        after = self._part(search, cell, '', (steps[part[0]], part[0])).key if part[0] else ''
        return Job('select', strategy, seed, arch, cell, after, part, part[1] == halving.rungs[-1])

    def _trainings(self, strategy: str, seed: int) -> list[Job]:
        """Returns the short trainings, and all their parts, that a strategy can have under a seed, without the codes of their cells."""
        if not find(strategy).one_by_one:
            return [Job('select', strategy, seed)]
        halving, search = self.rungs(strategy), Job('search', strategy, seed)
        steps = [None] if halving is None else list(zip((0, *halving.rungs), halving.rungs))
        numbers = range(1, number_of_cells(self.recipe_of(strategy), strategy) + 1)
        return [self._part(search, number, '', part) for part in steps for number in numbers]

    def select_results(self, strategy: str, results: Results) -> list[Mapping[str, Any]]:
        """Returns the results of the short trainings of a strategy's cells, in the order of seeds and cells.

        If only some cells are trained in full (``select.halving``), these are the results of the cells of each seed's highest rung so far.
        """
        found: list[Mapping[str, Any]] = []
        for seed in self.seeds:
            done = [job for job in self._trainings(strategy, seed) if job.key in results]
            longest = max((job.part[1] for job in done if job.part is not None), default=0)
            found += [{**results[job.key], 'seed': seed} for job in done if job.part is None or job.part[1] == longest]
        return found

    def best(self, strategy: str, results: Results, seeds: Collection[int] | None = None) -> Mapping[str, Any] | None:
        """Returns the result of a strategy's best cell by validation after the short training, the first one in a tie.

        Args:
            strategy: name of the strategy.
            results: results of the finished jobs.
            seeds: seeds under which the cell may have been found; None for all seeds.
        """
        known = [result for result in self.select_results(strategy, results) if seeds is None or result['seed'] in seeds]
        return self.recipe.metric.best(known, lambda result: result['default'])


def parse_search_space(space: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Reads strategies and seeds from NNI's search space.

    Besides ``strategy`` and ``seed``, the search space may have settings of the recipe, such as
    ``search.epochs: {_type: choice, _value: [5, 10]}``. Every strategy is then compared under every combination of settings. Each
    combination has a name of its own, such as ``darts-2nd search.epochs=5``.

    Example:
        ``parse_search_space({'strategy': {'_type': 'choice', '_value': ['darts-2nd', 'random']}})``

    Raises:
        InputError: for any other key, an unknown strategy, seeds that are not integers from 1, or values that are not numbers or words.
    """
    if not isinstance(space, Mapping) or 'strategy' not in space or any(not _is_setting(key) for key in set(space) - {'strategy', 'seed'}):
        raise InputError(
            "searchSpace must have the key 'strategy'; it may have 'seed', and settings of the recipe's sections "
            f'{", ".join(_SECTIONS)}, such as search.epochs'
        )
    values: dict[str, list[Any]] = {}
    for key, entry in space.items():
        chosen = entry.get('_value') if isinstance(entry, Mapping) and entry.get('_type') == 'choice' else None
        if not isinstance(chosen, list) or not chosen:
            raise InputError(f'searchSpace.{key} must be {{_type: choice, _value: [...]}} with at least one value, not {entry!r}')
        values[key] = chosen
    for name in values['strategy']:
        if not isinstance(name, str) or ' ' in name:
            raise InputError(f'searchSpace.strategy: {name!r} must be the name of a strategy')
        check_strategy(name, 'searchSpace.strategy')
    seeds = values.get('seed', [1])
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 1 <= seed < 2**31:
            raise InputError(f'searchSpace.seed: {seed!r} must be a whole number from 1 (in NNI, 0 shows as a missing value)')
    settings = [[f'{key}={_word(key, value)}' for value in values[key]] for key in sorted(set(values) - {'strategy', 'seed'})]
    rows = (' '.join(row) for row in product(values['strategy'], *settings))
    return tuple(dict.fromkeys(rows)), tuple(dict.fromkeys(seeds))


_SECTIONS = ('space', 'search', 'select', 'retrain')


def _is_setting(key: Any) -> bool:
    return isinstance(key, str) and key.partition('.')[0] in _SECTIONS and bool(key.partition('.')[2]) and not set(key) & set(' =')


def _word(key: str, value: Any) -> str:
    """Returns a value as part of a name. Raises InputError unless it is a number, a word, true, false or null."""
    word = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, (list, dict)) or not word or set(word) & set(' ="#/'):
        raise InputError(f'searchSpace.{key}: {value!r} must be a number, a word, true, false or null')
    return word
