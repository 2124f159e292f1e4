"""Shared parts of the benchmarks: options, small versions of the images, and the table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

__all__ = ['benchmark', 'print_table', 'spread', 'write_images']

Row = Mapping[str, Any]


def benchmark(function: Callable[..., None]) -> click.Command:
    """Returns a command with the options of every benchmark."""
    for option in (
        click.option('--quick', is_flag=True, help='Under a minute: shows that it works, measures nothing.'),
        click.option('--json', 'json_file', type=click.Path(path_type=Path, dir_okay=False), help='Write the rows there, too.'),
    ):
        function = option(function)
    return click.command(context_settings={'help_option_names': ['-h', '--help']})(function)


def print_table(rows: Sequence[Row], json_file: Path | None) -> None:
    """Prints the rows as a Markdown table and writes them to the file, if there is one."""
    header = list(rows[0])
    click.echo('| ' + ' | '.join(header) + ' |')
    click.echo('|' + '---|' * len(header))
    for row in rows:
        click.echo('| ' + ' | '.join(f'{value:.2f}' if isinstance(value, float) else str(value) for value in row.values()) + ' |')
    if json_file is not None:
        json_file.write_text(json.dumps(list(rows), indent=1) + '\n', 'utf-8')


def spread(values: Sequence[float]) -> str:
    """Returns mean ± sample standard deviation."""
    return f'{statistics.fmean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}'


def write_images(source: Path, target: Path, *, train: int, test: int, shrink: int = 1) -> Path:
    """Writes the first images of each class of an .npz to another one.

    Args:
        source: the .npz to read.
        target: the .npz to write.
        train: total number of training images.
        test: total number of test images.
        shrink: number of pixels to average in each direction, as for ImageNet16.

    Returns:
        The path of the written file.
    """
    arrays = {}
    with np.load(source) as data:
        for part, count in (('train', train), ('test', test)):
            images, labels = data[f'{part}_images'], data[f'{part}_labels']
            classes = np.unique(labels)
            chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[: count // len(classes)] for label in classes]))
            images = images[chosen]
            if shrink > 1:
                n, h, w, c = images.shape
                images = images.reshape(n, h // shrink, shrink, w // shrink, shrink, c).mean(axis=(2, 4)).round().astype(np.uint8)
            arrays |= {f'{part}_images': images, f'{part}_labels': labels[chosen]}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, **arrays)
    return target
