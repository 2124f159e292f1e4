from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nni_darts.training import ImageClassifier
from nni_darts.training.run import create_trainer, quiet_lightning


class Model(nn.Module):
    """Linear; returns a pair while training, and remembers the drop-path probabilities it is told."""

    def __init__(self, auxiliary: bool = False) -> None:
        super().__init__()
        self.main, self.other = nn.Linear(4, 3), nn.Linear(4, 3)
        self.auxiliary = auxiliary
        self.told: list[float] = []

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.main(x), self.other(x)) if self.auxiliary and self.training else self.main(x)

    def set_drop_path(self, probability: float) -> None:
        self.told.append(probability)


def data(count: int = 12) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(count, 4, generator=generator), torch.arange(count) % 3), batch_size=5)


def fit(module: ImageClassifier, model: nn.Module, epochs: int, folder: Path, **settings: object) -> pl.Trainer:
    module.set_model(model)
    with quiet_lightning():
        trainer = create_trainer(folder, epochs=epochs, accelerator='cpu', precision='32-true', **settings)
        trainer.fit(module, data(), data(7))
    return trainer


def test_the_loss_is_what_the_paper_says() -> None:
    """Cross-entropy with label smoothing, plus the weighted loss of the auxiliary head; validation without either."""
    model = Model(auxiliary=True)
    module = ImageClassifier(3, 1, auxiliary_weight=0.4, label_smoothing=0.1)
    module.set_model(model)
    images, labels = next(iter(data()))
    soft = functional.one_hot(labels, 3) * 0.9 + 0.1 / 3

    def smooth(logits: Tensor) -> Tensor:
        return -(soft * logits.log_softmax(1)).sum(1).mean()

    expected = smooth(model.main(images)) + 0.4 * smooth(model.other(images))
    torch.testing.assert_close(module.train().training_step((images, labels), 0)['loss'], expected)


def test_metrics_are_those_of_the_whole_epoch(tmp_path: Path) -> None:
    """Uneven batches count by their size."""
    module = ImageClassifier(3, 1, learning_rate=1e-12)
    trainer = fit(module, Model(), 1, tmp_path)
    for part, loader in (('train', data()), ('valid', data(7))):
        images, labels = loader.dataset.tensors
        logits = module.model(images)
        metrics = trainer.callback_metrics
        assert float(metrics[f'{part}_loss']) == pytest.approx(float(functional.cross_entropy(logits, labels).detach()), rel=1e-5)
        assert float(metrics[f'{part}_accuracy']) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def rates(module: ImageClassifier, epochs: int, folder: Path) -> list[float]:
    seen: list[float] = []

    def note(record: dict) -> None:
        seen.append(module.trainer.optimizers[0].param_groups[0]['lr'])

    fit(module, Model(), epochs, folder, on_epoch=note)
    return seen


def test_cosine_and_step_schedules(tmp_path: Path) -> None:
    """The published search goes from 0.025 to 0.001; ImageNet's retraining multiplies by 0.97 an epoch."""
    cosine = rates(ImageClassifier(3, 4, learning_rate=0.025, min_learning_rate=0.001), 4, tmp_path / 'a')
    middle = 0.001 + 0.024 / 2
    assert cosine[1] == pytest.approx(middle) and cosine[3] == pytest.approx(0.001)
    step = rates(ImageClassifier(3, 3, learning_rate=0.1, schedule='step', decay=0.97), 3, tmp_path / 'b')
    assert step == pytest.approx([0.097, 0.1 * 0.97**2, 0.1 * 0.97**3])


def test_drop_path_grows_linearly_from_zero(tmp_path: Path) -> None:
    model = Model()
    fit(ImageClassifier(3, 4, drop_path=0.2), model, 4, tmp_path)
    assert list(dict.fromkeys(model.told)) == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    model = Model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fit(ImageClassifier(3, 1, learning_rate=1.0, momentum=0.0, weight_decay=0.0), model, 1, tmp_path, gradient_clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before)]).norm()
    assert 0 < float(moved) <= 3 * 1e-3 * 1.001  # three batches


def test_an_unknown_accelerator_is_an_input_error(tmp_path: Path) -> None:
    from nni_darts.errors import InputError

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match='gpu'):
            create_trainer(tmp_path, epochs=1, accelerator='gpu', precision='32-true')
