"""Torchvision's networks for images of any size, as baselines for the cells that a search finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from nni_darts.genotypes.networks import KnownNetwork

__all__ = ['known_network']


def known_network(genotype: KnownNetwork, num_classes: int = 10, in_channels: int = 3, stem: str = 'cifar', **of_cells: Any) -> nn.Module:
    """Builds a known network with newly initialised weights: (B, in_channels, H, W) → logits (B, num_classes).

    Torchvision's networks are made for images of 224×224 pixels. Their stems and first stages reduce the resolution so much that little
    remains of a small image.

    Args:
        genotype: name of the network.
        num_classes: number of classes.
        in_channels: channels of the images.
        stem: ``imagenet`` is torchvision's own; ``cifar`` begins with a 3×3 convolution of stride 1 and without a pool, as is usual for
            images of about 32×32 pixels (He et al., CVPR 2016, arXiv:1512.03385, section 4.2).
        of_cells: options of networks of cells; they are ignored.
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
    """Returns the convolution, or a similar one for ``in_channels`` channels if it takes another number of channels."""
    if convolution.in_channels == in_channels:
        return convolution
    geometry: dict[str, Any] = {name: getattr(convolution, name) for name in ('kernel_size', 'stride', 'padding')}
    return _initialised(nn.Conv2d(in_channels, convolution.out_channels, **geometry, bias=False))


def _initialised(convolution: nn.Conv2d) -> nn.Conv2d:
    """Initialises a convolution's weights as torchvision does for both networks, and returns the convolution."""
    nn.init.kaiming_normal_(convolution.weight, mode='fan_out', nonlinearity='relu')
    return convolution


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {'resnet18': _resnet18, 'mobilenet_v3_small': _mobilenet_v3_small}
