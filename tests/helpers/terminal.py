"""A real pseudo-terminal, and the screen that its user would see."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ['Screen', 'Session', 'on_terminal']

_SEQUENCE = re.compile(r'\x1b\[(\?)?([\d;]*)([A-Za-z])')
_HEIGHT = 24


class Screen:
    """A terminal that renders the bytes it receives. It knows the few sequences that bars need and fails on any other sequence.

    Attributes:
        lines: everything that was ever written, including lines that have scrolled away.
        cursor: whether the cursor is visible.
        colours: the numbers of all SGR sequences so far.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines: list[str] = ['']
        self.cursor = True
        self.colours: set[int] = set()
        self._row = self._column = 0
        self._rest = ''

    def feed(self, text: str) -> None:
        """Renders what a program has written."""
        text = self._rest + text
        self._rest = ''
        place = 0
        while place < len(text):
            character = text[place]
            if character == '\x1b':
                found = _SEQUENCE.match(text, place)
                if found is None:
                    assert len(text) - place < 16, f'an unknown sequence {text[place : place + 16]!r}'
                    self._rest = text[place:]
                    return
                self._control(*found.groups())
                place = found.end()
                continue
            if character == '\n':
                self._down()
            elif character == '\r':
                self._column = 0
            else:
                self._put(character)
            place += 1

    def _control(self, private: str | None, numbers: str, letter: str) -> None:
        count = int(numbers or 1) if numbers.isdigit() or not numbers else 0
        if private:
            assert numbers == '25' and letter in 'hl', f'an unknown sequence ?{numbers}{letter}'
            self.cursor = letter == 'h'
        elif letter == 'm':
            self.colours |= {int(number) for number in numbers.split(';') if number}
        elif letter == 'A':
            self._row -= count
            assert self._row >= max(0, len(self.lines) - _HEIGHT), 'above the top of the screen'
        elif letter == 'K':
            assert numbers == '2', f'an unknown sequence {numbers}K'
            self.lines[self._row] = ''
        else:
            raise AssertionError(f'an unknown sequence {numbers}{letter}')

    def _put(self, character: str) -> None:
        assert unicodedata.category(character) != 'Cc', f'a control character {character!r}'
        if self._column == self.columns:
            self._down()
            self._column = 0
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append('')

    def shown(self) -> list[str]:
        """Returns the lines, without trailing spaces and without empty lines at the bottom."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Session:
    """A command that ran on a terminal.

    Attributes:
        views: lines on the screen after each write, without lines that were there before.
        lines: lines at the end.
        cursor, colours: see :class:`Screen`.
        stdout: the standard output, if it was a pipe.
        returncode: exit code of the command.
    """

    def __init__(self, screen: Screen, views: list[list[str]], stdout: str, returncode: int) -> None:
        self.views, self.lines = views, screen.shown()
        self.cursor, self.colours = screen.cursor, screen.colours
        self.stdout, self.returncode = stdout, returncode

    def ever(self, pattern: str) -> list[str]:
        """Returns the lines that were on the screen at some moment and match a regular expression, each once."""
        return list(dict.fromkeys(line for view in self.views for line in view if re.search(pattern, line)))


def on_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdout: BinaryIO | None = None,
    interrupt: Callable[[list[str]], bool] | None = None,
    seconds: float = 120,
) -> Session:
    """Runs a command on a terminal that is ``columns`` wide.

    Args:
        environment: variables to add. TERM is ``xterm-256color`` by default, and other variables that affect drawing are removed.
        stdout: a file that receives stdout instead of the terminal.
        interrupt: function of the lines on the screen; Ctrl-C is sent once it returns True.
        seconds: time limit after which the command is killed and the test fails.
    """
    own, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack('HHHH', _HEIGHT, columns, 0, 0))
    drawing = ('COLUMNS', 'LINES', 'NO_COLOR', 'FORCE_COLOR', 'COLORTERM', 'TERM')
    base = {name: value for name, value in os.environ.items() if name not in drawing}
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=stdout or its,
        stderr=its,
        env={**base, 'TERM': 'xterm-256color', 'LANG': 'C.UTF-8', **(environment or {})},
        cwd=folder,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C arrives as a signal
    )
    os.close(its)
    screen, views, decoder, interrupted = Screen(columns), [], b'', False
    deadline = time.monotonic() + seconds
    try:
        while True:
            # A daemon started by the command may keep the terminal open.
            ready, _, _ = select.select([own], [], [], 0.5)
            if not ready:
                assert time.monotonic() < deadline, '\n'.join(screen.shown())
                if process.poll() is not None:
                    break
                continue
            try:
                data = os.read(own, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                data = b''  # no process has the terminal open any more
            if not data:
                break
            decoder += data
            text = decoder.decode('utf-8', 'ignore')
            decoder = decoder[len(text.encode()) :]
            screen.feed(text)
            views.append(screen.shown())
            if interrupt is not None and not interrupted and interrupt(views[-1]):
                interrupted = True
                os.write(own, b'\x03')
            assert time.monotonic() < deadline, '\n'.join(views[-1])
        code = process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(own)
    text = ''
    if stdout is not None:
        stdout.seek(0)
        text = stdout.read().decode()
    return Session(screen, views, text, code)
