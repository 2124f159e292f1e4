"""Tests that a space which no supernet can represent is refused in one sentence before the search."""

from __future__ import annotations

import nni
import pytest
import torch
from nni.nas.nn.pytorch import MutableConv2d, MutableLinear
from torch import Tensor, nn

from nni_darts._nni import InputChoice, ModelSpace
from nni_darts.strategies import create_strategy
from nni_darts.strategies.mutables.checking import check_supernet
from tests.helpers.choices import VALUES, Cells, Halving, images


class Concatenated(ModelSpace):
    """Features of a searched width side by side."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice('width', [2, 3])
        self.left, self.right = MutableConv2d(3, width, 1), MutableConv2d(3, width, 1)
        self.head = MutableLinear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))


class TwoShapes(ModelSpace):
    """Inputs of two sizes to choose among."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, 2)
        self.inputs = InputChoice(n_candidates=2, n_chosen=1, label='inputs')

    def forward(self, x: Tensor) -> Tensor:
        return self.inputs([self.wide(x), self.narrow(x)]).mean((2, 3))


class Noisy(ModelSpace):
    """A choice beside a layer that draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = MutableConv2d(3, 4, nni.choice('size', [1, 3]), padding='same')

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.randn_like(x)).mean((2, 3))


REFUSED = {
    'concatenated widths': (Concatenated, 'Concatenated cannot be searched .*concatenated'),
    'inputs of two shapes': (TwoShapes, "InputChoice 'inputs' have different shapes"),
    'depths of two shapes': (Halving, 'outputs differ in shape between depths'),
}


@pytest.mark.parametrize('method', ['darts-1st', 'gdas', 'sdarts-rs'])
@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_mixed_is_refused_and_says_what_can_search_it(name: str, method: str) -> None:
    space, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refusal:
        check_supernet(create_strategy(method), space(), images(2, torch.float32))
    assert 'enas and random-ws' in str(refusal.value) or 'enas or random-ws' in str(refusal.value)


@pytest.mark.parametrize('method', ['enas', 'random-ws'])
@pytest.mark.parametrize('name', REFUSED)
def test_sampled_paths_search_what_cannot_be_mixed(name: str, method: str) -> None:
    check_supernet(create_strategy(method), REFUSED[name][0](), images(2, torch.float32))


@pytest.mark.parametrize('method', ['darts-1st', 'enas', 'pc-darts'])
@pytest.mark.parametrize('name', VALUES)
def test_spaces_that_can_be_searched_pass(name: str, method: str) -> None:
    if name == 'dropout, activation, pool' and method == 'pc-darts':
        pytest.skip('its layer choice holds a choice, which pc-darts refuses')
    if name in ('depth',) and method == 'pc-darts':
        pytest.skip('its layer choices hold choices, which pc-darts refuses')
    check_supernet(create_strategy(method), VALUES[name](), images(2, torch.float32))


@pytest.mark.parametrize('merge', ['all', 'loose_end'])
def test_cells_and_spaces_with_noise_pass(merge: str) -> None:
    check_supernet(create_strategy('darts-1st'), Cells(merge), images(2, torch.float32))
    check_supernet(create_strategy('darts-1st'), Noisy(), images(2, torch.float32))
