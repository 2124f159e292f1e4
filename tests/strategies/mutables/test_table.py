"""The table in docs/mutables.md, which says what each strategy searches, is what the strategies do.

``python -m tests.strategies.mutables.test_table`` writes it anew.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from nni_darts._nni import ModelSpace, recursive_freeze
from nni_darts.strategies import create_strategy
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.mutables.checking import check_supernet
from nni_darts.strategies.registry import find, names
from nni_darts.strategies.trained.in_process import SampleSpace
from tests.helpers.choices import VALUES, Cells, Halving, Strided, images
from tests.strategies.mutables.test_checking import Concatenated, TwoShapes

PAGE = Path(__file__).parents[3] / 'docs' / 'mutables.md'
ROWS: Mapping[str, Callable[[], ModelSpace]] = {
    **VALUES,
    '`Cell`, all nodes': partial(Cells, 'all', factory=False),
    '`Cell`, candidates made for the input they read': partial(Cells, 'all'),
    '`Cell`, loose ends': partial(Cells, 'loose_end'),
    'stride, outputs of two sizes': Strided,
    'depth, outputs of two sizes': Halving,
    '`InputChoice`, inputs of two sizes': TwoShapes,
    'width of features that are concatenated': Concatenated,
}
_MARK = re.compile(r'<!-- table -->\n.*?<!-- end -->\n', re.DOTALL)


def searches(method: str, build: Callable[[], ModelSpace]) -> bool:
    """Returns whether a strategy searches a space: for a supernet, whether it passes the check, selects, and freezes."""
    torch.manual_seed(0)
    if find(method).one_by_one:
        space, rng = SampleSpace(build()), random.Random(0)
        model = space.random_cell(rng)
        for drawn in (model, space.mutated_cell(model, rng)):
            build().freeze(space.sample(drawn))(images(2, torch.float32))
        return True
    try:
        strategy = create_strategy(method)
        if not isinstance(strategy, DifferentiableStrategy):
            next(strategy.stages(build()))
        check_supernet(strategy, build(), images(2, torch.float32))
        model = strategy.mutate_model(build())
    except ValueError:
        return False
    recursive_freeze(model, strategy.select(), include_root=False)[0](images(2, torch.float32))
    return True


def table() -> str:
    """Returns the table in Markdown: strategies that search the same are one column."""
    found = {method: tuple(searches(method, build) for build in ROWS.values()) for method in names() if '+' not in method}
    columns: dict[tuple[bool, ...], list[str]] = {}
    for method, results in found.items():
        columns.setdefault(results, []).append(method)
    lines = ['| | ' + ' | '.join(', '.join(f'`{method}`' for method in methods) for methods in columns.values()) + ' |']
    lines.append('|---' * (len(columns) + 1) + '|')
    for number, name in enumerate(ROWS):
        lines.append(f'| {name} | ' + ' | '.join('yes' if results[number] else 'no' for results in columns) + ' |')
    return '<!-- table -->\n' + '\n'.join(lines) + '\n<!-- end -->\n'


def test_the_table_in_the_documentation_is_what_strategies_do() -> None:
    written = _MARK.search(PAGE.read_text('utf-8'))
    assert written is not None and written[0] == table()


def test_a_choice_inside_a_candidate_is_searched_by_all_but_partial_channels() -> None:
    assert searches('darts-1st', VALUES['dropout, activation, pool']) and not searches('pc-darts', VALUES['dropout, activation, pool'])


if __name__ == '__main__':
    PAGE.write_text(_MARK.sub(lambda match: table(), PAGE.read_text('utf-8')), 'utf-8')
