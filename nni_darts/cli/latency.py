"""The command that measures the latency of a space's operations."""

from __future__ import annotations

from pathlib import Path

import click

from nni_darts.activity import loading_torch
from nni_darts.cli.group import main
from nni_darts.cli.options import check_target, recipe_options, to_run
from nni_darts.cli.progress import Progress
from nni_darts.recipes import Recipe

__all__: list[str] = []

_UNSTEADY = 0.25
"""Interquartile range, as a fraction of the median, above which measurements are called unsteady."""


@main.command(short_help="Measure the latency of a space's operations on this machine.")
@recipe_options
@click.option('--threads', default=1, show_default=True, type=click.IntRange(1, 1024), help='Number of threads.')
@click.option('--batch', default=1, show_default=True, type=click.IntRange(1, 100_000), help='Number of images at a time.')
@click.option('--output', required=True, type=click.Path(path_type=Path, dir_okay=False), help='A .yml for the table, which is replaced.')
def latency(recipe: str, overrides: tuple[str, ...], threads: int, batch: int, output: Path) -> None:
    """Measure the latency of each operation of a recipe's space, at each size that it has in the network to retrain.

    OUTPUT gets milliseconds for one batch, on this machine's processor. With --set latency.table=OUTPUT, other commands predict from
    them the latency of every network of the space, on any machine. Nothing else should run meanwhile.

    \b
    Example:
      nni-darts latency --recipe digits --output latency.yml
    """
    check_target('--output', output, ('.yml', '.yaml'))
    loaded = to_run(Recipe.load(recipe, [*overrides, 'latency.measured=torch', f'latency.threads={threads}', f'latency.batch={batch}']))
    with Progress():
        with loading_torch():
            from nni_darts.runs.stopwatch import measured_table
            from nni_darts.runs.tasks import task_of
        table = measured_table(loaded, task_of(loaded).shape(loaded))
        table.write(output)
    of_operation = {f'{name} {shape}': value for name, by_shape in table.operations_ms.items() for shape, value in by_shape.items()}
    spread = {f'{name} {shape}': value for name, by_shape in (table.spread_ms or {}).items() for shape, value in by_shape.items()}
    click.echo(f'{len(of_operation)} latencies of operations, and {table.fixed_ms:.3f} ms of other parts; {table.processor}')
    unsteady = [key for key, value in of_operation.items() if value > 0.01 and spread[key] > _UNSTEADY * value]
    if unsteady:
        click.echo(
            f'{len(unsteady)} latencies vary by more than {_UNSTEADY:.0%}, such as {unsteady[0]}: the machine was busy; measure again.',
            err=True,
        )
    click.echo(f'wrote {output}')
