"""The table of latencies of an experiment: measured once, by a process of its own, before the first trial starts. Imports no torch.

The tuner cannot import torch. It starts ``python -m nni_darts.experiment.latencies`` on the manager's machine, which reads the recipe as
JSON from stdin, measures the latencies or reads them from the machine's cache, and answers with JSON. The table is kept in
``latency.json`` among the manager's logs for a resumed experiment, and becomes part of the recipe of each trial, wherever it runs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.worker import Worker
from nni_darts.files import write_text
from nni_darts.recipes import Recipe

__all__ = ['LatencyTables', 'check_rows', 'main']

LATENCY = 'latency.json'
LOG = 'latency.log'


class LatencyTables:
    """Gives an experiment's recipe its table of latencies.

    Args:
        folder: folder of the manager's logs, which gets the table.
        recipe: the recipe, whose ``latency`` has no table yet.

    Example:
        ``LatencyTables(Path('log'), recipe).update()`` is None until the latencies are measured, and then the recipe with its table.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder, self._recipe = folder, recipe
        self._worker: Worker | None = None

    def update(self) -> Recipe | None:
        """Takes the next step. Returns the recipe with its table; None while latencies are being measured.

        Raises:
            InputError: if they cannot be measured.
        """
        path = self._folder / LATENCY
        if self._worker is None and path.is_file():
            found = self._recipe.with_kept_table(json.loads(path.read_text('utf-8')))
            if found is not self._recipe:
                return found
        if self._worker is None:
            code = Path(sys.path[-1])  # NNI puts the tuner's codeDirectory there
            folder = code if code.is_dir() else None
            self._worker = Worker('nni_darts.experiment.latencies', self._recipe.to_dict(), self._folder / LOG, folder)
        if self._worker.running:
            return None
        answer = self._worker.answer('latency: the process that measured')
        if 'error' in answer:
            raise InputError(answer['error'])
        write_text(path, json.dumps(answer, indent=1) + '\n')
        return self._recipe.with_kept_table(answer)

    def close(self) -> None:
        """Ends the process that measures if it is still running."""
        if self._worker is not None:
            self._worker.close()


def check_rows(protocol: Protocol) -> None:
    """Raises InputError if rows of an experiment change sizes, because its latencies are measured once."""
    recipe = protocol.recipe
    if recipe.latency is None or recipe.latency.table is not None:
        return
    for strategy in protocol.strategies:
        row = protocol.recipe_of(strategy)
        if row.space != recipe.space or row.retrain != recipe.retrain:
            raise InputError(
                f'searchSpace: the row {strategy} changes the space or retrain, but latencies are measured once for the whole experiment; '
                'run an experiment for each, or leave latency_ms out'
            )


def main() -> None:
    """Prints ``{"latency": …}``, the recipe's section with its table, or ``{"error": …}``, for the recipe on stdin."""
    logging.disable(logging.INFO)
    values = json.loads(sys.stdin.readline())
    with redirect_stdout(sys.stderr):
        try:
            answer: Mapping[str, Any] = {'latency': _measured(values)}
        except InputError as error:
            answer = {'error': str(error)}
    print(json.dumps(answer), flush=True)


def _measured(values: Mapping[str, Any]) -> Any:
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    from nni_darts.runs.latencies import with_own_table
    from nni_darts.runs.tasks import task_of

    recipe = Recipe.of_run(values)
    return with_own_table(recipe, task_of(recipe).shape(recipe)).to_dict()['latency']


if __name__ == '__main__':
    main()
