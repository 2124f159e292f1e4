"""The Python examples run as they stand (the YAML ones are checked in tests/nni_darts/experiment)."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from nni_darts import Genotype

ROOT = Path(__file__).parents[1]


def test_python_api(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    source = (ROOT / 'examples' / 'python_api.py').read_text()
    (tmp_path / 'example.py').write_text(source.replace('EPOCHS = 4', 'EPOCHS = 1'))
    runpy.run_path(str(tmp_path / 'example.py'))
    lines = capsys.readouterr().out.splitlines()
    (text,) = [line for line in lines if line.startswith('Genotype(')]
    assert Genotype.from_text(text).nodes == 3
    assert any(line.startswith('Cost(parameters=') for line in lines)
    assert (tmp_path / 'cell.svg').read_text().startswith('<svg ')


def test_nni_strategies(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(ROOT / 'examples' / 'nni_strategies.py'))
    example['main'].__globals__.update(EPOCHS=1, MODELS=3)
    example['main']()
    lines = [line.split(' ', 1) for line in capsys.readouterr().out.splitlines() if ' Genotype(' in line]
    assert [Genotype.from_text(text).nodes for _, text in lines] == [3, 3, 3]
    assert all(0 <= float(accuracy) <= 1 for accuracy, _ in lines)
