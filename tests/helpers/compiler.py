"""Whether compiled kernels can be had here."""

from __future__ import annotations

import os
import platform
import shutil

import pytest
import torch

from nni_darts.strategies.fast import kernels


def needs_kernels(dtype: torch.dtype = torch.float32) -> None:
    """Skips a test where there can be no kernels: without a compiler, or where they are switched off. Kernels that do not build fail it."""
    if os.environ.get('NNI_DARTS_KERNELS') == 'off':
        pytest.skip('NNI_DARTS_KERNELS is off')
    if shutil.which(os.environ.get('CXX', 'g++')) is None or platform.system() != 'Linux':
        pytest.skip('there is no C++ compiler')
    assert kernels.kernels(torch.zeros(1, dtype=dtype)) is not None, 'the kernels were not built; the log says why'
