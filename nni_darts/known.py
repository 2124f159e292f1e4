"""Known networks to hold a found cell against: torchvision's, by name. Imports no torch.

A known network takes the place of a cell wherever one is trained: ``nni-darts retrain --genotype resnet18`` trains it with the recipe's
data, augmentation, schedule and number of epochs, so that the two differ in nothing but the architecture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from nni_darts.genotype import json_object

__all__ = ['KNOWN', 'KNOWN_PREFIX', 'KnownNetwork']

KNOWN = ('mobilenet_v3_small', 'resnet18')
"""Names of torchvision's functions."""

KNOWN_PREFIX = 'net.'
"""Begins the code of a known network."""


@dataclass(frozen=True)
class KnownNetwork:
    """A network of the literature by its name in torchvision; it has no cells.

    Attributes:
        name: one of ``KNOWN``.

    Raises:
        ValueError: for any other name.

    Example:
        ``network_from_genotype(KnownNetwork('resnet18'), num_classes=4)``
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in KNOWN:
            raise ValueError(f'unknown network {self.name!r}; known: {", ".join(KNOWN)}')

    def to_json(self) -> str:
        """Returns one JSON object, as :meth:`from_json` reads it."""
        return json.dumps({'network': self.name})

    @classmethod
    def from_json(cls, text: str) -> KnownNetwork:
        """Reads :meth:`to_json`'s text. Raises ValueError for anything else."""
        fields = json_object(text, 'a known network in JSON is an object with the key network')
        if set(fields) != {'network'}:
            raise ValueError(f'a known network in JSON has the key network and no other, not {", ".join(map(str, fields)) or "none"}')
        return cls(fields['network'])

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
