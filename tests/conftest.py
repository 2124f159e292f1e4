"""Shared by all tests: torch state is as found, nothing leaks from one test to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault('OMP_NUM_THREADS', '2')

COMMON = {'deadline': None, 'database': None, 'suppress_health_check': list(HealthCheck)}
settings.register_profile('quick', max_examples=20, derandomize=True, **COMMON)
settings.register_profile('faults', max_examples=2000, **COMMON)  # make test-faults
settings.load_profile('quick')


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    import torch

    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)
