from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nni_darts.recipes import Recipe
from nni_darts.training.classifier import ImageClassifier
from nni_darts.training.run import create_trainer, quiet_lightning


class Poisoned(nn.Module):
    """A linear model whose output, or its gradient alone, or a running statistic, is not finite from the third step on."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer('mean', torch.zeros(1))
        self.where = where
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        outputs = self.linear(images.flatten(1))
        if self.steps >= 3:
            if self.where == 'loss':
                return outputs * float('nan')
            if self.where == 'statistic':
                self.mean.fill_(float('nan'))
                return outputs
            outputs.register_hook(lambda gradient: gradient * float('inf'))
        return outputs


@pytest.mark.parametrize(
    ('where', 'what'), [('loss', 'the training loss is nan'), ('gradient', 'the gradient of the weights is not finite')]
)
def test_it_stops_at_the_step_and_says_which(where: str, what: str, tmp_path: Path) -> None:
    model = Poisoned(where)
    module = ImageClassifier(2, 5, learning_rate=0.025, min_learning_rate=0.025)
    module.set_model(model)
    data = DataLoader(TensorDataset(torch.randn(8, 1, 2, 2), torch.randint(2, (8,))), batch_size=4)
    with quiet_lightning(), pytest.raises(ArithmeticError, match=what) as error:
        create_trainer(tmp_path, Recipe.load('digits', {'accelerator': 'cpu'}), 5, gradient_clip=5.0).fit(module, data)
    assert 'in step 1 of epoch 2 (step 3 in all) at learning rate 0.025: the training has diverged; lower the' in str(error.value)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_a_network_that_is_no_longer_finite_after_an_epoch(tmp_path: Path) -> None:
    """Even the last epoch, whose loss and gradients were finite."""
    module = ImageClassifier(2, 2, learning_rate=0.025)
    module.set_model(Poisoned('statistic'))
    data = DataLoader(TensorDataset(torch.randn(8, 1, 2, 2), torch.randint(2, (8,))), batch_size=4)
    with (
        quiet_lightning(),
        pytest.raises(ArithmeticError, match=r'the network holds NaN or infinite numbers \(\S*mean\) in step 2 of epoch 2'),
    ):
        create_trainer(tmp_path, Recipe.load('digits', {'accelerator': 'cpu'}), 2).fit(module, data)
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['epoch'] == 0  # the checkpoint of the epoch before
