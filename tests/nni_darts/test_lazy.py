"""Modules under their former paths, and what is said when a user's code fails."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nni_darts
from nni_darts._lazy import in_user_code, named, source_file
from nni_darts.errors import InputError


@pytest.mark.parametrize('former', nni_darts._MOVED)
def test_a_module_is_found_under_its_former_path_with_a_warning(former: str) -> None:
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f'{former} has moved to {nni_darts._MOVED[former]}'):
        module = importlib.import_module(former)
    new = importlib.import_module(nni_darts._MOVED[former])
    assert new.__all__ and all(getattr(module, name) is getattr(new, name) for name in new.__all__)
    with pytest.raises(AttributeError):
        _ = module.no_such_name


MINE = """
class Ghost:
    def __init__(self, must):
        raise RuntimeError('two\\nlines')


def leave():
    raise SystemExit(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of the user's that works and one that ends the process."""
    (tmp_path / 'mine.py').write_text(MINE)
    (tmp_path / 'leaving.py').write_text('import sys\n\nsys.exit(4)\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *(entry for entry in sys.path if entry)])
    for name in ('mine', 'leaving'):
        sys.modules.pop(name, None)  # of another test
    yield tmp_path
    for name in ('mine', 'leaving'):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ('path', 'said'),
    [
        ('mine:Gost', r"module 'mine' has no 'Gost' \(did you mean 'Ghost'\?\) \(space 'mine:Gost'\)"),
        ('mine.py:Ghost', r"no module 'mine.py' .* or on PYTHONPATH; write mine:Ghost, without .py"),
        ('leaving:Ghost', r'importing leaving failed: it ends the process \(SystemExit: 4\) \(\S+leaving.py:3\)'),
    ],
)
def test_an_import_that_fails_is_one_sentence(folder: Path, path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        named(path, 'space')


@pytest.mark.parametrize(
    ('name', 'arguments', 'said'),
    [
        ('Ghost', [1], r'space mine:Ghost failed: RuntimeError: two lines \(\S+mine.py:4\)'),
        ('leave', [], r'space mine:leave failed: it ends the process \(SystemExit: 3\) \(\S+mine.py:8\)'),
    ],
)
def test_code_that_fails_is_one_line_with_the_users_file(folder: Path, name: str, arguments: list[int], said: str) -> None:
    call = named(f'mine:{name}', 'space')
    with pytest.raises(InputError, match=said) as caught, in_user_code(f'mine:{name}', 'space', source_file(call)):
        call(*arguments)
    assert '\n' not in str(caught.value)
