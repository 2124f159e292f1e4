"""The output folder of a run: its files, the run that it belongs to, and the lock on it. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, METRICS, PREVIOUS, lock, no_room, write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import RUN, Recipe, with_split

__all__ = [
    'AMOUNTS',
    'BY_MAGNITUDE',
    'CONTINUES',
    'DATA',
    'EXECUTOR',
    'FROM',
    'GENOTYPE',
    'LOCK',
    'MORE',
    'PART',
    'RANKING',
    'RESULT',
    'STAGE',
    'SUPERNET',
    'WEIGHTS',
    'alone_in',
    'changed_amounts',
    'check_amounts',
    'check_folder',
    'claim',
    'differences',
    'identity',
    'read_json',
    'write_json',
]

RESULT, GENOTYPE, WEIGHTS, BY_MAGNITUDE = 'result.json', 'genotype.json', 'weights.pt', 'magnitude.json'
RANKING = 'ranking.json'
"""The scores of the cells that a proxy ranked, in the order in which they were drawn."""
DATA = 'data.json'
"""The classes, channels, size, mean and standard deviation of the images, which are all that export needs of the data."""
STAGE = 'stage-'
"""Prefix of the folders with the checkpoints of a search in stages."""
LOCK = 'run.lock'
EXECUTOR = 'executor'
"""The key in ``run.json`` of the executor that computes the cells."""

AMOUNTS = 'amounts'
"""The key in ``run.json`` of the sizes of the data's parts and the classes. Runs of earlier versions lack it."""

FROM, MORE = 'weights', 'more'
"""Keys in ``run.json`` of the folder whose weights a training starts from, and of the numbers of epochs of each continuation of a
finished training. The folders ``more-1`` and so on have the checkpoints of continuations."""

PART, CONTINUES = 'part', 'continues'
"""Keys in ``run.json`` of a part of a training: the epochs before and after it, and the name of the folder of the part that it
continues, which lies beside its own."""

SUPERNET = 'supernet'
"""The key in ``run.json`` of the folder of the search from whose supernet another search continues."""


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Creates the folder if necessary, and keeps other processes out of it within the block.

    Raises:
        InputError: if the folder cannot be created, or another process is working in it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        held = lock(output / LOCK)
    except OSError as error:
        if no_room(error):
            raise
        raise InputError(f'cannot make the folder {output}: {error.strerror}') from None
    if held is None:
        raise InputError(f'another process is working in {output}')
    try:
        yield
    finally:
        os.close(held)


def identity(
    stage: str, seed: int, *, strategy: str = '', genotype: AnyGenotype | None = None, weights: Path | None = None
) -> dict[str, Any]:
    """Returns the identity of a run apart from its recipe, as plain data for ``run.json``.

    Args:
        stage: ``search``, ``select`` or ``retrain``.
        seed: seed of the run.
        strategy: name of the strategy, for a search.
        genotype: cell to train, for a training.
        weights: the folder whose weights a training starts from, if not from scratch.
    """
    if genotype is None:
        return {'stage': stage, 'strategy': strategy, 'seed': seed}
    begins = {} if weights is None else {FROM: str(weights.absolute())}
    return {'stage': stage, 'seed': seed, 'genotype': genotype.to_dict(), **begins}


def check_folder(output: Path, recipe: Recipe, what: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Checks that a run may use a folder, without changing anything.

    Args:
        output: the folder.
        recipe: all settings.
        what: result of :func:`identity`.
        resume: whether the run is to be resumed.

    Returns:
        The content of ``run.json`` if this run was begun in the folder; otherwise None.

    Raises:
        InputError: if the folder cannot be created; or has another run, this run although it is not to be resumed, or other files
            of the same names.
    """
    try:
        _check_place(output)
        files = [file.name for file in output.iterdir()] if output.is_dir() else []
    except OSError as error:
        raise InputError(f'cannot make the folder {output}: {error.strerror}') from None
    kept = sorted(set(files) & {RESULT, GENOTYPE, WEIGHTS, METRICS, CHECKPOINT, PREVIOUS, 'cell-0', f'{STAGE}1'})
    if not kept:
        return None  # a run that ended before its first epoch is replaced
    if not (output / RUN).exists():
        raise InputError(f'{output} holds {kept[0]}, but no run that can be resumed; choose another folder')
    before = read_json(output / RUN)
    if not isinstance(before, dict) or not isinstance(before.get('recipe'), dict):
        raise InputError(f'{output / RUN} is damaged (it holds no recipe); choose another folder')
    before['recipe'] = _completed(before['recipe'])
    if not resume:
        raise InputError(f'{output} already holds a run; add --resume to continue it, or choose another folder')
    different = differences({**what, 'recipe': recipe.with_kept_table(before['recipe']).to_dict()}, before)
    if different:
        hint = f'; it splits its images by another rule, so add --set data.split={before["recipe"]["data"]["split"]}'
        raise InputError(
            f'{output} holds a run with another {", ".join(different)}; a resumed run keeps its settings'
            + (hint if different == ['recipe.data.split'] else '')
        )
    return before


def _check_place(output: Path) -> None:
    """Raises InputError if the folder cannot be created or written to."""
    place = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    if not place.is_dir():
        raise InputError(f'cannot make the folder {output}: {place} is a file')
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(f'cannot write into {place}: permission denied')


def changed_amounts(run: Mapping[str, Any], amounts: Mapping[str, Any]) -> str:
    """Returns how the data have changed since the start of a run in a few words; '' if they have not, or the run does not record them.

    Args:
        run: content of ``run.json``.
        amounts: present sizes of the data's parts, and classes.
    """
    kept = run.get(AMOUNTS)
    kept = kept if isinstance(kept, dict) else {}
    changes = []
    for name, now in amounts.items():
        before = kept.get(name, now)
        if before != now:
            then, now = ((len(value) if isinstance(value, list) else value) for value in (before, now))
            changes.append(f'{name}: other names' if then == now else f'{name}: {then} then, {now} now')
    return '; '.join(changes)


def check_amounts(output: Path, run: Mapping[str, Any], amounts: Mapping[str, Any]) -> None:
    """Raises InputError if the data of a run have changed since it was begun, because another split would mix training and test data.

    Args:
        output: output folder of the run.
        run: see :func:`changed_amounts`.
        amounts: see :func:`changed_amounts`.
    """
    changed = changed_amounts(run, amounts)
    if changed:
        raise InputError(
            f'{output} holds a run whose data have changed since ({changed}), so it would train on images or text that it must be tested '
            'on; restore the data, or start again in another folder'
        )


def claim(output: Path, recipe: Recipe, what: dict[str, Any], resume: bool, amounts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Claims the folder for this run. Other arguments and errors are those of :func:`check_folder`.

    Args:
        amounts: sizes of the data's parts, and classes; the run can only be resumed with the same data.

    Returns:
        The result, if the resumed run is already finished; otherwise None.
    """
    before = check_folder(output, recipe, what, resume)
    run = {**what, AMOUNTS: dict(amounts), 'recipe': recipe.to_dict()}
    if before is not None:
        check_amounts(output, before, amounts)
        if (output / RESULT).exists():
            finished = read_json(output / RESULT)
            if not isinstance(finished, dict) or not isinstance(finished.get('result'), dict):
                raise InputError(f'{output / RESULT} is damaged (it holds no result); choose another folder')
            return finished['result']
        run = {**{key: before[key] for key in (EXECUTOR, FROM, SUPERNET, 'plan') if key in before}, **run}
    write_json(output / RUN, run)
    return None


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe of a run of an earlier version, with defaults for the settings that it lacks."""
    try:
        return Recipe.of_run(values).to_dict()
    except InputError:
        return with_split(values)  # written by a later version or edited by hand; the differences are reported


def differences(one: Any, other: Any, path: str = '') -> list[str]:
    """Returns the dotted keys whose values differ between two pieces of plain data."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [path]
    return [found for key in one for found in differences(one[key], other.get(key), f'{path}.{key}'.lstrip('.'))]


def read_json(path: Path) -> Any:
    """Reads a JSON file that a run wrote. Raises InputError if it is damaged."""
    try:
        return json.loads(path.read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} is damaged ({error}); start again in another folder') from None


def write_json(path: Path, value: Any) -> None:
    """Replaces the content of a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2) + '\n')
