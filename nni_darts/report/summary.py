"""The summary of an experiment: data, and one self-contained page that NNI serves under ``/logs/``. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from nni_darts.files import write_text
from nni_darts.genotypes import genotype_from_code
from nni_darts.metric import METRICS, Metric
from nni_darts.report.drawing import cell_svg, draw_cells
from nni_darts.report.pages import render
from nni_darts.report.spent import plot_spent, spent_by_seed

if TYPE_CHECKING:
    from nni_darts.experiment.ledger import Standing
    from nni_darts.experiment.manager import TrialRecord
    from nni_darts.experiment.protocol import Job, Protocol

__all__ = ['DATA', 'PAGE', 'RECIPE', 'format_limit', 'format_table', 'summarize', 'write_summary']

PAGE, DATA, RECIPE = 'summary.html', 'summary.json', 'recipe.yml'
_HALF_PAGE = 800
"""A drawing of more pixels would be too small beside another one."""

_FULL_SIZE = {'nasbench201': 'nasbench201', 'recurrent': 'ptb'}
"""Space → the recipe that trains its cells at the published size, where that is not cifar10."""


def summarize(
    protocol: Protocol,
    jobs: Sequence[Job],
    standing: Standing,
    records: Sequence[TrialRecord],
    pages: Mapping[str, str] = MappingProxyType({}),
    reasons: Mapping[str, str] = MappingProxyType({}),
    *,
    over: bool,
    starts: Sequence[float] = (),
) -> dict[str, Any]:
    """Plain data: a row for each strategy, a row for each job, what failed, how to do it again.

    Args:
        pages: key of a search → address of its page.
        reasons: trial id → why it ended without a result.
        starts: when the experiment was started and each time resumed, in seconds since the epoch.
    """
    identifiers = {record.key: record.id for record in records if record.key}
    rows = [_strategy_row(protocol, jobs, standing.results, strategy) for strategy in protocol.strategies]
    listed = []
    for job in jobs:
        metric = standing.results.get(job.key, {})
        state = (
            'done'
            if job.key in standing.results
            else 'running'
            if job.key in standing.busy
            else 'given up'
            if job.key in standing.given_up
            else 'waiting'
        )
        listed.append(
            {
                'key': job.key,
                'stage': job.stage,
                'strategy': job.strategy,
                'seed': job.seed,
                'state': state,
                'failures': standing.failures.get(job.key, 0),
                'trial': identifiers.get(job.key, ''),
                'valid': metric.get('default'),
                'test': protocol.recipe.metric.of(metric, 'test'),
                'seconds': metric.get('seconds'),
                'arch': metric.get('arch') or job.arch,
                'page': pages.get(job.key, ''),
            }
        )
    return {
        'recipe': protocol.recipe.to_dict(),
        'metric': protocol.recipe.metric.name,
        'strategies': rows,
        'jobs': listed,
        'seeds': list(protocol.seeds),
        'over': over,
        'not_started': [row['key'] for row in listed if over and row['state'] == 'waiting'],
        'resumes': [_time(start) for start in starts[1:]],
        'incidents': [{'key': record.key, 'trial': record.id, 'why': reasons.get(record.id, '')} for record in standing.failed],
        'failed': [row['key'] for row in listed if row['state'] == 'given up'],
        'commands': _commands(protocol, jobs, rows),
    }


def _commands(protocol: Protocol, jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What to type to do the same without NNI, and to train the best cells at the published size. A code may begin with a dash."""
    again = []
    for job in jobs:
        name = _folder(job.key)
        if job.stage == 'search':
            again.append(f'nni-darts search --recipe {RECIPE} --strategy {job.strategy} --seed {job.seed} --output {name}')
        elif job.arch:
            stage = '' if job.stage == 'retrain' else f'--stage {job.stage} '
            again.append(f'nni-darts retrain --recipe {RECIPE} {stage}--genotype={job.arch} --seed {job.seed} --output {name}')
    train = f'nni-darts retrain --recipe {_FULL_SIZE.get(protocol.recipe.space.name, "cifar10")} --set data.path=FOLDER'
    full = [f'{train} --genotype={row["code"]} --output {_folder(row["strategy"])}-full' for row in rows if row['code']]
    return {'again': again, 'full_size': full}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(' ', 'minutes')


def _folder(name: str) -> str:
    return name.replace(' ', '-').replace('+', '-')


def _strategy_row(protocol: Protocol, jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]], strategy: str) -> dict[str, Any]:
    metric = protocol.recipe.metric
    selected = protocol.select_results(strategy, results)
    best_of_seeds = {
        seed: metric.best([result for result in selected if result['seed'] == seed], lambda result: result['default'])
        for seed in protocol.seeds
    }
    by_seed = [result['default'] for result in best_of_seeds.values() if result is not None]
    mine = [job for job in jobs if job.strategy == strategy]
    retrained = [results[job.key] for job in mine if job.stage == 'retrain' and job.key in results]
    tests = [test for result in retrained if (test := metric.of(result, 'test')) is not None]
    best = protocol.best(strategy, results)
    code = retrained[0]['arch'] if retrained else best['arch'] if best else ''
    # The cost of a search is the cost of finding the cell: for random search that is training its cells.
    searching = [results[job.key]['seconds'] for job in mine if job.stage != 'retrain' and job.key in results]
    return {
        'strategy': strategy,
        'seeds_done': len(by_seed),
        'by_seed': [
            {'seed': seed, 'valid': result['default'] if result else None, 'arch': result['arch'] if result else ''}
            for seed, result in best_of_seeds.items()
        ],
        'select': _spread(by_seed),
        'test': _spread(tests),
        'parameters': retrained[0].get('parameters') if retrained else None,
        'multiply_adds': retrained[0].get('multiply_adds') if retrained else None,
        'search_seconds': round(sum(searching), 1),
        'spent': spent_by_seed(protocol, jobs, results, strategy),
        'code': code,
        'genotype': json.loads(genotype_from_code(code).to_json()) if code else None,
        'text': genotype_from_code(code).to_text() if code else '',
    }


def _spread(values: Sequence[float]) -> dict[str, float | int] | None:
    """Mean and sample standard deviation (0 for a single value)."""
    if not values:
        return None
    return {
        'mean': statistics.fmean(values),
        'sd': statistics.stdev(values) if len(values) > 1 else 0.0,
        'count': len(values),
    }


def _shown(spread: Mapping[str, Any] | None, metric: Metric) -> str:
    if spread is None:
        return '–'
    text = metric.shown(spread['mean'])
    return f'{text} ± {metric.shown(spread["sd"])}' if spread['count'] > 1 else text


def _thousands(value: int | None) -> str:
    return '–' if value is None else f'{value:,}'


def format_table(summary: Mapping[str, Any]) -> str:
    """The table of strategies for a terminal."""
    metric = METRICS[summary['metric']]
    header = ('strategy', 'seeds', f'select valid {metric.unit}', f'test {metric.unit}', 'parameters', 'multiply-adds', 'search s', 'cell')
    rows = [
        (
            row['strategy'],
            f'{row["seeds_done"]}/{len(summary["seeds"])}',
            _shown(row['select'], metric),
            _shown(row['test'], metric),
            _thousands(row['parameters']),
            _thousands(row['multiply_adds']),
            f'{row["search_seconds"]:.0f}',
            row['code'],
        )
        for row in summary['strategies']
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, tuple('-' * width for width in widths), *rows]:
        cells = [text.ljust(width) if column in (0, 7) else text.rjust(width) for column, (text, width) in enumerate(zip(row, widths))]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)


def format_limit(summary: Mapping[str, Any]) -> str:
    """One sentence on an experiment that a limit of its own has ended; '' for any other."""
    if not summary.get('not_started'):
        return ''
    done = sum(job['state'] == 'done' for job in summary['jobs'])
    return (
        f'The time or the number of trials of the experiment (maxExperimentDuration, maxTrialNumber) was used up when {done} of '
        f'{len(summary["jobs"])} known jobs were done.'
    )


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes ``summary.json``, ``summary.html`` and ``recipe.yml`` if anything changed; each file is replaced at once."""
    text = json.dumps(summary, indent=1)
    data = folder / DATA
    if data.exists() and data.read_text('utf-8') == text:
        return
    metric = METRICS[summary['metric']]
    filters = {
        'spread': lambda spread: _shown(spread, metric),
        'value': lambda value: '–' if value is None else metric.shown(value),
        'thousands': _thousands,
    }
    found = {row['strategy']: genotype_from_code(row['code']) for row in summary['strategies'] if row['code']}
    drawings = {strategy: {'svg': cell_svg(cell), 'wide': draw_cells(cell).width > _HALF_PAGE} for strategy, cell in found.items()}
    values = {**summary, 'limit': format_limit(summary), 'unit': metric.unit, 'drawings': drawings, 'plot': plot_spent(summary)}
    write_text(folder / RECIPE, yaml.safe_dump(summary['recipe'], sort_keys=False))
    write_text(folder / PAGE, render('summary.html', values, filters))
    write_text(data, text)
