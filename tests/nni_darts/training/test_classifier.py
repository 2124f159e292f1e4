from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nni_darts.data.splits import balanced_weights
from nni_darts.files import METRICS
from nni_darts.recipes import Recipe
from nni_darts.training import ImageClassifier
from nni_darts.training.measures import measure
from nni_darts.training.run import EpochLog, OnEpoch, create_trainer, quiet_lightning


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


def fit(module: ImageClassifier, model: nn.Module, epochs: int, folder: Path, on_epoch: OnEpoch | None = None, **more: float) -> pl.Trainer:
    module.set_model(model)
    with quiet_lightning():
        trainer = create_trainer(
            folder, Recipe.load('digits', {'accelerator': 'cpu'}), epochs, log=EpochLog(folder / METRICS, on_epoch), **more
        )
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
    logged = [json.loads(line)['learning_rate'] for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert logged == pytest.approx([module.learning_rate, *seen[:-1]], rel=1e-5)  # that of the epoch, not of the next one
    return seen


def test_cosine_and_step_schedules(tmp_path: Path) -> None:
    """The published search goes from 0.025 to 0.001; ImageNet's retraining multiplies by 0.97 an epoch."""
    cosine = rates(ImageClassifier(3, 4, learning_rate=0.025, min_learning_rate=0.001), 4, tmp_path / 'a')
    middle = 0.001 + 0.024 / 2
    assert cosine[1] == pytest.approx(middle) and cosine[3] == pytest.approx(0.001)
    step = rates(ImageClassifier(3, 3, learning_rate=0.1, schedule='step', decay=0.97), 3, tmp_path / 'b')
    assert step == pytest.approx([0.097, 0.1 * 0.97**2, 0.1 * 0.97**3])


def test_answers_are_the_probabilities_of_each_test_image_in_order(tmp_path: Path) -> None:
    module = ImageClassifier(3, 1)
    trainer = fit(module, Model(), 1, tmp_path)
    with pytest.raises(ValueError, match='no test'):
        module.answers()
    for _ in range(2):  # a second test replaces the answers of the first
        with quiet_lightning():
            trainer.test(module, data(13), verbose=False)
        probabilities, labels = module.answers()
        images, expected = data(13).dataset.tensors
        torch.testing.assert_close(probabilities, module.model(images).softmax(1).detach())
        assert torch.equal(labels, expected)


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
            create_trainer(tmp_path, Recipe.load('digits', {'accelerator': 'gpu'}), 1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_class_weights_make_all_classes_weigh_the_same(smoothing: float) -> None:
    """The loss over all images is the mean over classes of their mean losses, whatever their sizes."""
    labels = torch.tensor([0] * 8 + [1] * 3 + [2])
    images = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    weights = balanced_weights(labels.tolist(), 3)
    assert weights == [12 / (3 * 8), 12 / (3 * 3), 12 / 3]
    module = ImageClassifier(3, 1, class_weights=weights, label_smoothing=smoothing)
    module.set_model(Model())
    losses = functional.cross_entropy(module(images), labels, reduction='none', label_smoothing=smoothing)
    expected = torch.stack([losses[labels == label].mean() for label in range(3)]).mean()
    torch.testing.assert_close(module.training_step((images, labels), 0)['loss'], expected)
    # Batches of any composition add up to it: their losses are divided by their sizes, not by their weights.
    parts = [(slice(0, 5), 5), (slice(5, 12), 7)]
    total = sum(module.training_step((images[part], labels[part]), 0)['loss'] * count for part, count in parts) / 12
    torch.testing.assert_close(total, expected)


def test_class_weights_concern_the_auxiliary_head_and_not_the_validation(tmp_path: Path) -> None:
    model = Model(auxiliary=True)
    weighted, plain = (ImageClassifier(3, 1, auxiliary_weight=0.4, class_weights=weights) for weights in ([0.5, 1.0, 2.0], None))
    images, labels = next(iter(data()))
    for module in (weighted, plain):
        module.set_model(model.train())
    factors = torch.tensor([0.5, 1.0, 2.0])[labels]

    def loss(logits: Tensor) -> Tensor:
        return (factors * functional.cross_entropy(logits, labels, reduction='none')).mean()

    expected = loss(model.main(images)) + 0.4 * loss(model.other(images))
    torch.testing.assert_close(weighted.training_step((images, labels), 0)['loss'], expected)
    trainers = [
        fit(ImageClassifier(3, 1, learning_rate=1e-12, class_weights=weights), copy.deepcopy(model), 1, tmp_path / str(number))
        for number, weights in enumerate(([0.5, 1.0, 2.0], None))
    ]
    one, other = (trainer.callback_metrics for trainer in trainers)
    assert float(one['valid_loss']) == pytest.approx(float(other['valid_loss']), rel=1e-5)
    assert abs(float(one['train_loss']) - float(other['train_loss'])) > 1e-3
    assert 'class_weights' not in weighted.state_dict()


@pytest.mark.parametrize('metric', ['balanced_accuracy', 'auroc', 'f1'])
def test_another_metric_stands_beside_accuracy(metric: str, tmp_path: Path) -> None:
    module = ImageClassifier(3, 1, learning_rate=1e-12, metric=metric)
    trainer = fit(module, Model(), 1, tmp_path)
    images, labels = data(7).dataset.tensors
    expected = measure(metric, 3)
    expected.update(module.model(images).detach(), labels)
    found = trainer.callback_metrics
    assert float(found[f'valid_{metric}']) == pytest.approx(float(expected.compute()))
    assert {'valid_accuracy', 'train_accuracy'} <= set(found) and (f'train_{metric}' in found) == (metric != 'auroc')
