"""Known networks of torchvision, by name, as baselines for cells that a search finds. Imports no torch.

A known network takes the place of a cell wherever one is trained: ``nni-darts retrain --genotype resnet18`` trains it with the recipe's
data, augmentation, schedule and number of epochs, so that only the architecture differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_darts.genotypes.base import AnyGenotype

__all__ = ['KNOWN', 'KNOWN_PREFIX', 'KnownNetwork']

KNOWN = ('mobilenet_v3_small', 'resnet18')
"""Names of torchvision's functions that build the known networks."""

KNOWN_PREFIX = 'net.'
"""Prefix of the code of a known network."""


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
        """Reads the data of :meth:`to_dict`. Raises ValueError for any other data."""
        if set(value) != {'network'}:
            raise ValueError(f'a known network in JSON has the key network and no other, not {", ".join(map(str, value)) or "none"}')
        return cls(value['network'])

    def to_text(self) -> str:
        """Returns the name of the network."""
        return self.name

    def code(self) -> str:
        """Returns the short code that results and metrics contain, such as ``net.resnet18``."""
        return KNOWN_PREFIX + self.name

    @classmethod
    def from_code(cls, code: str) -> KnownNetwork:
        """Reads the text of :meth:`code`. Raises ValueError for any other text."""
        if not code.startswith(KNOWN_PREFIX):
            raise ValueError(f'{code[:40]!r} is not the code of a known network: {KNOWN_PREFIX} and its name')
        return cls(code.removeprefix(KNOWN_PREFIX))
