"""Known networks to hold a found cell against: torchvision's, by name. Imports no torch.

A known network takes the place of a cell wherever one is trained: ``nni-darts retrain --genotype resnet18`` trains it with the recipe's
data, augmentation, schedule and number of epochs, so that the two differ in nothing but the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_darts.genotypes.base import AnyGenotype

__all__ = ['KNOWN', 'KNOWN_PREFIX', 'KnownNetwork']

KNOWN = ('mobilenet_v3_small', 'resnet18')
"""Names of torchvision's functions."""

KNOWN_PREFIX = 'net.'
"""Begins the code of a known network."""


@dataclass(frozen=True)
class KnownNetwork(AnyGenotype):
    """A network of the literature by its name in torchvision; it has no cells.

    Attributes:
        name: one of ``KNOWN``.

    Raises:
        ValueError: for any other name.

    Example:
        ``network_from_genotype(KnownNetwork('resnet18'), num_classes=4)``
    """

    kind = 'known network'
    network = 'nni_darts.search_spaces.known:known_network'
    form = 'a known network in JSON is an object with the key network'

    name: str

    def __post_init__(self) -> None:
        if self.name not in KNOWN:
            raise ValueError(f'unknown network {self.name!r}; known: {", ".join(KNOWN)}')

    def to_dict(self) -> dict[str, Any]:
        """Returns the name under the key ``network``."""
        return {'network': self.name}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> KnownNetwork:
        """Reads :meth:`to_dict`'s data. Raises ValueError for anything else."""
        if set(value) != {'network'}:
            raise ValueError(f'a known network in JSON has the key network and no other, not {", ".join(map(str, value)) or "none"}')
        return cls(value['network'])

    def to_text(self) -> str:
        """Returns the name."""
        return self.name

    def code(self) -> str:
        """Returns the short code, as results and metrics have it: ``net.resnet18``."""
        return KNOWN_PREFIX + self.name

    @classmethod
    def from_code(cls, code: str) -> KnownNetwork:
        """Reads :meth:`code`. Raises ValueError for text that is no such code."""
        if not code.startswith(KNOWN_PREFIX):
            raise ValueError(f'{code[:40]!r} is not the code of a known network: {KNOWN_PREFIX} and its name')
        return cls(code.removeprefix(KNOWN_PREFIX))
