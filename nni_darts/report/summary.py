"""The summary of an experiment: its data, and a self-contained page that NNI serves under ``/logs/``. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nni_darts.files import write_text
from nni_darts.genotypes import genotype_from_code
from nni_darts.recipes.metric import ACCURACY, METRICS, Metric
from nni_darts.report.cautions import after_training
from nni_darts.report.charts import Run, runs_chart
from nni_darts.report.drawing import cell_svg, draw_cells
from nni_darts.report.fronts import COSTS, cost_text, cost_title, front_charts, limits_of, networks, shown_costs
from nni_darts.report.lines import duration
from nni_darts.report.pages import render
from nni_darts.report.progress import Epochs, learning_curves, running_jobs
from nni_darts.report.spent import plot_spent, spent_by_seed
from nni_darts.report.spread import Spread, spread
from nni_darts.report.table_formats import columns
from nni_darts.strategies.registry import file_name, find, row_parts

if TYPE_CHECKING:
    from nni_darts.experiment.ledger import Standing
    from nni_darts.experiment.manager import TrialRecord
    from nni_darts.experiment.protocol import Job, Protocol

__all__ = [
    'DATA',
    'PAGE',
    'RECIPE',
    'Observed',
    'format_cost_limits',
    'format_largest_class',
    'format_limit',
    'format_table',
    'footnotes',
    'summarize',
    'write_summary',
]

PAGE, DATA, RECIPE = 'summary.html', 'summary.json', 'recipe.yml'


@dataclass(frozen=True)
class Observed:
    """Observations of an experiment other than its jobs and trials.

    Attributes:
        pages: key of a job → address of its page.
        reasons: trial id → why it ended without a result.
        epochs: key of a job → measurements of its epochs so far.
        starts: times at which the experiment was started or resumed, in seconds since the epoch.
        plan: a sentence about the plan for an experiment with a time limit; '' if it has none.
    """

    pages: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    epochs: Epochs = field(default_factory=dict)
    starts: Sequence[float] = ()
    plan: str = ''


def summarize(
    protocol: Protocol,
    jobs: Sequence[Job],
    standing: Standing,
    records: Sequence[TrialRecord],
    observed: Observed | None = None,
    *,
    over: bool,
) -> dict[str, Any]:
    """Returns plain data: a row for each strategy, a row for each job, the failures, and the commands that repeat the experiment.

    Args:
        protocol: the plan of the experiment.
        jobs: all jobs known so far.
        standing: the state of the jobs.
        records: the trials as the manager lists them.
        observed: further observations of the experiment.
        over: whether the experiment has ended.
    """
    observed = observed or Observed()
    pages, reasons, epochs, starts, plan = observed.pages, observed.reasons, observed.epochs, observed.starts, observed.plan
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
                'valid': None if 'ranked' in metric else metric.get('default'),
                'test': protocol.recipe.metric.of(metric, 'test'),
                'seconds': metric.get('seconds'),
                'arch': metric.get('arch') or job.arch,
                'page': pages.get(job.key, ''),
            }
        )
    expected = protocol.expected(standing.given_up)
    return {
        'recipe': protocol.recipe.to_dict(),
        'metric': protocol.recipe.metric.name,
        'strategies': rows,
        'jobs': listed,
        'expected': [{'stage': stage, 'strategy': strategy, 'jobs': jobs} for (stage, strategy), jobs in expected.items()],
        'running': running_jobs(jobs, standing.busy, epochs, protocol.recipe.metric),
        'curves': learning_curves(jobs, epochs, protocol.recipe.metric),
        'sizes': {
            stage: {**found, 'limits': limits_of(protocol.recipe, stage)}
            for stage, found in networks(jobs, standing.results, protocol.recipe.metric).items()
        },
        'seeds': list(protocol.seeds),
        'retrain': protocol.retrain,
        'over': over,
        'plan': plan,
        'not_started': [row['key'] for row in listed if over and row['state'] == 'waiting'],
        'resumes': [_time(start) for start in starts[1:]],
        'incidents': [{'key': record.key, 'trial': record.id, 'why': reasons.get(record.id, '')} for record in standing.failed],
        'failed': [row['key'] for row in listed if row['state'] == 'given up'],
        'largest_class': _largest_classes(jobs, standing.results),
        'cautions': _cautions(jobs, standing.results),
        'commands': _commands(protocol, jobs, rows),
    }


def _largest_classes(jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns part of the data → fraction of its images in the largest class, for the validation of short trainings and for the test."""
    shares: dict[str, float] = {}
    for job in jobs:
        part = {'select': 'validation', 'retrain': 'test'}.get(job.stage)
        if part and 'largest_class' in results.get(job.key, {}):
            shares.setdefault(part, results[job.key]['largest_class'])
    return shares


def _cautions(jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a warning for each retrained network that is no better than always predicting the largest class."""
    retrained = [job for job in jobs if job.stage == 'retrain' and job.key in results]
    return [f'{job.key}: {sentence}' for job in retrained for sentence in after_training(results[job.key])]


def _commands(protocol: Protocol, jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns commands that repeat the experiment without NNI or train the best cells at full size. A code may begin with a dash."""
    again = []
    for job in jobs:
        name = _folder(job.key)
        strategy, changes = row_parts(job.strategy)
        sets = ''.join(f' --set {change}' for change in changes)
        if job.stage == 'search' and not find(job.strategy).one_by_one:
            again.append(f'nni-darts search --recipe {RECIPE} --strategy {strategy}{sets} --seed {job.seed} --output {name}')
        elif job.arch and job.last:
            stage = '' if job.stage == 'retrain' else f'--stage {job.stage} '
            again.append(f'nni-darts retrain --recipe {RECIPE} {stage}--genotype={job.arch}{sets} --seed {job.seed} --output {name}')
    train = f'nni-darts retrain --recipe {protocol.recipe.space.full_size} --set data.path=FOLDER'
    full = [f'{train} --genotype={row["code"]} --output {_folder(row["strategy"])}-full' for row in rows if row['code']]
    return {'again': again, 'full_size': full}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(' ', 'minutes')


def _folder(name: str) -> str:
    return file_name(name.replace(' ', '-'))


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
    accuracies = [result['test_accuracy'] for result in retrained if 'test_accuracy' in result]
    best = protocol.best(strategy, results)
    code = best['arch'] if best else retrained[0]['arch'] if retrained else ''
    shown = [result for result in retrained if result['arch'] == code]
    # The cost of a search is the cost of finding the cell. For random search this is the cost of training its cells.
    searching = [results[job.key]['seconds'] for job in mine if job.stage != 'retrain' and job.key in results]
    return {
        'strategy': strategy,
        'seeds_done': len(by_seed),
        'by_seed': [
            {'seed': seed, 'valid': result['default'] if result else None, 'arch': result['arch'] if result else ''}
            for seed, result in best_of_seeds.items()
        ],
        'select': _as_data(spread(by_seed)),
        'test': _as_data(spread(tests)),
        **{cost: shown[0].get(cost) if shown else None for cost in COSTS},
        'search_seconds': round(sum(searching), 1),
        'test_accuracy': sum(accuracies) / len(accuracies) if accuracies else None,
        'spent': spent_by_seed(protocol, jobs, results, strategy),
        'code': code,
        'genotype': genotype_from_code(code).to_dict() if code else None,
        'text': genotype_from_code(code).to_text() if code else '',
    }


def _as_data(found: Spread | None) -> dict[str, float | None] | None:
    return None if found is None else {'mean': found.mean, 'sd': found.sd, 'count': found.n, 'low': found.low, 'high': found.high}


def _shown(found: Mapping[str, Any] | None, metric: Metric) -> str:
    if found is None:
        return '–'
    text = metric.shown(found['mean'])
    return f'{text} ± {metric.shown(found["sd"])}' if found['count'] > 1 else text


def _interval(found: Mapping[str, Any] | None, metric: Metric) -> str:
    """Returns the bounds of the interval around a mean as text; '' if there is no interval."""
    if found is None or found['low'] is None:
        return ''
    return f'{metric.shown(metric.within(found["low"]))} to {metric.shown(metric.within(found["high"]))}'


def _has_accuracy_beside(summary: Mapping[str, Any], metric: Metric) -> bool:
    """Returns whether networks that are judged by another metric were also tested for accuracy."""
    return metric is not ACCURACY and any(row.get('test_accuracy') is not None for row in summary['strategies'])


def format_table(summary: Mapping[str, Any], width: int | None = None) -> str:
    """Returns the table of strategies for a terminal.

    Args:
        summary: data of the summary.
        width: number of characters in a line. If the table is wider, its last columns are left out and named below it.
    """
    metric = METRICS[summary['metric']]
    beside = _has_accuracy_beside(summary, metric)
    tested = (f'test {metric.unit}', *(('test %',) if beside else ()))
    costs = shown_costs(summary['strategies'])
    header = ('strategy', 'seeds', f'select valid {metric.unit}', *tested, *map(cost_title, costs), 'search s', 'cell')
    rows = [
        (
            row['strategy'],
            f'{row["seeds_done"]}/{len(summary["seeds"])}',
            _shown(row['select'], metric),
            _shown(row['test'], metric),
            *((ACCURACY.shown(row.get('test_accuracy')) if row.get('test_accuracy') is not None else '–',) if beside else ()),
            *(cost_text(row.get(cost)) for cost in costs),
            f'{row["search_seconds"]:.0f}',
            row['code'],
        )
        for row in summary['strategies']
    ]
    kept, left = len(header), (0, len(header) - 1)
    text = columns(header, rows, left=left)
    while width is not None and kept > 2 and max(map(len, text.splitlines())) > width:
        kept -= 1
        text = columns(header[:kept], [row[:kept] for row in rows], left=left)
    return text + (f'\n\nColumns that did not fit: {", ".join(header[kept:])}.' if kept < len(header) else '')


def format_limit(summary: Mapping[str, Any]) -> str:
    """Returns a sentence about an experiment that ended because it reached a limit of its own; '' for any other experiment."""
    if not summary.get('not_started'):
        return ''
    done = sum(job['state'] == 'done' for job in summary['jobs'])
    return (
        f'The time or the number of trials of the experiment (maxExperimentDuration, maxTrialNumber) was used up when {done} of '
        f'{len(summary["jobs"])} known jobs were done.'
    )


def format_largest_class(summary: Mapping[str, Any]) -> str:
    """Returns a sentence with the accuracy of always predicting the largest class; '' for text, or while it is not known."""
    shares = [f'{ACCURACY.shown(share)} % of the {part} images' for part, share in summary.get('largest_class', {}).items()]
    return f'The largest class is {" and ".join(shares)}.' if shares else ''


def format_cost_limits(summary: Mapping[str, Any]) -> str:
    """Returns a sentence with the limits on the cost of the network to retrain; '' without limits."""
    limits = summary['recipe'].get('limits') if 'recipe' in summary else None
    amounts = [f'{cost_title(cost)} {cost_text(limit)}' for cost, limit in (limits or {}).items() if limit is not None]
    return f'Limits of the network to retrain: {"; ".join(amounts)}.' if amounts else ''


def footnotes(summary: Mapping[str, Any]) -> list[str]:
    """Returns the sentences below the table: the time limit, limits on the cost, the largest class, and an early end."""
    lines = (summary.get('plan', ''), format_cost_limits(summary), format_largest_class(summary), format_limit(summary))
    return [line for line in lines if line]


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes ``summary.json``, ``summary.html`` and ``recipe.yml`` if anything changed. Each file is replaced atomically."""
    text = json.dumps(summary, indent=1)
    data = folder / DATA
    if data.exists() and data.read_text('utf-8') == text:
        return
    metric = METRICS[summary['metric']]
    filters: dict[str, Callable[..., str]] = {
        'spread': lambda found: _shown(found, metric),
        'interval': lambda found: _interval(found, metric),
        'value': lambda value: '–' if value is None else metric.shown(value),
        'accuracy': lambda value: '–' if value is None else ACCURACY.shown(value),
        'amount': cost_text,
        'cost': cost_title,
        'duration': duration,
    }
    found = {row['strategy']: genotype_from_code(row['code']) for row in summary['strategies'] if row['code']}
    title = metric.title[0].upper() + metric.title[1:]
    values = {
        **summary,
        **_charts(summary, metric),
        'limit': format_limit(summary),
        'cost_limits': format_cost_limits(summary),
        'costs': shown_costs(summary['strategies']),
        'largest_class': format_largest_class(summary),
        'unit': metric.unit,
        'beside': _has_accuracy_beside(summary, metric),
        'metric_title': title,
        'drawings': {strategy: cell_svg(cell) for strategy, cell in found.items()},
        'widest': max((round(draw_cells(cell).width) for cell in found.values()), default=0),
        'plot': plot_spent(summary),
        'source': DATA,
        'colours': _colours(summary),
    }
    write_text(folder / RECIPE, yaml.safe_dump(summary['recipe'], sort_keys=False))
    write_text(folder / PAGE, render('summary.html', values, filters))
    write_text(data, text)


def _colours(summary: Mapping[str, Any]) -> dict[str, int]:
    """Returns strategy → number of its colour in all charts."""
    return {row['strategy']: number % 10 for number, row in enumerate(summary['strategies'])}


def _charts(summary: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    """Returns charts of all runs: learning curves of each stage, and quality against each cost."""
    colours, scale = _colours(summary), 100 if metric.percent else 1
    name = metric.name.replace('_', ' ') + (', %' if metric.percent else '')
    curves = []
    for stage, title in (('search', 'searches'), ('select', 'short trainings'), ('retrain', 'retrainings')):
        drawn = [curve for curve in summary['curves'] if curve['stage'] == stage]
        part = 'validation' if any(curve['part'] == 'valid' for curve in drawn) else 'training'
        runs = [
            Run(curve['key'], curve['strategy'], colours[curve['strategy']], [(x, scale * y) for x, y in curve['points']])
            for curve in drawn
        ]
        curves.append(runs_chart(f'{title}: {part} {name}', runs))
    return {'curve_charts': list(filter(None, curves)), 'front_charts': front_charts(summary, metric, colours)}
