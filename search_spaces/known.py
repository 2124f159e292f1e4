"""Torchvision's networks for images of any size: the baselines that a found cell is held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from nni_darts.genotypes.networks import KnownNetwork

__all__ = ['known_network']


def known_network(genotype: KnownNetwork, num_classes: int = 10, in_channels: int = 3, stem: str = 'cifar', **of_cells: Any) -> nn.Module:
    """Builds the network with fresh weights: (B, in_channels, H, W) → logits (B, num_classes).

    Torchvision's networks are made for 224×224 pixels: they halve the image two times (resnet18) or more before they look closely, which
    leaves next to nothing of a small image.

    Args:
        genotype: which network.
        num_classes: number of classes.
        in_channels: channels of the images.
        stem: ``imagenet`` is torchvision's own; ``cifar`` begins with a 3×3 convolution of stride 1 and without a pool, as is usual for
            images of about 32×32 pixels (He et al., CVPR 2016, arXiv:1512.03385, section 4.2).
        of_cells: options of networks of cells, which are ignored.
    """
    return _BUILDERS[genotype.name](num_classes, in_channels, stem == 'cifar')


def _resnet18(num_classes: int, in_channels: int, small: bool) -> nn.Module:
    network = resnet18(weights=None, num_classes=num_classes)
    if small:
        network.conv1, network.maxpool = _initialised(nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)), nn.Identity()
    else:
        network.conv1 = _with_channels(network.conv1, in_channels)
    return network


def _mobilenet_v3_small(num_classes: int, in_channels: int, small: bool) -> nn.Module:
    network = mobilenet_v3_small(weights=None, num_classes=num_classes)
    network.features[0][0] = _with_channels(network.features[0][0], in_channels)
    if small:
        network.features[0][0].stride = (1, 1)
    return network


def _with_channels(convolution: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """Returns a like convolution for images of ``in_channels`` channels, or the convolution itself if it already takes that many."""
    if convolution.in_channels == in_channels:
        return convolution
    geometry: dict[str, Any] = {name: getattr(convolution, name) for name in ('kernel_size', 'stride', 'padding')}
    return _initialised(nn.Conv2d(in_channels, convolution.out_channels, **geometry, bias=False))


def _initialised(convolution: nn.Conv2d) -> nn.Conv2d:
    """Draws a convolution's weights in the way torchvision does for both networks, and returns the convolution."""
    nn.init.kaiming_normal_(convolution.weight, mode='fan_out', nonlinearity='relu')
    return convolution


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {'resnet18': _resnet18, 'mobilenet_v3_small': _mobilenet_v3_small}
