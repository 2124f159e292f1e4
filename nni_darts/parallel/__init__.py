"""Several processes that share one run."""

from __future__ import annotations

from nni_darts.parallel.collectives import (
    agreed,
    average,
    average_buffers,
    average_gradients,
    broadcast,
    digest,
    gathered,
    is_first,
    must_agree,
    part,
    rank,
    share_random_state,
    shares,
    too_small,
    total,
    uses_gpu,
    whole,
    world_size,
)

__all__ = [
    'agreed',
    'average',
    'average_buffers',
    'average_gradients',
    'broadcast',
    'digest',
    'gathered',
    'is_first',
    'must_agree',
    'part',
    'rank',
    'share_random_state',
    'shares',
    'too_small',
    'total',
    'uses_gpu',
    'whole',
    'world_size',
]
