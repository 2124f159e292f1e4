"""Zero-cost proxies, slowly: image by image, unit by unit, with masks, and with numpy's general eigenvalues."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize


class _Masked(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def snip_by_masks(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Σ |∂L/∂m| for masks m = 1 that multiply the weights."""
    network = copy.deepcopy(network)
    masks = []
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            mask = _Masked(layer.weight)
            parametrize.register_parametrization(layer, 'weight', mask)
            masks.append(mask.mask)
    gradients = torch.autograd.grad(functional.cross_entropy(network(images), labels), masks)
    return sum(float(gradient.abs().sum()) for gradient in gradients)


def naswot_by_units(codes: np.ndarray) -> float:
    """ln |det K| for a table of images × units, which are on (1) or off (0); K counts the units on which two images agree."""
    count = len(codes)
    kernel = np.array([[sum(int(a == b) for a, b in zip(codes[i], codes[j])) for j in range(count)] for i in range(count)], float)
    determinant = np.linalg.det(kernel)
    return float(np.log(abs(determinant)))


def jacob_cov_by_images(network: nn.Module, images: Tensor) -> float:
    """The score from one backward pass for each image (of a network without batch norm), by numpy's corrcoef and eig."""
    rows = []
    for image in images:
        single = image[None].clone().requires_grad_()
        network(single).sum().backward()
        rows.append(single.grad.flatten().double().numpy())
    values = np.linalg.eig(np.corrcoef(np.stack(rows)))[0].real
    return float(-np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5)))
