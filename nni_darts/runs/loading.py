"""Reads a finished or interrupted search back, for use in a notebook."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, METRICS
from nni_darts.genotypes import AnyGenotype, genotype_from_dict
from nni_darts.recipes import RUN, Recipe
from nni_darts.runs.costs import as_input_error, configured_strategy
from nni_darts.runs.folder import GENOTYPE, STAGE, read_json
from nni_darts.runs.keeping import kept_description
from nni_darts.runs.tasks import task_of
from nni_darts.runs.weights import fitting
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.training.checkpoints import read_checkpoint
from nni_darts.training.run import epochs_of

if TYPE_CHECKING:
    import pandas

__all__ = ['LoadedSearch', 'load_search']

_MODEL, _ALPHA = 'training_module._model.', 'architecture.'
"""Prefixes of the names of the supernet's weights and of α in a checkpoint."""


@dataclass(frozen=True)
class LoadedSearch:
    """A search with a supernet, at its last checkpoint.

    Attributes:
        recipe: all settings.
        strategy: strategy with the α of the checkpoint, which ``strategy.probabilities()`` and ``strategy.select()`` read.
        supernet: the supernet with its weights, on the CPU.
        genotype: result of a finished search, or the genotype that the α of an unfinished search would give.
        epochs: lines of ``metrics.jsonl``, one for each epoch.
        selection: lines of ``selection.jsonl``, one for each decision of a progressive selection.

    Example:
        ``load_search('out/search').alpha['normal_op_2_0'].plot()``
    """

    recipe: Recipe
    strategy: DifferentiableStrategy
    supernet: nn.Module
    genotype: AnyGenotype
    epochs: list[dict[str, Any]]
    selection: list[dict[str, Any]]

    @property
    def alpha(self) -> pandas.DataFrame:
        """The probabilities of operations: a row for each epoch, and a column for each (label of the choice, operation)."""
        import pandas

        rows = {
            line['epoch']: {(label, name): value for label, table in line['probabilities'].items() for name, value in table.items()}
            for line in self.epochs
            if 'probabilities' in line
        }
        frame = pandas.DataFrame.from_dict(rows, orient='index')
        frame.index.name = 'epoch'
        frame.columns = pandas.MultiIndex.from_tuples(frame.columns, names=['label', 'operation'])
        return frame

    @property
    def measurements(self) -> pandas.DataFrame:
        """The losses, metrics and seconds of each epoch: a row for each epoch."""
        import pandas

        numbers = [{name: value for name, value in line.items() if isinstance(value, (int, float))} for line in self.epochs]
        return pandas.DataFrame(numbers).set_index('epoch')


def load_search(folder: str | Path) -> LoadedSearch:
    """Loads a search from its output folder.

    Args:
        folder: output folder of ``nni-darts search`` with a strategy that has a supernet.

    Raises:
        InputError: if the folder holds no such search or no checkpoint yet; if the search has stages (P-DARTS), whose supernets depend on
            each other; if the text of a search on text is missing; or if a file is damaged.

    Example:
        ``load_search('out/search').genotype``
    """
    folder = Path(folder)
    run = read_json(folder / RUN) if (folder / RUN).is_file() else {}
    if not isinstance(run, dict) or run.get('stage') != 'search':
        raise InputError(f'{folder} holds no search: give the output folder of nni-darts search')
    if not isinstance(run.get('recipe'), dict) or not isinstance(run.get('strategy'), str):
        raise InputError(f'{folder / RUN} is damaged (it holds no recipe or no strategy); start again in another folder')
    recipe = Recipe.of_run(run['recipe'], source=str(folder / RUN))
    if any(folder.glob(f'{STAGE}*')):
        raise InputError(f'{folder} holds a search in stages, whose last supernet cannot be built without the earlier ones')
    if not (folder / CHECKPOINT).is_file():
        raise InputError(f'{folder} has no checkpoint: its strategy has no supernet, or its first epoch has not ended')
    strategy = configured_strategy(recipe, run['strategy'])
    with as_input_error(str(folder)), fitting(folder):
        data = kept_description(folder) or task_of(recipe).shape(recipe)
        supernet = strategy.mutate_model(task_of(recipe).space(recipe, data))
        with as_input_error(f'{folder / CHECKPOINT} is damaged'):
            read_checkpoint(folder / CHECKPOINT)
        state = torch.load(folder / CHECKPOINT, map_location='cpu', weights_only=True)['state_dict']
        strategy.architecture.load_state_dict(
            {name.removeprefix(_ALPHA): value for name, value in state.items() if name.startswith(_ALPHA)}
        )
        supernet.load_state_dict({name.removeprefix(_MODEL): value for name, value in state.items() if name.startswith(_MODEL)})
    path, lines = folder / GENOTYPE, folder / 'selection.jsonl'
    with as_input_error(f'{path} is damaged'):
        found = genotype_from_dict(read_json(path)) if path.is_file() else recipe.space.genotype_of(strategy.select())
    if not recipe.space.accepts(found):
        raise InputError(f'{path} holds {found.in_words}, and the search has {recipe.space.cells_in_words}')
    with as_input_error(f'{lines} or {folder / METRICS} is damaged'):
        decisions = [json.loads(line) for line in lines.read_text('utf-8').splitlines()] if lines.is_file() else []
        return LoadedSearch(recipe, strategy, supernet, found, epochs_of(folder), decisions)
