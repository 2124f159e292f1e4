"""Commands about cells (draw, cost, query), and the function that reads a cell from an argument."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from nni_darts.cli.group import main
from nni_darts.cli.options import check_target, folder_of, own_recipe_options, recipe_for
from nni_darts.cli.progress import Progress
from nni_darts.errors import InputError
from nni_darts.files import naming
from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_file, genotype_from_text
from nni_darts.genotypes.benchmark import NATS_DATASETS, Table, query_nats_bench
from nni_darts.genotypes.networks import KNOWN, KnownNetwork
from nni_darts.genotypes.notations import NASLIB_NUMBERING
from nni_darts.genotypes.published import PUBLISHED
from nni_darts.recipes.limits import LATENCY
from nni_darts.runs.checks import check_data_path, check_genotype
from nni_darts.runs.folder import DATA

__all__ = ['read_genotype']

_SHAPED_BY_FILES = ('folder', 'csv', 'npz', 'text')
"""Kinds of data whose files must be read to know the number of classes or words."""


@main.command(short_help="Count a network's parameters and multiply-adds; predict or measure its latency.")
@click.argument('source', metavar='GENOTYPE')
@own_recipe_options
@click.option('--latency', 'measure', is_flag=True, help='Measure the latency of the whole network on this machine.')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def cost(source: str, recipe: str | None, overrides: tuple[str, ...], measure: bool, as_json: bool) -> None:
    """Count the parameters and multiply-adds of a cell's network at the recipe's retraining size.

    GENOTYPE is a published name, a file or output folder with a genotype in any form (in a log, the last one counts), FILE.py:NAME, - for a
    pipe, a pasted Genotype(…), or the code from a result. Without --recipe, the recipe of that folder is used. The auxiliary head is not
    counted. Multiply-adds are those of convolutions and linear layers for one image, or of matrix products for one word; torch's
    FlopCounterMode counts twice as many. If the recipe has a section latency, the predicted latency is shown, too; --latency measures
    that of the whole network beside it.

    \b
    Examples:
      nni-darts cost DARTS_V2 --recipe cifar10
      nni-darts cost out/search --latency
    """
    loaded = recipe_for(source, recipe, overrides)
    genotype = read_genotype(source)
    check_genotype(loaded, genotype, 'retrain')
    if measure and loaded.task == 'text':
        raise InputError('--latency measures networks for images; leave it out for text.')
    folder = folder_of(source)
    # The images of a run may have been deleted, but their description is in the run's folder.
    own = recipe is None and not any(text.startswith('data') for text in overrides) and folder is not None
    if loaded.data.name in _SHAPED_BY_FILES and not (own and folder is not None and (folder / DATA).is_file()):
        check_data_path(loaded)
    from nni_darts.runs.costs import cost_of
    from nni_darts.runs.keeping import kept_description
    from nni_darts.runs.latencies import with_own_table
    from nni_darts.runs.stopwatch import measured_latencies
    from nni_darts.runs.tasks import task_of

    task = task_of(loaded)
    shape = (kept_description(folder) if own and folder is not None else None) or task.shape(loaded)
    with Progress():
        result = cost_of(genotype, with_own_table(loaded, shape), shape)
        if measure:
            (time,) = measured_latencies([genotype], loaded, shape)
            result |= {'measured_ms': round(time.median, 6), 'spread_ms': round(time.spread, 6)}
    click.echo(f'recipe {loaded.name}; data {loaded.data.name}: {task.describe_shape(shape)}', err=True)
    if loaded.latency is not None and LATENCY not in result:
        click.echo('latency-ms is not predicted, because this is not a cell of the space of the recipe', err=True)
    if as_json:
        click.echo(json.dumps(result))
    else:
        for name, value in result.items():
            shown = f'{value:,}' if isinstance(value, int) else f'{value:,.3f}'
            click.echo(f'{name.replace("_", "-"):>13}  {shown}')


@main.command(short_help='Draw a cell as SVG or PNG.')
@click.argument('source', metavar='GENOTYPE')
@click.option(
    '--output', 'outputs', required=True, multiple=True, type=click.Path(path_type=Path, dir_okay=False), help='A .svg or .png. Repeatable.'
)
def draw(source: str, outputs: tuple[Path, ...]) -> None:
    """Draw the cells of GENOTYPE in the way papers do.

    GENOTYPE is a published name, a file with a genotype in any form (in a log, the last one counts), FILE.py:NAME, - for a pipe, a pasted
    Genotype(…), the code from a result, or the output folder of a search. For a folder, each operation is drawn with the probability
    that α gives it.

    \b
    Example:
      nni-darts draw DARTS_V2 --output cell.svg --output cell.png
    """
    for path in outputs:
        check_target('--output', path, ('.svg', '.png'))
    genotype = read_genotype(source)
    if not genotype.graphs():
        raise InputError(f'{genotype.to_text()} is a network without cells: there is nothing to draw.')
    from nni_darts.report.drawing import cell_svg
    from nni_darts.report.png import write_png
    from nni_darts.report.searches import strengths_in

    strengths = strengths_in(Path(source), genotype)
    for path in outputs:
        with naming(path):
            if path.suffix == '.svg':
                path.write_text(cell_svg(genotype, strengths), 'utf-8')
            else:
                write_png(path, genotype, strengths)
        click.echo(f'wrote {path}')


@main.command(short_help='Look up a cell of NAS-Bench-201.')
@click.argument('source', metavar='ARCH')
@click.option('--table', type=click.Path(path_type=Path, dir_okay=False), help='The benchmark as a .csv or .csv.gz with a column arch_str.')
@click.option('--nats-bench', type=click.Path(path_type=Path, file_okay=False), help='A folder of NATS-Bench (pip install nats_bench).')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def query(source: str, table: Path | None, nats_bench: Path | None, as_json: bool) -> None:
    """Look up the results that the authors of NAS-Bench-201 measured for a cell: accuracies in per cent.

    ARCH is the benchmark's notation ('|nor_conv_3x3~0|+|…|'), a file with a genotype, a sample of NNI's NasBench201, NASLib's six numbers
    ('(4, 0, 3, 1, 4, 3)'), or the code from a result. Give either --table or --nats-bench.

    \b
    Example:
      nni-darts query '(4, 0, 3, 1, 4, 3)' --table nasbench201.csv
    """
    genotype = read_genotype(source)
    if not genotype.tabulated:
        raise InputError(f'{source} is not a cell of the space nasbench201; the benchmark has results for those cells only.')
    if (table is None) == (nats_bench is None):
        raise InputError('give the measurements with either --table FILE or --nats-bench FOLDER.')
    values = Table.read(table).query(genotype) if table else query_nats_bench(str(nats_bench), genotype)  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps({'arch': genotype.to_text(), **values}))
    else:
        click.echo(genotype.to_text())
        for name, value in values.items():
            click.echo(f'{name:>16}  {value:.2f}')
        shown = [f'{name} ({data})' for name, data in NATS_DATASETS.items() if name in values]
        if shown:
            click.echo(f'Papers report {", ".join(shown)}: test accuracy after 200 epochs, mean of the seeds.')


def read_genotype(source: str) -> AnyGenotype:
    """Reads a genotype from a published name, the name of a known network, a file, ``FILE.py:NAME``, its text or a code.

    ``-`` stands for standard input; a file may have any form that is known.

    Raises:
        InputError: if it is none of these, or the content is not a genotype.
    """
    if source in PUBLISHED:
        return PUBLISHED[source]
    if source in KNOWN:
        return KnownNetwork(source)
    if source == '-':
        return _read_as('standard input', lambda: genotype_from_text(sys.stdin.read()))
    # os.path, not pathlib, because it treats text that is too long for a path as a path that does not exist.
    path = os.path.join(source, 'genotype.json')
    path = path if os.path.isfile(path) else source
    if os.path.isfile(path):
        read = genotype_from_file if path.endswith('.py') else genotype_from_text
        return _read_as(path, lambda: read(Path(path).read_text('utf-8')))
    file, _, name = source.rpartition(':')
    if os.path.isfile(file):
        return _read_as(file, lambda: genotype_from_file(Path(file).read_text('utf-8'), name))
    if source.lstrip().startswith(('|', '{', '(', '[')) or 'Genotype' in source:
        genotype = _read_as(f'{source[:60]!r}', lambda: genotype_from_text(source))
        if source.lstrip().startswith(('(', '[')):
            click.echo(f'{NASLIB_NUMBERING}: {genotype.to_text()}', err=True)
        return genotype
    try:
        return genotype_from_code(source)
    except ValueError:
        raise InputError(
            f'{source[:100]!r} is not a genotype; give a file, FILE.py:NAME, - for standard input, a pasted Genotype(…), a code from a '
            f'result, or one of {", ".join((*PUBLISHED, *KNOWN))}.'
        ) from None


def _read_as(where: str, read: Callable[[], AnyGenotype]) -> AnyGenotype:
    try:
        return read()
    except (ValueError, OSError) as error:
        raise InputError(f'{where} is not a genotype: {error}') from None
