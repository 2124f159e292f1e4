"""Another selection from the supernet of a finished search (Wang et al., ICLR 2021, compare selections in the same supernets).

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT
from nni_darts.recipes import RUN, Recipe
from nni_darts.runs.checks import check_strategies, named_method, strategy_settings
from nni_darts.runs.folder import EXECUTOR, RESULT, SUPERNET, differences, identity, read_json, write_json
from nni_darts.strategies.methods import SELECTIONS
from nni_darts.strategies.registry import full_name, row_parts

if TYPE_CHECKING:
    from nni_darts.runs.spec import RunSpec, Work

__all__ = ['Derivation', 'begun_from_supernet', 'derivation', 'different_settings', 'different_supernet', 'finished_search']

_SETTINGS = 'search.settings'

_MAY_CHANGE = ('search.tuning_epochs', 'limits', 'latency', 'select', 'retrain')
"""Settings of a recipe that may differ from the search; other settings belong to it."""

_SIZE = ('retrain.channels', 'retrain.cells', 'retrain.space', 'retrain.pool_batch_norm', 'latency')
"""Settings of the network, and of its latencies, whose costs ``search.penalty`` counts."""


class Derivation(NamedTuple):
    """A run that continues from the supernet of a finished search with another selection.

    Attributes:
        recipe: all settings.
        strategy: name of the strategy with its selection.
        seed: seed of the search.
        supernet: output folder of the search.
    """

    recipe: Recipe
    strategy: str
    seed: int
    supernet: Path

    def identity(self) -> dict[str, Any]:
        """Returns the entries of ``run.json`` besides the recipe, as :meth:`RunSpec.identity` does."""
        return {**identity('search', self.seed, strategy=self.strategy), SUPERNET: str(self.supernet)}

    def spec(self) -> RunSpec:
        """Returns the description of the run. Imports torch."""
        from nni_darts.runs.spec import RunSpec

        return replace(RunSpec.search(self.recipe, self.strategy, self.seed), supernet=self.supernet)


def derivation(search: Path, selection: str, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Derivation:
    """Describes the run that continues from the supernet of a finished search with another selection.

    Args:
        search: output folder of a search with a supernet, whose strategy selects by magnitude at the end.
        selection: ``pt``, ``pt-mag`` or ``shapley``.
        overrides: changes to the search's recipe in ``search.tuning_epochs``, settings of the selection, ``limits``, ``latency``,
            ``select`` and ``retrain``; with a penalty, not to the size of the network of ``retrain`` or to ``latency``.

    Returns:
        The description. The run gives the same cell as a search with the strategy ``…+pt`` from the start, bit for bit.

    Raises:
        InputError: if the folder holds no such search, the selection does not fit its strategy, or another setting is to be changed.
    """
    run = finished_search(search)
    strategy = str(run['strategy'])
    named_method(f'{strategy}+{selection}')  # raises for a strategy that takes no other selection
    if named_method(strategy).decides_early:
        raise InputError(
            f'{search} holds a search with {strategy}, which has decided its edges during the search; '
            f'search again with {strategy}+{selection}'
        )
    if not (search / CHECKPOINT).is_file():
        raise InputError(f'{search} has no {CHECKPOINT}, which holds the supernet; search again with {strategy}+{selection}')
    before, recipe = (Recipe.of_folder(search, changes) for changes in ((), overrides))
    assert before is not None and recipe is not None  # run.json is there
    if before.budget is not None:
        raise InputError(
            f'the search in {search} had a budget, which makes searches with +{selection} shorter; search again with {strategy}+{selection}'
        )
    changed = different_supernet(before, recipe) + different_settings((before, strategy), (recipe, f'{strategy}+{selection}'))
    if changed:
        why = ', because search.penalty counts the costs of that network' if _is_in(changed[0], _SIZE) else ''
        raise InputError(
            f'{changed[0]} belongs to the search in {search} and cannot change now{why}; changes are allowed in '
            f'{", ".join(_MAY_CHANGE)}, and in settings of the selection; to change it, search again with {strategy}+{selection}'
        )
    check_strategies(recipe, [f'{strategy}+{selection}'])
    return Derivation(recipe, f'{strategy}+{selection}', run['seed'], search.absolute())


def finished_search(search: Path) -> dict[str, Any]:
    """Returns the content of ``run.json`` of a finished search with a supernet, whose selection has not decided its edges.

    Raises:
        InputError: if the folder holds no such search.
    """
    run = read_json(search / RUN) if (search / RUN).is_file() else {}
    if not isinstance(run, dict) or run.get('stage') != 'search':
        raise InputError(f'{search} holds no search; give the output folder of a finished nni-darts search')
    strategy = str(run.get('strategy'))
    if not (search / RESULT).is_file():
        raise InputError(f'the search in {search} is not finished; continue it with nni-darts search --resume')
    method = named_method(strategy)
    if method.one_by_one:
        raise InputError(f'{search} holds a search with {strategy}, which trains cells one by one: there is no supernet to select from')
    if '+' in full_name(strategy):  # darts-pt is an alias
        base = full_name(strategy).partition('+')[0]
        raise InputError(
            f'{search} holds a search with {strategy}, whose selection has fine-tuned the supernet and decided its edges; '
            f'give a search with {base}'
        )
    return run


def different_supernet(one: Recipe, other: Recipe) -> list[str]:
    """Returns the keys with different values in two recipes that do not belong to the same search of a supernet.

    ``select`` and ``retrain`` come after the search. Only a penalty reads the size of the network of ``retrain``.
    """
    values, others = one.to_dict(), other.to_dict()
    found = dict.fromkeys([*differences(values, others), *differences(others, values)])
    read = _SIZE if one.search.penalty is not None else ()
    return [key for key in found if _is_in(key, read) or not _is_in(key, (*_MAY_CHANGE, _SETTINGS))]


def different_settings(search: tuple[Recipe, str], selection: tuple[Recipe, str]) -> list[str]:
    """Returns the keys of settings with different values in a search and in one with another selection, except the selection's own.

    Args:
        search: recipe and strategy of the search.
        selection: recipe and strategy, with its selection.
    """
    own = SELECTIONS[full_name(row_parts(selection[1])[0]).partition('+')[2]][3].model_fields
    searched, selected = (
        {entry.name: entry.default for entry in named_method(name).settings()} | strategy_settings(recipe, name)
        for recipe, name in ((recipe, row_parts(row)[0]) for recipe, row in (search, selection))
    )
    common = searched.keys() & selected.keys() - own.keys()
    return sorted(f'{_SETTINGS}.{selection[1]}.{name}' for name in common if searched[name] != selected[name])


def _is_in(key: str, sections: Iterable[str]) -> bool:
    return any(f'{key}.'.startswith(f'{section}.') for section in sections)


def begun_from_supernet(work: Work) -> Work:
    """Puts the state of the supernet's search into the folder of a run that continues from it, unless the run has begun already.

    Returns:
        The work, which resumes from that state.
    """
    from nni_darts.runs.keeping import begun_from

    search, output = work.spec.supernet, work.output
    if search is not None and not (output / CHECKPOINT).exists() and (search / CHECKPOINT).is_file():
        executor = read_json(search / RUN).get(EXECUTOR)
        if executor is not None:
            write_json(output / RUN, {**read_json(output / RUN), EXECUTOR: executor})
    return begun_from(work, search, 'the supernet of this run')
