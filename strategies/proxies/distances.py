"""Proxies that measure how differently an untrained network responds to the images of a batch: jacob_cov and naswot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nni_darts.strategies.proxies.base import Batch, logits_of

__all__ = ['jacob_cov', 'naswot', 'relu_kernel']

_K = 1e-5


def jacob_cov(network: nn.Module, batch: Batch) -> float:
    """Returns −Σ [ln(v + k) + 1 / (v + k)] over the eigenvalues v of the correlations between the images' gradients, k = 10⁻⁵.

    The gradient of an image is that of the sum of all logits (Mellor et al., arXiv:2006.04647v1; Abdelfattah et al., ICLR 2021). The
    matrix is symmetric, so its eigenvalues are computed as those of a symmetric matrix, which are real. If an image's gradient is
    constant, its correlations are undefined, and so is the score.
    """
    images = batch.images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(network, images).sum(), images, allow_unused=True)
    if gradient is None:
        return float('nan')
    rows = gradient.double().flatten(1)
    centred = rows - rows.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1, keepdim=True)
    if not (lengths > 0).all():
        return float('nan')
    unit = centred / lengths
    values = torch.linalg.eigvalsh(unit @ unit.T)
    return -float((torch.log(values + _K) + 1 / (values + _K)).sum())


def naswot(network: nn.Module, batch: Batch) -> float:
    """Returns ln |det K|, the log-determinant of :func:`relu_kernel` (Mellor et al., ICML 2021).

    Two images with the same pattern give two equal rows, so the determinant is 0 and the score −∞.
    """
    sign, logarithm = torch.linalg.slogdet(relu_kernel(network, batch.images))
    return float(logarithm) if sign != 0 else float('-inf')


def relu_kernel(network: nn.Module, images: Tensor) -> Tensor:
    """Returns K (B, B): for two images, the number of ReLU units that are both on or both off. Its diagonal is the number of units.

    A ReLU counts only if it depends on the images and the output depends on it, much as in the authors' code.

    Raises:
        ValueError: if the network has no ReLU.
    """
    recorder = _RecordedReLUs()
    # If no parameter needed a gradient, nothing would tell which ReLUs reach the output.
    images = images.detach().clone().requires_grad_()
    with recorder:
        total = logits_of(network, images).sum()
    if not recorder.outputs:
        raise ValueError('naswot counts ReLU units, and the network has none; use another proxy')
    # A ReLU that does not depend on the images, because it follows none, has no gradient function either.
    units = [(codes, output) for codes, output in zip(recorder.codes, recorder.outputs) if output.requires_grad]
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    if not total.requires_grad or not units:
        return kernel
    gradients = torch.autograd.grad(total, [output for _, output in units], allow_unused=True)
    for (codes, _), gradient in zip(units, gradients):
        if gradient is not None:
            on = codes.flatten(1).float()  # a layer has fewer than 2²⁴ units, so counts are exact
            kernel += (on @ on.T + (1 - on) @ (1 - on).T).double().cpu()
    return kernel


class _RecordedReLUs(TorchFunctionMode):
    """Records the outputs of all ReLUs, whether they are modules or functions, and which of their units are on."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.codes: list[Tensor] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if function in _RELUS:
            self.outputs.append(output)
            self.codes.append(output.detach() > 0)
        return output


_RELUS = frozenset({functional.relu, functional.relu_, functional.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
