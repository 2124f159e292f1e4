"""Metrics of a whole epoch, against scikit-learn's."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from nni_darts import parallel
from nni_darts.recipes.metric import IMAGE_METRICS
from nni_darts.training.measures import measure, measured_in_training
from tests.helpers.ranks import on_ranks


def logits(count: int = 60, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Between 0 and 1 in the first batch: as if they were probabilities.
    values = torch.cat([torch.rand(7, classes, generator=generator), torch.randn(count - 7, classes, generator=generator)])
    labels = torch.randint(classes, (count,), generator=generator)
    return values + 0.5 * torch.nn.functional.one_hot(labels, classes) * (torch.arange(count) >= 7)[:, None], labels


REFERENCES = {
    'accuracy': lambda values, labels: accuracy_score(labels, values.argmax(1)),
    'balanced_accuracy': lambda values, labels: balanced_accuracy_score(labels, values.argmax(1)),
    'auroc': lambda values, labels: roc_auc_score(labels, values.softmax(1), multi_class='ovr', average='macro'),
    'f1': lambda values, labels: f1_score(labels, values.argmax(1), average='macro'),
}


def over_an_epoch(name: str, values: Tensor, labels: Tensor, cuts: tuple[int, ...] = (7, 40)) -> float:
    metric = measure(name, values.shape[1])
    for some, right in zip(values.tensor_split(cuts), labels.tensor_split(cuts)):
        metric.update(some, right)
    return float(metric.compute())


def test_every_metric_of_a_recipe_has_a_reference() -> None:
    assert [metric.name for metric in IMAGE_METRICS] == list(REFERENCES)


@pytest.mark.parametrize('name', REFERENCES)
def test_a_whole_epoch_in_uneven_batches(name: str) -> None:
    values, labels = logits()
    assert over_an_epoch(name, values, labels) == pytest.approx(REFERENCES[name](values, labels), abs=1e-6)
    of_batches = [REFERENCES[name](values[part], labels[part]) for part in (slice(0, 30), slice(30, 60))]
    if name not in ('accuracy',):
        assert abs(sum(of_batches) / 2 - REFERENCES[name](values, labels)) > 1e-3  # a mean over batches is another number


def test_two_classes_have_the_area_of_one() -> None:
    values, labels = logits(classes=2)
    assert over_an_epoch('auroc', values, labels) == pytest.approx(roc_auc_score(labels, values.softmax(1)[:, 1]), abs=1e-6)


def test_classes_without_images_do_not_count() -> None:
    """A small validation part may lack one; torchmetrics alone would count it as 0."""
    values, labels = logits()
    labels = labels % 3
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert over_an_epoch('balanced_accuracy', values, labels) == pytest.approx(REFERENCES['balanced_accuracy'](values, labels))
        areas = [roc_auc_score(labels == label, values.softmax(1)[:, label]) for label in range(3)]
        assert over_an_epoch('auroc', values, labels) == pytest.approx(sum(areas) / 3, abs=1e-6)
        assert over_an_epoch('auroc', values, labels * 0) == 0.5


def test_states_that_a_checkpoint_can_hold() -> None:
    """A run that resumes in the middle of an epoch ends with the same number."""
    values, labels = logits()
    for name in filter(measured_in_training, REFERENCES):
        metric, resumed = measure(name, 4), measure(name, 4)
        metric.persistent(True)
        resumed.persistent(True)
        metric.update(values[:40], labels[:40])
        resumed.load_state_dict(copy.deepcopy(metric.state_dict()))
        for each in (metric, resumed):
            each.update(values[40:], labels[40:])
        assert float(metric.compute()) == float(resumed.compute())


def of_this_rank() -> dict[str, float]:
    """Like the last batch of an epoch, batches need not be even."""
    values, labels = logits()
    found = {}
    for name in REFERENCES:
        metric = measure(name, 4)
        for some, right in zip(values.tensor_split((7, 40)), labels.tensor_split((7, 40))):
            metric.update(parallel.part(some), parallel.part(right))
        found[name] = float(metric.compute())
    return found


def test_several_processes_have_the_numbers_of_all_images(tmp_path: Path) -> None:
    values, labels = logits()
    for found in on_ranks(2, tmp_path / 'ranks', of_this_rank):
        assert found == pytest.approx({name: reference(values, labels) for name, reference in REFERENCES.items()}, abs=1e-6)
