"""Modules under their former paths."""

from __future__ import annotations

import importlib
import sys

import pytest

import nni_darts


@pytest.mark.parametrize('former', nni_darts._MOVED)
def test_a_module_is_found_under_its_former_path_with_a_warning(former: str) -> None:
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f'{former} has moved to {nni_darts._MOVED[former]}'):
        module = importlib.import_module(former)
    new = importlib.import_module(nni_darts._MOVED[former])
    assert new.__all__ and all(getattr(module, name) is getattr(new, name) for name in new.__all__)
    with pytest.raises(AttributeError):
        _ = module.no_such_name
