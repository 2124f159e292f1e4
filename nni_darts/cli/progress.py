"""The display of a running command: live bars at the bottom of a terminal, or plain lines in a pipe.

Everything here goes to stderr, and the bars disappear when the work ends, so that stdout has results only.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from nni_darts.activity import Activity, watched
from nni_darts.cli.output import wrapped
from nni_darts.report.lines import activity_line, decision_line, duration, epoch_line, warning_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.segment import Segment

__all__ = ['Pace', 'Progress', 'Screen', 'aligned', 'is_live']

FRAMES = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'
REFRESHES = 5
"""Updates of the view per second."""
WINDOW_SECONDS = 30.0
"""Seconds over which the pace of work is measured; the last three parts count even if they took longer."""
SHORTEST_BAR = 4
ECHO = '^C'
"""The text that a terminal echoes after the view when Ctrl-C is pressed. It must not end up on a line of its own."""


def is_live() -> bool:
    """Returns whether stderr is a terminal on which lines can be redrawn."""
    return sys.stderr.isatty() and os.environ.get('TERM', 'dumb') not in ('dumb', 'unknown')


View = Callable[[int, int], 'Iterable[RenderableType]']


class Screen:
    """Prints permanent lines and, on a terminal, a view below them that is redrawn several times a second.

    Args:
        view: function of the numbers of columns and lines available; it returns renderables of rich.

    Example:
        >>> with Screen(lambda columns, lines: []) as screen:
        ...     screen.say('epoch 1/8')
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if is_live():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, force_terminal=True, highlight=False, markup=False, emoji=False)
            # The output of other code appears above the view. stdout is redirected only if it is a terminal; a file receives it unchanged.
            on_stdout = sys.stdout.isatty()
            self._live = Live(_Drawn(self._view), console=console, refresh_per_second=REFRESHES, transient=True, redirect_stdout=on_stdout)
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @property
    def live(self) -> bool:
        """Whether the view is shown on a terminal at the moment."""
        return self._live is not None

    def say(self, line: str, *, result: bool = False) -> None:
        """Prints a line above the view, wrapped between words. A result goes to stdout, any other line to stderr."""
        if self._live is None or (result and not sys.stdout.isatty()):
            click.echo(line, err=not result)
        else:
            self._live.console.print(wrapped(line, self._live.console.width), soft_wrap=True)


class _Drawn:
    """A view in the form that rich draws."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = max(1, options.max_width - len(ECHO) - 1)
        for renderable in self._view(width, options.size.height):
            yield from console.render(renderable, options.update(width=width))


class Pace:
    """Measures the pace of work from the times at which its parts were finished.

    Args:
        done: number of parts that are already finished, for example before a resume.
        now: the present time on a clock, in seconds.

    Example:
        >>> pace = Pace(0, 100.0)
        >>> pace.note(1, 110.0)
        >>> pace.left(4, 110.0)
        30.0
    """

    def __init__(self, done: int, now: float) -> None:
        self._marks = deque([(done, now)])

    def note(self, done: int, now: float) -> None:
        """Notes how many parts are finished.

        Args:
            done: number of finished parts.
            now: the present time on the clock, in seconds.
        """
        if done <= self._marks[-1][0]:
            return
        self._marks.append((done, now))
        while len(self._marks) > 4 and self._marks[1][1] < now - WINDOW_SECONDS:
            self._marks.popleft()

    def pause(self, seconds: float) -> None:
        """Excludes a time span that has just ended and says nothing about the pace."""
        self._marks = deque((done, when + seconds) for done, when in self._marks)

    def left(self, of: int, now: float, fraction: float = 0.0) -> float | None:
        """Returns the seconds until all parts are finished; None if that is not known yet.

        Args:
            of: total number of parts.
            now: the present time on the clock, in seconds.
            fraction: finished fraction of the current part; it counts until the first part is finished.
        """
        (first, begun), (done, last) = self._marks[0], self._marks[-1]
        waited = now - last
        if done > first:
            part = (last - begun) / (done - first)
        elif fraction > 0.05 and waited > 1:
            part = waited / fraction
        else:
            return None
        return part * (of - done) - min(waited, part)


class _Row:
    """An activity in the view."""

    def __init__(self, activity: Activity, now: float) -> None:
        self.activity = activity
        self.since = now
        self.pace = Pace(activity.done, now)

    def update(self, activity: Activity, now: float) -> None:
        self.activity = activity
        self.pace.note(activity.done, now)

    @property
    def fraction(self) -> float:
        return self.activity.done / self.activity.of if self.activity.of else 0.0


class Progress(Screen):
    """Shows the activities announced within the block (:mod:`nni_darts.activity`): on a terminal as bars with the time left.

    Elsewhere it prints one line before each lengthy task whose progress cannot be measured.

    Example:
        >>> with Progress() as progress:
        ...     progress.epoch({'epoch': 1, 'of': 8, 'train_loss': 2.3, 'seconds': 1.2})
    """

    def __init__(self) -> None:
        super().__init__(self._lines)
        self._rows: dict[str, _Row] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        super().__enter__()
        self._stack.enter_context(watched(self.show))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        super().__exit__(*exception)

    def show(self, activity: Activity) -> None:
        """Updates the view with an announced activity."""
        if activity.seconds is not None and not self.live:
            click.echo(activity_line(activity), err=True)
        now = time.monotonic()
        rows = dict(self._rows)  # a copy, because the drawing thread reads the old one
        row = rows.get(activity.what)
        if activity.over:
            rows.pop(activity.what, None)
            if row is not None and row.activity.of is None and not any(other.activity.of is None for other in rows.values()):
                for other in rows.values():
                    other.pace.pause(now - row.since)  # a task that runs once says nothing about the remaining time
        elif row is None or activity.done < row.activity.done:
            rows[activity.what] = _Row(activity, now)
        else:
            row.update(activity, now)
        if row is None or activity.lasting:
            # Measured work that ended early, or belongs to the previous part, is no longer shown.
            rows = {what: row for what, row in rows.items() if what == activity.what or row.activity.lasting or row.activity.of is None}
        self._rows = rows

    # Called by the stages ------------------------------------------------------------------------------------------------------------

    def start(self, headline: str, warnings: Sequence[str]) -> None:
        """Prints the headline of a run, and its warnings."""
        self.say(headline)
        for warning in warnings:
            self.say(warning_line(warning))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Prints the measurements of an epoch."""
        cells = self._rows.get('cells')
        where = f'cell {cells.activity.done + 1}/{cells.activity.of}  ' if cells else ''
        self.say(where + epoch_line(record))

    def decision(self, record: Mapping[str, Any]) -> None:
        """Prints a decision of a selection."""
        self.say(decision_line(record))

    # The view -----------------------------------------------------------------------------------------------------------------------

    def _lines(self, width: int, height: int) -> Iterator[RenderableType]:
        from rich.text import Text

        now, rows = time.monotonic(), self._rows
        lasting = [row for row in rows.values() if row.activity.lasting]
        others = [row for row in rows.values() if not row.activity.lasting]
        counted = [row for row in [*lasting, *others[-1:]] if row.activity.of is not None]
        table: list[tuple[str, float, tuple[str, str]]] = []
        least = 0.0  # inner work must end before outer work
        for row, inner in zip(reversed(counted), [None, *reversed(counted[1:])]):
            within = 0.0 if inner is None or inner.activity.lasting else inner.fraction
            left = None if row.activity.of is None else row.pace.left(row.activity.of, now, within)
            if left is not None:
                left = least = max(left, least)
            time_left = '' if left is None else f'{duration(max(1.0, left))} left'
            table.insert(0, (row.activity.what, row.fraction, (f'{row.activity.done}/{row.activity.of}', time_left)))
        if table:
            yield aligned(width, table, ('progress.download', 'progress.remaining'), longest=max(10, width // 3))
        if others and others[-1].activity.of is None:
            waiting = others[-1]
            frame = FRAMES[int(now * len(FRAMES)) % len(FRAMES)]
            yield Text.assemble((frame, 'progress.spinner'), f' {activity_line(waiting.activity)}  {duration(now - waiting.since)}')


def aligned(width: int, rows: Sequence[tuple[str, float, Sequence[str]]], styles: Sequence[str], longest: int) -> RenderableType:
    """Returns a table that fits into the width. Each row has a name, a bar and texts.

    If the width is too small, the bar is dropped first, then texts from the last to the second, and finally names are shortened.

    Args:
        width: number of columns of the terminal that the table may take.
        rows: name, fraction done and texts of each row.
        styles: rich style of each column of texts.
        longest: largest number of characters of a name that is kept whole at the expense of texts.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    names = min(longest, max(len(name) for name, _, _ in rows))
    sizes = [max(map(len, column)) for column in zip(*(texts for _, _, texts in rows))]
    while len(sizes) > 1 and names + sum(size + 1 for size in sizes) > width:
        sizes.pop()
    texts_width = sum(size + 1 for size in sizes)
    names = max(1, min(names, width - texts_width))
    room = width - names - texts_width - 1
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=names, no_wrap=True)
    if room >= SHORTEST_BAR:
        table.add_column(width=room)
    for size in sizes:
        table.add_column(width=size, no_wrap=True, justify='right')
    for name, fraction, texts in rows:
        bars = [ProgressBar(1.0, fraction, width=room)] if room >= SHORTEST_BAR else []
        table.add_row(Text(_shortened(name, names)), *bars, *(Text(text, style) for text, style, _ in zip(texts, styles, sizes)))
    return table


def _shortened(name: str, size: int) -> str:
    """Shortens a name to ``size`` characters and keeps its end, which distinguishes it from other names."""
    tail = min(4, size // 3)
    return name if len(name) <= size else name[: size - tail - 1] + '…' + name[len(name) - tail :]
