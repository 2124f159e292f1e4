"""What ``nni-darts check`` runs on a remote machine, sent to its Python: it may import nothing of ours before it knows that it is there.

Reads ``ARGUMENTS`` (recipe as plain data, or None), prints one JSON object on the last line.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Without annotations: the Python of another machine may be an old one.

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
    except Exception as error:  # whatever keeps it from working is what we want to know
        found['data'] = f'{type(error).__name__}: {error}'.splitlines()[0]
    return found


print('\n' + json.dumps(_look(ARGUMENTS)))  # type: ignore[name-defined]  # noqa: F821
