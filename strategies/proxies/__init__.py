"""Zero-cost proxies: scores of an untrained network that rank architectures without training them. Imports torch.

Every proxy is a function (network, batch) → score, computed on a copy of the network by :func:`score`. A larger score stands for a
better network. The names are in :data:`nni_darts.strategies.trained.prior.PROXY_NAMES`, which needs no torch.
"""

from collections.abc import Mapping
from types import MappingProxyType

from nni_darts.strategies.proxies.base import Batch, Proxy, score_with
from nni_darts.strategies.proxies.distances import jacob_cov, naswot
from nni_darts.strategies.proxies.saliency import grad_norm, snip, synflow
from nni_darts.strategies.proxies.size import multiply_adds, parameters
from nni_darts.strategies.proxies.zen import zen

__all__ = ['PROXIES', 'Batch', 'Proxy', 'score']

PROXIES: Mapping[str, Proxy] = MappingProxyType(
    {proxy.__name__: proxy for proxy in (synflow, jacob_cov, naswot, snip, grad_norm, parameters, multiply_adds, zen)}
)
"""Name → proxy."""


def score(name: str, network: object, batch: Batch, seed: int = 0) -> float:
    """Returns the score of an untrained network by a proxy. The network and torch's random numbers stay as they are.

    Args:
        name: a key of :data:`PROXIES`.
        network: a module that maps images (B, C, H, W) to logits (B, classes), in any mode; its weights are the initial ones.
        batch: images and labels.
        seed: seed of the random numbers that a proxy or the network draws.

    Returns:
        The score; −∞ if it is not defined, for example because the output does not depend on the images. Such a network ranks last.

    Raises:
        ValueError: for an unknown name, or a network without the layers that the proxy reads.

    Example:
        >>> score('parameters', torch.nn.Linear(3, 2), Batch(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)))
        8.0
    """
    if name not in PROXIES:
        raise ValueError(f'unknown proxy {name!r}; known: {", ".join(PROXIES)}')
    return score_with(PROXIES[name], network, batch, seed)  # type: ignore[arg-type]
