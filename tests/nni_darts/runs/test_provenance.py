from __future__ import annotations

import subprocess
from pathlib import Path

from nni_darts.runs.provenance import git_state, provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ['-c', 'user.name=n', '-c', 'user.email=e@example.org']
    return subprocess.run(['git', *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_state_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, 'init', '-q')
    assert git_state(tmp_path) is None  # nothing committed yet
    (tmp_path / 'file').write_text('one')
    git(tmp_path, 'add', 'file')
    git(tmp_path, 'commit', '-qm', 'one')
    assert git_state(tmp_path) == {'commit': git(tmp_path, 'rev-parse', 'HEAD'), 'changed': False}
    (tmp_path / 'file').write_text('two')
    (tmp_path / 'untracked').write_text('')
    assert git_state(tmp_path)['changed'] is True


def test_what_stands_beside_every_result() -> None:
    found = provenance()
    assert {'nni-darts', 'python', 'nni', 'torch', 'torchvision', 'pytorch-lightning', 'numpy'} == set(found['versions'])
    assert found['command'] and found['machine']['threads'] >= 1
