"""The script that ``nni-darts check`` runs on a remote machine. It must not import nni_darts before it knows that it is installed there.

It reads ``ARGUMENTS`` (a recipe as plain data, or None) and prints one JSON object on the last line.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# No annotations, because the remote machine may have an old Python.

import importlib.metadata
import json
import platform
import shutil
import warnings


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _look(recipe):
    found = {
        'python': platform.python_version(),
        'nni': _version('nni'),
        'nni-darts': _version('nni-darts'),
        'program': shutil.which('nni-darts'),
        'gpus': [],
        'data': None,
    }
    if found['nni'] is None or found['nni-darts'] is None:
        return found
    warnings.simplefilter('ignore')
    try:
        from nni_darts.experiment.gpus import visible_gpus

        found['gpus'] = visible_gpus()
        if recipe is not None:
            from nni_darts.recipes import Recipe
            from nni_darts.runs.tasks import task_of

            checked = Recipe.from_dict(recipe)
            task_of(checked).load(checked)
    except Exception as error:  # any error is reported
        found['data'] = f'{type(error).__name__}: {error}'.splitlines()[0]
    return found


print('\n' + json.dumps(_look(ARGUMENTS)))  # type: ignore[name-defined]  # noqa: F821
