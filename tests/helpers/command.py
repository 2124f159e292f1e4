"""The command line as a process, and the examples in its help."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from click.testing import CliRunner

from nni_darts.cli import main

COMMAND = [sys.executable, '-m', 'nni_darts']


def run(*arguments: object, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs ``nni-darts`` with arguments until it ends."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **options)


def examples_of(name: str) -> list[str]:
    """Returns the command lines in the help of a command, without the comments after them; of all commands for ''."""
    text = CliRunner().invoke(main, [*name.split(), '--help']).stdout
    return re.findall(r'^ {4}(?:trialCommand: )?(nni-darts \S.*?)(?:  .*)?$', text, re.MULTILINE)
