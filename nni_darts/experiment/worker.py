"""A process beside the tuner that computes what needs torch, which the tuner cannot import. Imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError

__all__ = ['Worker']


class Worker:
    """Runs ``python -m MODULE``, which reads its task as one line of JSON from stdin and answers with JSON on stdout.

    Its stdin stays open until the tuner ends, so that it can notice this.

    Args:
        module: name of the module.
        task: the task.
        log: file to which its stderr is appended.
        folder: its current folder; None for the tuner's.

    Attributes:
        process: the process.

    Example:
        ``Worker('nni_darts.experiment.timing', task, Path('log/timing.log'))``
    """

    def __init__(self, module: str, task: Mapping[str, Any], log: Path, folder: Path | None = None) -> None:
        self._log = log
        with open(log, 'a', encoding='utf-8') as file:
            self.process = subprocess.Popen(
                [sys.executable, '-m', module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding='utf-8',
                cwd=folder,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},  # so that it finds the user's modules
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + '\n')
        self.process.stdin.flush()

    @property
    def running(self) -> bool:
        """Whether the process is still at work."""
        return self.process.poll() is None

    def answer(self, name: str) -> dict[str, Any]:
        """Returns the answer of a process that has ended.

        Args:
            name: what the message calls the process, such as ``latency: the process that measured``.

        Raises:
            InputError: if it failed.
        """
        assert self.process.stdout is not None
        text = self.process.stdout.read()
        if self.process.returncode or not text:
            raise InputError(f'{name} ended with code {self.process.returncode}; {self._log.name} says why')
        return dict(json.loads(text))

    def close(self) -> None:
        """Ends the process if it is still running."""
        self.process.kill()
