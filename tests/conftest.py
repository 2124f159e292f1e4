"""Shared by all tests: torch state is as found, nothing leaks from one test to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '2')


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    import torch

    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)
