"""DARTS-, slowly: a plain DARTS supernet with an auxiliary skip connection outside each mixture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class WithSkip(nn.Module):
    """A mixed operation and β times a skip connection beside it."""

    def __init__(self, mixed: nn.Module, skip: nn.Module, beta: float) -> None:
        super().__init__()
        self.mixed = mixed
        self.skip = skip
        self.beta = beta
        self.output: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('mixed'), name)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mixture and the skip connection."""
        return self.mixed(x) + self.beta * self.skip(x)
