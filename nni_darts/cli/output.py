"""The final output of commands: results, warnings, and how to continue after Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from nni_darts.report.lines import result_lines, warning_line

__all__ = ['columns_of', 'interruptible', 'print_result', 'print_warnings', 'say', 'say_field', 'wrapped']


class Interrupted(BaseException):
    """Ctrl-C. It is not a KeyboardInterrupt because Lightning would catch that and exit by itself."""


class interruptible:
    """Ends the block after Ctrl-C with one sentence that says what is saved and how to continue."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def __enter__(self) -> None:
        def interrupt(*_: Any) -> NoReturn:
            raise Interrupted

        self.before = signal.signal(signal.SIGINT, interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.before)
        if kind is Interrupted:
            click.echo(err=True)
            say(f'Interrupted. Progress is saved in {self.output}; run the same command with --resume to continue.', err=True)
            sys.exit(130)


def columns_of(stream: TextIO) -> int | None:
    """Returns the number of columns if a stream is a terminal; None otherwise."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(line: str, columns: int) -> str:
    """Breaks a line between words, but not before units. Further lines are indented by two characters more than the first.

    Args:
        line: the text, which may be indented.
        columns: number of characters in a line.
    """
    indent = line[: len(line) - len(line.lstrip())]
    text = textwrap.fill(
        line.strip().replace(' %', '\0%'),
        columns,
        initial_indent=indent,
        subsequent_indent=indent + '  ',
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace('\0', ' ')


def say(line: str, *, err: bool = False) -> None:
    """Prints a line, which is wrapped between words on a terminal."""
    columns = columns_of(sys.stderr if err else sys.stdout)
    click.echo(line if columns is None else wrapped(line, columns), err=err)


def say_field(name: str, value: str) -> None:
    """Prints a name and its value, such as an address. The value gets its own line if the terminal is too narrow for both."""
    columns, line = columns_of(sys.stdout), f'  {name:<13} {value}'
    click.echo(line if columns is None or len(line) <= columns else f'  {name}\n{value}')


def print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(warning_line(warning), err=True)


def print_result(result: Mapping[str, Any], output: Path) -> None:
    for line in result_lines(result, output):
        click.echo(line)
