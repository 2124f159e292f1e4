"""Users' own model spaces, for tests of the strategies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nni_darts._nni import InputChoice, LayerChoice, ModelSpace


class TwoLabels(ModelSpace):
    """A space without cells: a choice of one of three layers, and a choice of two of three features to add."""

    def __init__(self, reduction: str = 'sum', n_chosen: int | None = 2) -> None:
        super().__init__()
        self.first = LayerChoice([nn.Linear(6, 8), nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(6, 8, bias=False)], label='layer')
        self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.inputs = InputChoice(n_candidates=3, n_chosen=n_chosen, reduction=reduction, label='features')
        self.last = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.last(self.inputs([branch(x) for branch in self.branches]))


class Nested(ModelSpace):
    """A space with a choice inside a candidate of another choice, in which a label occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({'a': nn.Linear(4, 4), 'b': nn.Identity()}, label='inner')
        self.outer = LayerChoice({'plain': nn.Linear(4, 4), 'nested': nn.Sequential(inner, nn.Tanh())}, label='outer')
        self.again = LayerChoice({'plain': nn.Linear(4, 2), 'nested': nn.Linear(4, 2)}, label='outer')

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.outer(x))
