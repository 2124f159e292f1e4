"""Shared by all tests: torch state is as found, nothing leaks from one test to the next."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault('OMP_NUM_THREADS', '2')

HEAVIEST_FIRST = (
    'test_live.py',
    'test_fast.py',
    'test_cli.py',
    'test_run.py',
    'test_life.py',
    'test_perturbation.py',
    'test_text_runs.py',
    'test_export.py',
    'test_live_text.py',
    'test_convolutions.py',
    'test_limits.py',
    'test_launch.py',
    'test_nnictl.py',
    'test_executors.py',
)
"""Files that take half a minute or more: begun last, one would leave a single process at work at the end."""

COMMON = {'deadline': None, 'database': None, 'suppress_health_check': list(HealthCheck)}
settings.register_profile('quick', max_examples=20, derandomize=True, **COMMON)
settings.register_profile('faults', max_examples=2000, **COMMON)  # make test-faults
settings.load_profile('quick')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(HEAVIEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    # The modules of torch, NNI and Lightning are a million objects that stay: looking through them for garbage again and again takes a
    # tenth of the suite's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    import torch

    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)
