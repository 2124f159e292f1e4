"""Formats the table of results as text for a terminal, Markdown, LaTeX, CSV and JSON. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from nni_darts.recipes.metric import METRICS, Metric
from nni_darts.report.fronts import COSTS, cost_text, cost_title, shown_costs
from nni_darts.report.spread import Spread
from nni_darts.report.table import BASELINE, Row

__all__ = ['FORMATS', 'columns']

_NOTHING = '–'


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Returns aligned columns with a rule under the header.

    Args:
        header: titles of the columns.
        rows: cells of each row.
        left: indices of the columns that are aligned left, because they have words; all others are aligned right.
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, ['-' * width for width in widths], *rows]:
        cells = [text.ljust(width) if column in left else text.rjust(width) for column, (text, width) in enumerate(zip(row, widths))]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)


def _text(rows: Sequence[Row]) -> str:
    header, cells = _cells(rows)
    return columns(header, cells, left=range(len(_key(rows[0], rows)))) + '\n\n' + _notes(rows) + '\n'


def _markdown(rows: Sequence[Row]) -> str:
    header, cells = _cells(rows)
    rule = ['---' if column < len(_key(rows[0], rows)) else '---:' for column in range(len(header))]
    lines = ['| ' + ' | '.join(text.replace('|', '\\|') for text in row) + ' |' for row in [header, rule, *cells]]
    return '\n'.join(lines) + '\n\n' + _notes(rows) + '\n'


def _latex(rows: Sequence[Row]) -> str:
    header, cells = _cells(rows)
    words = len(_key(rows[0], rows))
    body = [' & '.join(map(_escaped, row)) + r' \\' for row in cells]
    return '\n'.join(
        [
            *('% ' + line for line in _notes(rows).splitlines()),
            r'% needs \usepackage{booktabs}',
            rf'\begin{{tabular}}{{{"l" * words}{"r" * (len(header) - words)}}}',
            r'\toprule',
            ' & '.join(map(_escaped, header)) + r' \\',
            r'\midrule',
            *body,
            r'\bottomrule',
            r'\end{tabular}',
            '',
        ]
    )


def _escaped(text: str) -> str:
    text = re.sub(r'([&%$#_{}])', r'\\\1', text)
    return text.replace('±', r'$\pm$').replace('−', '$-$').replace(_NOTHING, '--')


def _csv(rows: Sequence[Row]) -> str:
    """Returns the table with full-precision numbers, not in per cent; a missing number is empty."""
    file = io.StringIO()
    table = [_flat(row) for row in rows]
    writer = csv.DictWriter(file, list(table[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


def _json(rows: Sequence[Row]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=1) + '\n'


FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = MappingProxyType(
    {'text': _text, 'csv': _csv, 'latex': _latex, 'markdown': _markdown, 'json': _json}
)
"""Name of a format → function that returns the table in that format."""


def _key(row: Row, rows: Sequence[Row]) -> list[str]:
    """Returns the words that distinguish rows: the recipe only if there are several, the experiments only if recipes have the same name."""
    several = len({(other.recipe, other.experiments) for other in rows}) > 1
    return [row.strategy, *([row.recipe, ' '.join(row.experiments)] if several else [])]


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows as readable text."""
    metric, costs = METRICS[rows[0].metric], shown_costs([asdict(row) for row in rows])
    words = ['strategy', 'recipe', 'experiments'][: len(_key(rows[0], rows))]
    header = [*words, 'seeds', f'valid {metric.unit}', '95 % interval', f'test {metric.unit}', *map(cost_title, costs), 'search s/seed']
    header += [f'− {BASELINE}', '95 % interval', 'n', 'p (t)', 'p (Wilcoxon)']
    return header, [[*_key(row, rows), *_numbers(row, metric, costs)] for row in rows]


def _numbers(row: Row, metric: Metric, costs: Sequence[str]) -> list[str]:
    against = row.against_baseline
    return [
        str(len(row.seeds)),
        _mean(row.valid, metric),
        _interval(row.valid, metric),
        _mean(row.test, metric),
        *(cost_text(getattr(row, cost)) for cost in costs),
        _NOTHING if row.search_seconds is None else f'{row.search_seconds:.0f}',
        _NOTHING if against is None else _signed(against.difference.mean, metric),
        _interval(against.difference, metric, signed=True) if against else _NOTHING,
        str(len(against.seeds)) if against else _NOTHING,
        _p(against.t_p if against else None),
        _p(against.wilcoxon_p if against else None),
    ]


def _mean(values: Spread | None, metric: Metric) -> str:
    if values is None:
        return _NOTHING
    return metric.shown(values.mean) + ('' if values.sd is None else f' ± {metric.shown(values.sd)}')


def _interval(values: Spread | None, metric: Metric, *, signed: bool = False) -> str:
    if values is None or values.low is None or values.high is None:
        return _NOTHING
    shown = _signed if signed else lambda value, metric: metric.shown(value)
    low, high = (value if signed else metric.within(value) for value in (values.low, values.high))
    return f'[{shown(low, metric)}, {shown(high, metric)}]'


def _signed(value: float, metric: Metric) -> str:
    return f'{"−" if value < 0 else "+"}{metric.shown(abs(value))}'


def _p(value: float | None) -> str:
    return _NOTHING if value is None else '<0.001' if value < 0.001 else f'{value:.3f}'


def _notes(rows: Sequence[Row]) -> str:
    metric = METRICS[rows[0].metric]
    lines = [
        f'valid: {metric.name} of the best cell of each seed after the short training, mean ± sd over the seeds; '
        f'{"larger" if metric.optimize_mode == "maximize" else "smaller"} is better.',
        'test: retrainings of the best cell. search s/seed: seconds for one seed until its cell is known, mean.',
    ]
    compared = [row for row in rows if row.against_baseline is not None]
    if compared:
        lines.append(
            f'− {BASELINE}: mean difference over the n seeds in common, and two-sided paired tests: the t-test, and Wilcoxon from n = 6.'
        )
        if len(compared) > 1:
            lines.append(f'{len(compared)} strategies are compared; the p-values are not corrected for multiple comparisons.')
    elif all(row.strategy != BASELINE for row in rows):
        lines.append(f'There is no strategy {BASELINE} for comparison.')
    return '\n'.join(lines)


def _flat(row: Row) -> dict[str, Any]:
    against = row.against_baseline
    flat: dict[str, Any] = {
        'experiments': ' '.join(row.experiments),
        'recipe': row.recipe,
        'strategy': row.strategy,
        'metric': row.metric,
        'seeds': ' '.join(map(str, row.seeds)),
        **_parts('valid', row.valid),
        **_parts('test', row.test),
        **{cost: getattr(row, cost) for cost in COSTS},
        'search_seconds': row.search_seconds,
        'common_seeds': ' '.join(map(str, against.seeds)) if against else '',
        **_parts('difference', against.difference if against else None),
        't_p': against.t_p if against else None,
        'wilcoxon_p': against.wilcoxon_p if against else None,
    }
    return flat


def _parts(name: str, values: Spread | None) -> dict[str, Any]:
    empty = dict.fromkeys(('n', 'mean', 'sd', 'low', 'high'))
    return {f'{name}_{part}': value for part, value in (asdict(values) if values else empty).items()}
