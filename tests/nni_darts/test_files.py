from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.files import lock
from nni_darts.recipes import Recipe
from tests.helpers.running import search


def test_a_lock_is_that_of_one_process_and_ends_with_it(tmp_path: Path) -> None:
    code = f'import sys; from pathlib import Path; from nni_darts.files import lock; print(lock(Path({str(tmp_path / "x")!r})), flush=True)'
    with subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', code + '; sys.stdin.read()'], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as other:
        assert other.stdout.readline().strip() != b'None'
        assert lock(tmp_path / 'x') is None
        other.kill()
        other.wait()
    held = lock(tmp_path / 'x')
    assert held is not None
    os.close(held)


def test_two_runs_in_one_folder_are_one_sentence(tmp_path: Path) -> None:
    held = lock(tmp_path / 'run.lock')
    assert held is not None
    with pytest.raises(InputError, match='another process is working in'):
        search(Recipe.load('digits'), 'darts-1st', 1, tmp_path, resume=True)
    os.close(held)
