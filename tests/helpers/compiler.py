"""Skips tests that need compiled kernels if there is no compiler."""

from __future__ import annotations

import os
import platform
import shutil

import pytest
import torch

from nni_darts.strategies.fast import kernels


def needs_kernels(dtype: torch.dtype = torch.float32) -> None:
    """Skips a test if there is no compiler or kernels are switched off. If the kernels do not build, the test fails."""
    if os.environ.get('NNI_DARTS_KERNELS') == 'off':
        pytest.skip('NNI_DARTS_KERNELS is off')
    if shutil.which(os.environ.get('CXX', 'g++')) is None or platform.system() != 'Linux':
        pytest.skip('there is no C++ compiler')
    assert kernels.kernels(torch.zeros(1, dtype=dtype)) is not None, 'the kernels were not built; the log says why'
