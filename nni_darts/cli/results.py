"""The command ``table``, which prints the results of experiments."""

from __future__ import annotations

from pathlib import Path

import click

from nni_darts.cli.group import main
from nni_darts.cli.options import TABLES, NameFrom, check_target, identifiers
from nni_darts.errors import InputError
from nni_darts.experiment.records import ExperimentRecord, chosen, named
from nni_darts.files import write_text


@main.command(short_help='Print results with intervals, and tests against random.')
@click.argument('identifiers', metavar='[ID]...', nargs=-1, type=NameFrom(identifiers))
@click.option(
    '--csv', 'csv_file', type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help='Write CSV to a file; - prints it.'
)
@click.option('--latex', 'shown', flag_value='latex', help='Print a LaTeX table (booktabs).')
@click.option('--markdown', 'shown', flag_value='markdown', help='Print a Markdown table.')
@click.option('--json', 'shown', flag_value='json', help='Print a JSON list with a row for each strategy.')
def table(identifiers: tuple[str, ...], csv_file: Path | None, shown: str | None) -> None:
    """Print a table of the results of one or more experiments, running or not. Without ID, the last experiment with results is shown.

    For each strategy, the table has the number of seeds; the validation metric as mean ± standard deviation over seeds with its 95 % t
    interval; the test metric; parameters; seconds of a search; and the mean difference from random over the seeds that both have, with its
    interval, a paired t-test and, from six seeds on, Wilcoxon's signed-rank test. Experiments with the same recipe are merged seed by
    seed. CSV and JSON contain unrounded numbers, with accuracies from 0 to 1.

    \b
    Examples:
      nni-darts table
      nni-darts table --csv -
    """
    if csv_file is not None and shown is not None:
        raise InputError(f'Give either --csv or --{shown}.')
    if csv_file is not None and str(csv_file) != '-':
        check_target('--csv', csv_file, TABLES)
    last = () if identifiers else (chosen(None, _has_results, 'experiment with results'),)
    records = [*map(named, dict.fromkeys(identifiers)), *last]
    summaries = {}
    for record in records:
        summary = record.summary()
        if summary is None:
            raise InputError(f'Experiment {record.id} has no results yet: there is no summary in {record.folder / "log"}.')
        summaries[record.id] = summary
    from nni_darts.report.table import rows_of
    from nni_darts.report.table_formats import FORMATS

    rows = rows_of(summaries)
    if csv_file is not None and str(csv_file) != '-':
        write_text(csv_file, FORMATS['csv'](rows))
        click.echo(f'wrote {csv_file}')
        return
    click.echo(FORMATS['csv' if csv_file is not None else shown or 'text'](rows), nl=False)


def _has_results(record: ExperimentRecord) -> bool:
    """Returns whether any strategy has finished a seed with a cell."""
    summary = record.summary()
    return summary is not None and any(row['seeds_done'] for row in summary['strategies'])
