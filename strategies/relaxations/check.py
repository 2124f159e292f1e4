"""Checks a user's own relaxation before a search starts, on a few numbers instead of a supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from nni_darts._lazy import in_user_code, source_file
from nni_darts.errors import InputError
from nni_darts.strategies.relaxations.base import Relaxation

__all__ = ['check_relaxation']


def check_relaxation(relaxation: Relaxation, sizes: Mapping[str, int]) -> None:
    """Checks the probabilities and weights that a relaxation computes; does nothing for the relaxations of this package.

    A wrong shape would otherwise fail in the middle of the supernet, or make compiled kernels read beyond their memory.

    Args:
        relaxation: the relaxation.
        sizes: label of a choice → its number of candidates.

    Raises:
        InputError: if a method fails, returns anything but a tensor (candidates,) of finite numbers of the type of α, or if α is to be
            trained and the weights do not depend on it.
    """
    kind = type(relaxation)
    if kind.__module__.startswith('nni_darts.') or relaxation.sampled:
        return
    label_of = {size: label for label, size in sizes.items()}
    with torch.device('cpu'), torch.random.fork_rng(devices=[]), torch.enable_grad():
        with in_user_code(kind.__name__, 'relaxation', source_file(kind)):
            relaxation.begin_step(0.0)
        for size, label in label_of.items():
            alpha = torch.linspace(-1e-3, 1e-3, size).requires_grad_()
            _checked(relaxation, 'probabilities', size, partial(relaxation.probabilities, alpha))
            if not relaxation.mixes_by_weights:
                continue
            weights = _checked(relaxation, 'weights', size, partial(relaxation.weights, label, alpha))
            if relaxation.trains_alpha and not weights.requires_grad:
                raise InputError(
                    f'relaxation {kind.__name__}: its weights do not depend on α, which would never move; compute them from α without '
                    'detach(), or set trains_alpha = False'
                )


def _checked(relaxation: Relaxation, method: str, size: int, compute: Callable[[], Tensor]) -> Tensor:
    """Returns what a method computes. Raises InputError as :func:`check_relaxation`."""
    kind = type(relaxation)
    with in_user_code(kind.__name__, 'relaxation', source_file(kind)):
        found = compute()
    what = f'relaxation {kind.__name__}: {method} returns'
    if not isinstance(found, Tensor):
        raise InputError(f'{what} an object of {type(found).__name__}; it must return a tensor of shape ({size},) for α of shape ({size},)')
    if found.shape != (size,):
        raise InputError(f'{what} a tensor of shape {tuple(found.shape)} for α of shape ({size},); it must have the shape of α')
    if found.dtype != torch.get_default_dtype():
        raise InputError(f'{what} numbers of {found.dtype} for α of {torch.get_default_dtype()}; they must be of the type of α')
    if not found.isfinite().all():
        raise InputError(f'{what} {found.tolist()} for α of about 0; all numbers must be finite')
    return found
