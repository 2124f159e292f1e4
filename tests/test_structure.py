"""Rules about the source that neither ruff nor import-linter (pyproject.toml) can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ('nni_darts', 'search_spaces', 'strategies')
MOST_PARAMETERS, MOST_LINES = 7, 400

TORCH_FREE = (
    'nni_darts',
    'nni_darts.activity',
    'nni_darts.cli',
    'nni_darts.experiment.arguments',
    'nni_darts.experiment.gpus',
    'nni_darts.experiment.nnictl',
    'nni_darts.experiment.records',
    'nni_darts.experiment.starters',
    'nni_darts.experiment.trial',
    'nni_darts.experiment.tuner',
    'nni_darts.experiment.validate',
    'nni_darts.genotypes',
    'nni_darts.genotypes.kinds',
    'nni_darts.recipes',
    'nni_darts.report.summary',
    'nni_darts.report.table_formats',
    'nni_darts.runs.cells',
    'nni_darts.runs.checks',
    'nni_darts.runs.folder',
    'nni_darts.runs.location',
    'nni_darts.strategies.catalogue',
    'nni_darts.strategies.explanations',
    'nni_darts.strategies.registry',
    'nni_darts.strategies.trained',
)


def sources() -> Iterator[tuple[str, str]]:
    """Yields path and text of every module of the package."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob('*.py')):
            yield path.relative_to(ROOT).as_posix(), path.read_text('utf-8')


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef, int]]:
    """Yields every function that may not have any number of parameters, and how many it has.

    Constructors are settings of a class, commands get their parameters from options, and the static ``forward`` of an autograd function
    takes tensors one by one.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != '__init__':
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if not any('command' in decorator or (decorator == 'staticmethod' and node.name == 'forward') for decorator in decorators):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                yield node, sum(name not in ('self', 'cls') for name in names)


def test_functions_have_few_parameters() -> None:
    many = [f'{path}: {node.name}' for path, text in sources() for node, count in functions(ast.parse(text)) if count > MOST_PARAMETERS]
    assert not many


def test_files_are_short() -> None:
    assert not [path for path, text in sources() if text.count('\n') > MOST_LINES]


def test_no_device_is_chosen_by_a_call_of_cuda() -> None:
    calls = [
        f'{path}:{node.lineno}'
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'cuda'
    ]
    assert not calls


def test_tools_find_the_whole_package_in_one_folder() -> None:
    """mypy, import-linter and editors follow folders, not the ``package_dir`` of setup.cfg."""
    for folder in ('search_spaces', 'strategies'):
        assert (ROOT / 'nni_darts' / folder).resolve() == ROOT / folder


@pytest.mark.parametrize('name', TORCH_FREE)
def test_what_the_tuner_needs_imports_no_torch(name: str) -> None:
    """NNI gives the tuner ten seconds to connect."""
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
