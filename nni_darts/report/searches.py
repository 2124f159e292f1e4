"""The data of one search, and its page, which are updated while the search runs. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nni_darts.genotypes import AnyGenotype, genotype_from_code
from nni_darts.genotypes.graphs import CellEdges
from nni_darts.recipes.metric import METRICS
from nni_darts.report.cautions import after_search
from nni_darts.report.charts import curve, line_chart, measured_charts, share_chart
from nni_darts.report.drawing import cell_svg
from nni_darts.report.pages import write_page
from nni_darts.report.records import OPERATION_ORDER, genotype_of, indicators, skips

__all__ = ['SEARCH', 'search_data', 'strengths_in', 'warnings_in', 'write_search']

_CHARTS_WIDTH, _CHART_HEIGHT = 640, 48
"""Width in pixels of all edges into a node, side by side; height of one edge."""

SEARCH = 'search'
"""File name of the page and the data in a search's own folder."""

EIGENVALUE = 'eigenvalue'
"""The measurement of an epoch that is the dominant eigenvalue of the Hessian of the validation loss in α; only some strategies have it."""


def search_data(records: Sequence[Mapping[str, Any]], *, strategy: str, seed: int, metric: str, recipe: str, over: bool) -> dict[str, Any]:
    """Returns plain data of one search: all that its page shows.

    Args:
        records: records of the epochs so far, in any order; of several records of one epoch the last counts.
        strategy: name of the strategy.
        seed: seed of the search.
        metric: a name in ``METRICS``.
        recipe: name of the recipe.
        over: whether the search has ended.
    """
    ordered = [record for _, record in sorted({record['epoch']: record for record in records if 'epoch' in record}.items())]
    epochs, before = [], None
    for record in ordered:
        entry: dict[str, Any] = {key: value for key, value in record.items() if isinstance(value, (int, float)) and key != 'default'}
        if 'genotype' in record:
            genotype = genotype_of(record)
            edges = {kind: set(chosen) for kind, chosen in genotype.edges().items()}
            entry |= indicators(record)
            entry['arch'] = genotype.code()
            entry['skips_by_cell'] = skips(genotype)
            entry['changed_edges'] = sum(len(edges[kind] - before[kind]) for kind in edges) if before else 0
            entry['probabilities'] = {
                label: {name: round(value, 4) for name, value in table.items()} for label, table in record['probabilities'].items()
            }
            before = edges
        epochs.append(entry)
    decisions = [
        {'epoch': record['epoch'], **{name: entry[name] for name in ('stage', 'label', 'choice', 'margin')}}
        for record in ordered
        for entry in record.get('decided', ())
    ]
    warnings = after_search(epochs, decisions) if over else []
    about = {'strategy': strategy, 'seed': seed, 'recipe': recipe, 'metric': metric, 'over': over}
    return {**about, 'epochs': epochs, 'decisions': decisions, 'warnings': warnings}


def warnings_in(folder: Path) -> list[str]:
    """Returns the warnings of the finished search in a folder; an empty list if there is no such search."""
    try:
        found = json.loads((folder / f'{SEARCH}.json').read_text('utf-8')).get('warnings', [])
    except (OSError, ValueError, AttributeError):
        return []
    return [str(sentence) for sentence in found]


def strengths_in(folder: Path, genotype: AnyGenotype) -> dict[str, float]:
    """Returns label → probability of the genotype's operations if the folder, or that of the file, has the search that found it."""
    try:
        path = (folder if folder.is_dir() else folder.parent) / f'{SEARCH}.json'
        epochs = json.loads(path.read_text('utf-8'))['epochs'] if folder.exists() else []
    except (OSError, ValueError, KeyError):
        return {}
    if not epochs or epochs[-1].get('arch') != genotype.code():
        return {}
    return genotype.strengths(epochs[-1]['probabilities'])


# The page ---------------------------------------------------------------------------------------------------------------------------


def write_search(folder: Path, name: str, data: Mapping[str, Any], *, up: str = '') -> None:
    """Writes ``NAME.json`` and ``NAME.html`` if anything changed. Each file is replaced atomically.

    Args:
        folder: folder for the files.
        name: name of both files, without the suffix.
        data: result of :func:`search_data`.
        up: address of a parent page to link to.
    """
    write_page(folder, name, data, 'search.html', lambda: {**_pictures(data), 'up': up})


def _pictures(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the template's further values."""
    epochs, metric = data['epochs'], METRICS[data['metric']]

    def by_cell(name: str) -> dict[str, list[tuple[float, float]]]:
        kinds: dict[str, float] = next((entry[name] for entry in epochs if name in entry), {})
        return {kind: [(entry['epoch'], entry[name][kind]) for entry in epochs if name in entry] for kind in kinds}

    charts = [
        *measured_charts(epochs, metric),
        line_chart('entropy of α, 1 = nothing decided', {'': curve(epochs, 'entropy')}),
        line_chart('skip connections', by_cell('skips_by_cell'), low=0),
        line_chart('edges of the cell that changed', {'': curve(epochs, 'changed_edges')}, low=0),
        line_chart('dominant eigenvalue of the Hessian in α', {'': curve(epochs, EIGENVALUE)}, low=0),
    ]
    last = next((entry for entry in reversed(epochs) if 'arch' in entry), None)
    if last is None:
        return {'charts': list(filter(None, charts)), 'cells': [], 'operations': [], 'drawing': '', 'genotype': ''}
    genotype = genotype_from_code(last['arch'])
    tables = [entry['probabilities'] for entry in epochs if 'probabilities' in entry]
    present = {name for table in tables[0].values() for name in table}
    operations = [name for name in (*OPERATION_ORDER, *sorted(present - set(OPERATION_ORDER))) if name in present]
    return {
        'charts': list(filter(None, charts)),
        'cells': [_cell(edges, genotype, tables, operations) for edges in genotype.all_edges().values()],
        'operations': operations,
        'drawing': cell_svg(genotype, genotype.strengths(last['probabilities'])),
        'genotype': genotype.to_text(),
        'code': last['arch'],
    }


def _cell(cell: CellEdges, genotype: AnyGenotype, tables: Sequence[Mapping[str, Any]], operations: Sequence[str]) -> dict[str, Any]:
    """Returns a table of charts, with a row for each node and a column for each of its possible input states."""
    kept = dict(edge for chosen in genotype.edges().values() for edge in chosen)
    columns = max(source for _, _, source in cell.edges) + 1
    width = min(128, _CHARTS_WIDTH // columns)
    rows: dict[int, list[dict[str, Any]]] = {}
    for label, state, source in cell.edges:
        table = tables[-1].get(label, {})
        names = [name for name in operations if name in tables[0].get(label, ())]
        best = max((name for name in table if name != 'none'), key=table.__getitem__, default='')
        rows.setdefault(state, []).append(
            {
                'source': source,
                'kept': label in kept,
                'operation': kept.get(label, best),
                'chart': share_chart(names, [entry.get(label, {}) for entry in tables], operations, width, _CHART_HEIGHT),
            }
        )
    return {
        'title': cell.title,
        'columns': [cell.column(source) for source in range(columns)],
        'rows': [(cell.row(state), charts) for state, charts in rows.items()],
    }
