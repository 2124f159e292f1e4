"""The weight decay of RobustDARTS, and the drop-path of its supernet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder, SecondOrder
from nni_darts.strategies.relaxations import DropPath
from nni_darts.strategies.terms.l2 import WeightDecay
from tests.helpers.fitting import fit


def loaders() -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(0)
    sets = [TensorDataset(torch.randn(8, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(8) % 3) for _ in range(2)]
    return DataLoader(sets[0], batch_size=4), DataLoader(sets[1], batch_size=4)


def test_the_optimizer_of_the_weights_has_the_penalty_and_that_of_alpha_keeps_its_own() -> None:
    strategy = DifferentiableStrategy(architect=SecondOrder(), regularise={'l2': {'value': 0.0243}}, weight_decay=0.5)
    module = fit(strategy, DartsSpace(2, 3, 3, 2, 1), loaders(), epochs=1, classes=3)
    assert [group['weight_decay'] for group in module.weight_optimizer.param_groups] == [0.0243]
    (of_alpha,) = [optimizer for optimizer in module.trainer.optimizers if optimizer is not module.weight_optimizer]
    assert [group['weight_decay'] for group in of_alpha.param_groups] == [0.5]


def test_a_step_shrinks_the_weights_by_it() -> None:
    layer = nn.Linear(3, 2)
    optimizer, before = torch.optim.SGD(layer.parameters(), 0.1, weight_decay=3e-4), layer.weight.detach().clone()
    WeightDecay(0.5).begin(None, layer, optimizer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5))


def test_r_darts_is_second_order_with_both() -> None:
    strategy = create_strategy('r-darts-l2', hessian='exact', drop_path=0.2)
    assert isinstance(strategy.architect, SecondOrder) and strategy.architect.hessian == 'exact'
    assert isinstance(strategy.relaxation, DropPath) and strategy.relaxation.rate == 0.2
    assert [term.value for term in strategy.step_terms] == [81e-4]


def supernet(relaxation: DropPath, execution: str = 'fast') -> tuple[DifferentiableStrategy, nn.Module]:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation, FirstOrder(), execution=execution)
    return strategy, strategy.mutate_model(DartsSpace(4, 3, 3, 2, 1))


@pytest.mark.parametrize(('progress', 'expected'), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.4), (1.5, 0.4)])
def test_the_probability_grows_to_its_value(progress: float, expected: float) -> None:
    relaxation = DropPath(0.4)
    relaxation.begin_step(progress)
    assert relaxation.current == pytest.approx(expected)


def test_an_edge_is_dropped_for_whole_samples_and_kept_in_the_mean() -> None:
    relaxation, x = DropPath(0.25), torch.randn(4000, 2, 3, 3)
    relaxation.begin_step(1.0)
    torch.manual_seed(0)
    output: Tensor = relaxation.around(lambda value: value, (x,), {})
    ratio = output / x
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert set((3 * ratio).round().flatten().tolist()) == {0.0, 4.0}
    assert float((ratio[:, 0, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    with torch.no_grad():
        assert torch.equal(relaxation.around(lambda value: value, (x,), {}), x)


def test_without_drop_path_nothing_is_drawn_and_cells_are_fast() -> None:
    strategy, _ = supernet(DropPath(0.0))
    assert strategy.executor_choice.record is None  # there are several, and none is chosen yet
    strategy, model = supernet(DropPath(0.0), 'plain')
    strategy.relaxation.begin_step(1.0)
    before = torch.get_rng_state()
    model(torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_with_drop_path_cells_are_plain_and_lambda_is_refused() -> None:
    strategy, _ = supernet(DropPath(0.3))
    assert strategy.executor_choice.record == {'name': 'plain', 'how': 'only'}
    with pytest.raises(ValueError, match='lambda perturbs the weights of candidates'):
        create_strategy('r-darts-l2', drop_path=0.1, regularise=['lambda'])
