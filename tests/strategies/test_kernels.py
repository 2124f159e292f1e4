"""Building and finding the compiled kernels; what they compute is compared in test_fast.py."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nni_darts.strategies.fast import kernels


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing loaded."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.delenv('NNI_DARTS_KERNELS', raising=False)
    kernels._library.cache_clear()
    yield tmp_path / 'nni-darts'
    kernels._library.cache_clear()


def test_they_are_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.kernels(torch.zeros(1)) is None:
        pytest.skip('there is no C++ compiler')
    (built,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    before = built.stat().st_mtime_ns
    kernels._library.cache_clear()
    assert kernels.kernels(torch.zeros(1)) is not None
    assert [built.stat().st_mtime_ns] == [before] and len(list(cache.iterdir())) == 1
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')
    assert kernels.kernels(torch.zeros(1)) is None
    monkeypatch.delenv('NNI_DARTS_KERNELS')
    assert kernels.kernels(torch.zeros(1, dtype=torch.bfloat16)) is None


def test_a_compiler_that_fails_costs_only_speed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / 'compiler'
    compiler.write_text('#!/bin/sh\necho version 1\ntest "$1" = --version\n')
    compiler.chmod(0o700)
    monkeypatch.setenv('CXX', str(compiler))
    with caplog.at_level(logging.WARNING):
        assert kernels.kernels(torch.zeros(1)) is None
    assert 'could not be built' in caplog.text
    assert list(cache.iterdir()) == []


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert kernels.kernels(torch.zeros(1)) is None
    assert not caplog.records
