from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nni_darts.training import cross_entropy
from nni_darts.training.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize('needed', [(True, True, True), (True, False, False), (False, True, False), (False, False, False)])
@pytest.mark.parametrize('rows', [1, 3, 7, 8])
def test_the_same_as_in_two_steps(rows: int, needed: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, '_ROWS', 3)
    tensors = [torch.randn(size, dtype=torch.float64, requires_grad=flag) for size, flag in zip([(rows, 4), (5, 4), (5,)], needed)]
    targets = torch.randint(5, (rows,))
    loss = linear_cross_entropy(*tensors, targets)
    expected = functional.cross_entropy(functional.linear(*tensors), targets)
    torch.testing.assert_close(loss, expected)
    inputs = [tensor for tensor in tensors if tensor.requires_grad]
    if inputs:
        for one, other in zip(torch.autograd.grad(2 * loss, inputs), torch.autograd.grad(2 * expected, inputs)):
            torch.testing.assert_close(one, other)


def test_it_can_be_differentiated_twice() -> None:
    tensors = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in [(6, 3), (4, 3), (4,)]]
    targets = torch.randint(4, (6,))
    assert torch.autograd.gradcheck(lambda *values: linear_cross_entropy(*values, targets), tensors)
    assert torch.autograd.gradgradcheck(lambda *values: linear_cross_entropy(*values, targets), tensors)
