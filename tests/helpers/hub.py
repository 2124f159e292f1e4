"""Small sizes of the spaces of NNI's hub, for images (B, 3, 32, 32) and ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nni_darts.recipes import Recipe

HUB: dict[str, dict[str, Any]] = {
    'NasBench201': {'stem_out_channels': 4, 'num_modules_per_stack': 1},
    'DARTS': {'width': 4, 'num_cells': 3, 'dataset': 'cifar'},
    'NASNet': {'width': 4, 'num_cells': 3, 'dataset': 'cifar'},
    'ENAS': {'width': 4, 'num_cells': 3, 'dataset': 'cifar'},
    'AmoebaNet': {'width': 4, 'num_cells': 3, 'dataset': 'cifar'},
    'PNAS': {'width': 4, 'num_cells': 3, 'dataset': 'cifar'},
    'ProxylessNAS': {'num_labels': 10, 'base_widths': [8, 8, 8, 8, 8, 8, 8, 8, 16]},
    'MobileNetV3Space': {
        'num_labels': 10,
        'base_widths': [16, 16, 16, 16, 16, 32],
        'width_multipliers': [0.5, 1.0],
        'expand_ratios': [1.0, 2.0],
        'squeeze_excite': ['none', 'optional', 'force'],
        'depth_range': [1, 2],
        'stride': [1, 1, 2, 2, 1, 1],
        'activation': ['hswish', 'relu', 'relu', 'hswish', 'hswish', 'hswish'],
    },
    'ShuffleNetSpace': {'num_labels': 10, 'channel_search': True},
    'AutoFormer': {
        'search_embed_dim': [8, 16],
        'search_mlp_ratio': [1.0, 2.0],
        'search_num_heads': [1, 2],
        'search_depth': [1, 2],
        'img_size': 32,
        'patch_size': 8,
        'num_labels': 10,
    },
}
"""Name of the class → settings."""


def of_the_hub(name: str, settings: dict[str, Any], **changes: Any) -> Recipe:
    """Returns a recipe with a space of the hub, for data of the shape of CIFAR-10."""
    own = {'space': {'name': f'nni.nas.hub.pytorch:{name}', 'settings': settings}, 'data.name': 'cifar10', 'data.path': 'nowhere'}
    return Recipe.load('digits', {**own, **changes})


def write_pictures(path: Path) -> Path:
    """Writes 50 colour images (16, 16) of ten classes, since spaces of the hub take three channels."""
    rng = np.random.default_rng(0)
    parts = {'train': 40, 'test': 10}
    images = {f'{part}_images': rng.integers(0, 255, (count, 16, 16, 3), dtype=np.uint8) for part, count in parts.items()}
    np.savez(path, **images, **{f'{part}_labels': np.arange(count) % 10 for part, count in parts.items()})
    return path
