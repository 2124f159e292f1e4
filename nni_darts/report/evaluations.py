"""An evaluation as lines of text for a terminal or a pipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

__all__ = ['evaluation_lines']

WIDTH = 80
"""The largest width of a table, in characters of a terminal."""
CONFUSIONS = 20
"""Number of pairs of classes that are listed if the confusion matrix is too wide."""


def evaluation_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the accuracy, a table of the classes and the confusion matrix, in lines of at most 80 characters.

    Args:
        values: the result of :meth:`nni_darts.runs.evaluation.Evaluation.to_dict`.
    """
    low, high = (100 * value for value in values['accuracy_interval'])
    yield f'{"accuracy":>17}  {_percent(values["accuracy"])} of {values["count"]:,} images, 95 % interval {low:.2f} to {high:.2f}'
    yield f'{"balanced accuracy":>17}  {_percent(values["balanced_accuracy"])}'
    yield f'{"largest class":>17}  {_percent(values["largest_class"])}'
    yield ''
    yield from _table(
        ['class', 'images', 'recall', 'precision', 'F1'],
        [
            [entry['class'], f'{entry["count"]:,}', *(_percent(entry[name]) for name in ('recall', 'precision', 'f1'))]
            for entry in values['per_class']
        ],
    )
    yield ''
    yield from _confusion(values['classes'], values['confusion'])


def _percent(value: float | None) -> str:
    return '–' if value is None else f'{100 * value:.2f} %'


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table. Its first column has names, which are truncated if the table is too wide."""
    sizes = [max(cell_len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    sizes[0] = max(1, min(sizes[0], WIDTH - sum(2 + size for size in sizes[1:])))
    for row in [heading, *rows]:
        yield '  '.join([set_cell_size(_short(row[0], sizes[0]), sizes[0]), *(text.rjust(size) for text, size in zip(row[1:], sizes[1:]))])


def _confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yields the lines of the confusion matrix with numbered columns or, if it is too wide, the most frequent confusions."""
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    size = max(2, *(len(str(count)) for row in confusion for count in row), len(numbers[-1]))
    names = max(map(cell_len, classes)) + len(numbers[-1]) + 1
    room = WIDTH - (size + 1) * len(classes)
    if room >= min(names, 16):
        yield 'Confusion matrix: a row for each true class, a column for each predicted class.'
        names = min(names, room)
        yield ' ' * names + ''.join(number.rjust(size + 1) for number in numbers)
        for number, name, row in zip(numbers, classes, confusion):
            label = set_cell_size(_short(f'{number.rjust(len(numbers[-1]))} {name}', names), names)
            yield label + ''.join(('·' if count == 0 else str(count)).rjust(size + 1) for count in row)
        return
    cells = ((count, true, predicted) for true, row in enumerate(confusion) for predicted, count in enumerate(row))
    pairs = sorted((cell for cell in cells if cell[0] and cell[1] != cell[2]), key=lambda cell: (-cell[0], cell[1:]))
    shown = pairs[:CONFUSIONS]
    yield f'Most frequent of {len(pairs):,} kinds of confusion (--json prints the whole matrix):' if pairs else 'No image was confused.'
    longest = (WIDTH - 18 - size) // 2
    for count, true, predicted in shown:
        yield f'{count:>{size + 2}}  {_short(classes[true], longest)} taken for {_short(classes[predicted], longest)}'


def _short(text: str, size: int) -> str:
    return text if cell_len(text) <= size else set_cell_size(text, size - 1) + '…'
