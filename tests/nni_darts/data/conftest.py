from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of everything that is kept between runs, a fresh one for each test."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / '.cache'))
    return tmp_path / '.cache' / 'nni-darts'
