"""What is shared must give the scores of full passes, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts._nni import LayerChoice, ModelSpace
from nni_darts.search_spaces import DartsSpace, NasBench201Space
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architecture import InputDecision, Mask
from nni_darts.strategies.relaxations import PartialChannels, Softmax
from nni_darts.strategies.selections.sharing import SharedResults
from tests.helpers.spaces import Nested, TwoLabels

SMALL = ['none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3']


class Busy(ModelSpace):
    """Things that could go wrong: dropout, writing in place, one module used twice, arguments by name and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.5)
        self.early = LayerChoice({'a': nn.Linear(6, 6), 'b': nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6))}, label='early')
        self.scale = _Scale()
        self.late = LayerChoice({'a': nn.Linear(6, 6), 'b': nn.Tanh(), 'c': nn.Dropout(0.3)}, label='late')
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.early(self.dropout(x).clone())
        y += 1
        y = self.scale([y, x], factor=x)
        return self.last(self.late(self.first(y))) + self.last(x)


class _Scale(nn.Module):
    def forward(self, parts: list[Tensor], *, factor: Tensor) -> Tensor:
        return parts[0] * factor + parts[1]


class Flat(TwoLabels):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 4)


SPACES = {
    'darts': lambda: DartsSpace(4, 4, 4, 1, 3, operations=SMALL),
    'darts of two nodes': lambda: DartsSpace(4, 4, 4, 1, 2, operations=SMALL),
    'noise': lambda: DartsSpace(2, 3, 4, 1, 2, operations=['noise', 'sep_conv_3x3']),
    'nasbench201': lambda: NasBench201Space(2, 3, 4, 1),
    'busy': Busy,
    'flat': Flat,
    'nested': Nested,
}
SHAPES = {'busy': (8, 6), 'flat': (8, 6), 'nested': (8, 4)}


def supernet(name: str, relaxation: Any = None) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation or Softmax())
    model = strategy.mutate_model(SPACES[name]()).double()
    strategy.architecture.double()
    return strategy.architecture, model


def decide_some(architecture: Any) -> None:
    operations = list(architecture.operations())
    architecture.state.fixed = {label: len(architecture.decisions[label].names) - 1 for label in operations[1::3]}


def masks(architecture: Any) -> dict[str, list[Mask]]:
    found = {}
    for label, decision in architecture.decisions.items():
        count = decision.candidates if isinstance(decision, InputDecision) else len(decision.names)
        if label not in architecture.state.fixed:
            found[label] = [Mask(label, index) for index in range(count)]
    return found


@torch.no_grad()
def outputs(architecture: Any, model: nn.Module, batches: list[Tensor], masks: list[Mask], shared: Any = None) -> list[Tensor]:
    results = []
    for batch in batches:
        if shared is not None:
            shared.begin(batch)
        for mask in masks:
            torch.manual_seed(5)
            if shared is not None:
                shared.begin_pass()
            with architecture.viewed(mask=mask):
                results.append(model(batch))
    return results


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('name', [name for name in SPACES if name != 'darts'])
def test_outputs_are_those_of_full_passes(name: str, train: bool) -> None:
    architecture, model = supernet(name)
    model.train(train)
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(*SHAPES.get(name, (8, 1, 8, 8)), dtype=torch.float64, generator=generator) for _ in range(2)]
    for half_decided in (False, True):
        if half_decided:
            decide_some(architecture)
        for label, these in masks(architecture).items():
            expected = outputs(architecture, model, batches, these)
            with SharedResults(model, architecture, label) as shared:
                got = outputs(architecture, model, batches, these, shared)
            assert all(map(torch.equal, got, expected)), label
    assert not any('forward' in vars(module) for module in model.modules())


def test_partial_channels() -> None:
    architecture, model = supernet('darts of two nodes', PartialChannels(2))
    batches = [torch.randn(8, 1, 8, 8, dtype=torch.float64)]
    for label, these in masks(architecture).items():
        expected = outputs(architecture, model, batches, these)
        with SharedResults(model, architecture, label) as shared:
            assert all(map(torch.equal, outputs(architecture, model, batches, these, shared), expected))


def test_only_what_changes_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, model = supernet('darts')
    paths = {module: path for path, module in model.named_modules()}
    calls: Counter[str] = Counter()

    def counting(original: Callable[[nn.Conv2d, Tensor], Tensor]) -> Callable[[nn.Conv2d, Tensor], Tensor]:
        def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
            calls[paths[self]] += 1
            return original(self, x)

        return forward

    for kind in {type(module) for module in model.modules() if isinstance(module, nn.Conv2d)}:
        monkeypatch.setattr(kind, 'forward', counting(kind.forward))
    label = 'reduce_op_3_2'  # cells 1 and 2 of 4 are reduction cells; edges are numbered per node
    with SharedResults(model, architecture, label) as shared:
        outputs(architecture, model, [torch.randn(8, 1, 8, 8, dtype=torch.float64)], masks(architecture)[label], shared)
    four = {path for path, count in calls.items() if count == len(SMALL)}
    once = {path for path, count in calls.items() if count == 1}
    three = {path for path, count in calls.items() if count == len(SMALL) - 1}  # each of its candidates is left out once
    assert once | four | three == set(calls)

    def below(*prefixes: str) -> set[str]:
        return {path for path in calls if path.startswith(prefixes)}

    # Up to the first changed edge, and that edge's candidates; in the changed cell what does not read the changed node 3 …
    assert below('stem', 'cells.0', 'cells.1.preprocess', 'cells.1.nodes.0', 'cells.1.nodes.1', 'cells.1.nodes.2.edges.2') <= once
    # … and in the next cell what reads the cell before.
    assert below('cells.2.preprocess_0', 'cells.2.nodes.0.edges.0') <= once
    assert below('cells.1.nodes.2.edges.3', 'cells.2.preprocess_1', 'cells.2.nodes.0.edges.1', 'cells.3') <= four
    assert three == below('cells.2.nodes.1.edges.2')
    assert below('cells.1.nodes.2.edges.3') and below('cells.2.nodes.0.edges.0')


def test_edges_share_what_has_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, model = supernet('darts')
    calls = Counter[str]()
    original = nn.MaxPool2d.forward

    def counting(self: nn.MaxPool2d, x: Tensor) -> Tensor:
        calls['pool'] += 1
        return original(self, x)

    monkeypatch.setattr(nn.MaxPool2d, 'forward', counting)
    with SharedResults(model, architecture, 'normal_op_2_0') as shared:
        outputs(architecture, model, [torch.randn(8, 1, 8, 8, dtype=torch.float64)], [Mask('normal_op_2_0', 0)], shared)
    assert calls['pool'] == 4 * 4  # four cells, in each of which four states are read by nine edges
