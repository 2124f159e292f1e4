"""Who may import whom: the house's rule, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {'nni_darts.search_spaces': ROOT / 'search_spaces', 'nni_darts.strategies': ROOT / 'strategies', 'nni_darts': ROOT / 'nni_darts'}

BASE = {
    'nni_darts',
    'nni_darts._nni',
    'nni_darts._lazy',
    'nni_darts.activity',
    'nni_darts.errors',
    'nni_darts.files',
    'nni_darts.recipes.metric',
    'nni_darts.parallel',
    *(
        f'nni_darts.genotypes{module}'
        for module in (
            *('', '.base', '.graphs', '.kinds', '.convolutional', '.recurrent', '.nasbench201', '.networks', '.sample'),
            *('.candidates', '.neighbours', '.published'),
        )
    ),
}
"""Modules that every module may import: the package's lazy root, NNI, genotypes and candidates, the error class, atomic writing, other
ranks, announcements of long work."""

ALLOWED = {
    'nni_darts.genotypes': {'nni_darts._lazy', 'nni_darts.errors'},
    'nni_darts.activity': set(),
    'nni_darts.errors': set(),
    'nni_darts.files': set(),
    'nni_darts.parallel': {'nni_darts.errors'},
    'nni_darts.parallel.launch': {'nni_darts.errors'},
    'nni_darts._lazy': {'nni_darts.errors'},
    'nni_darts.search_spaces': BASE,
    'nni_darts.strategies': BASE,
    'nni_darts.data': BASE | {'nni_darts.recipes'},
    'nni_darts.training': BASE | {'nni_darts.recipes'},
    'nni_darts.recipes': BASE,
}
"""Package or module → what it may import of ours besides itself. What is not listed (experiment, cli, stages, report) may import
everything but experiment and cli."""


TORCH_FREE = (
    'nni_darts',
    'nni_darts.activity',
    'nni_darts.genotypes',
    'nni_darts.genotypes.kinds',
    'nni_darts.recipes',
    'nni_darts.runs.cells',
    'nni_darts.experiment.tuner',
    'nni_darts.experiment.trial',
    'nni_darts.experiment.gpus',
    'nni_darts.report.summary',
    'nni_darts.runs.location',
    'nni_darts.experiment.arguments',
    'nni_darts.experiment.nnictl',
    'nni_darts.experiment.validate',
    'nni_darts.runs.checks',
    'nni_darts.runs.folder',
    'nni_darts.strategies.catalogue',
    'nni_darts.experiment.records',
    'nni_darts.experiment.starters',
    'nni_darts.report.table_formats',
    'nni_darts.strategies.registry',
    'nni_darts.strategies.trained',
    'nni_darts.strategies.explanations',
    'nni_darts.cli',
)


def modules() -> dict[str, Path]:
    found = {}
    for prefix, folder in HOMES.items():
        for path in folder.rglob('*.py'):
            parts = path.relative_to(folder).with_suffix('').parts
            name = '.'.join([prefix, *(part for part in parts if part != '__init__')])
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports when it runs (not under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text('utf-8'))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING'
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name for name in names if name.split('.')[0] == 'nni_darts'}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + '.')


def test_every_module_keeps_to_what_it_may_import() -> None:
    wrong = []
    for name, path in modules().items():
        home = max((entry for entry in ALLOWED if within(name, entry)), key=len, default=None)
        for imported in imports(path):
            if home is not None:
                if (
                    not within(imported, home)
                    and imported not in ALLOWED[home]
                    and not (within(name, 'nni_darts.strategies.fast') and within(imported, 'nni_darts.search_spaces'))
                ):
                    wrong.append(f'{name} imports {imported}')
            for private in ('nni_darts.experiment', 'nni_darts.cli'):
                may = any(within(name, home) for home in ('nni_darts.experiment', 'nni_darts.cli', 'nni_darts.__main__'))
                if within(imported, private) and not may:
                    wrong.append(f'{name} imports {imported}')
    assert not wrong


def test_no_relative_or_star_imports_and_no_evaluation() -> None:
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.ImportFrom) and (node.level or any(alias.name == '*' for alias in node.names)):
                wrong.append(f'{name}: {ast.unparse(node)}')
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f'{name}: bare except in line {node.lineno}')
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ('eval', 'exec', 'pickle.load', 'pickle.loads'):
                wrong.append(f'{name}: {ast.unparse(node)}')
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'cuda':
                wrong.append(f'{name}: .cuda() in line {node.lineno}')
    assert not wrong


@pytest.mark.parametrize('name', TORCH_FREE)
def test_what_the_tuner_needs_imports_no_torch(name: str) -> None:
    """NNI gives the tuner ten seconds to connect."""
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
