"""Measures of an evaluation against scikit-learn and against counting."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from sklearn import metrics

from nni_darts.runs.evaluation import Evaluation

CLASSES = ('ant', 'bee', 'cow', 'dog')


def evaluation(labels: list[int], probabilities: list[list[float]] | torch.Tensor) -> Evaluation:
    probabilities = torch.as_tensor(probabilities)
    return Evaluation(
        CLASSES[: probabilities.shape[1]], torch.tensor(labels), probabilities, tuple(f'{index}.png' for index in range(len(labels)))
    )


def drawn(seed: int, count: int, present: list[int]) -> Evaluation:
    generator = torch.Generator().manual_seed(seed)
    labels = [present[int(index)] for index in torch.randint(len(present), (count,), generator=generator)]
    return evaluation(labels, (2 * torch.randn(count, 4, generator=generator)).softmax(1))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('count', [1, 2, 7, 200])
@pytest.mark.parametrize('present', [[0, 1, 2, 3], [1, 3], [2]], ids=str)
def test_measures_are_those_of_sklearn_and_of_counting(seed: int, count: int, present: list[int]) -> None:
    found = drawn(seed, count, present)
    labels, predictions = found.labels.tolist(), found.probabilities.argmax(1).tolist()
    assert found.predictions.tolist() == predictions
    counted = [[sum(pair == (row, column) for pair in zip(labels, predictions)) for column in range(4)] for row in range(4)]
    assert found.confusion.tolist() == counted == metrics.confusion_matrix(labels, predictions, labels=range(4)).tolist()
    assert found.confusion.dtype == torch.int64
    assert found.accuracy == metrics.accuracy_score(labels, predictions)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of predicted classes that do not occur
        assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
    assert found.largest_class == max(labels.count(label) for label in labels) / count
    for index, entry in enumerate(found.per_class):
        hits, of_class, predicted = counted[index][index], labels.count(index), predictions.count(index)
        assert (entry['class'], entry['count']) == (CLASSES[index], of_class)
        assert entry['recall'] == (pytest.approx(hits / of_class) if of_class else None)
        assert entry['precision'] == (pytest.approx(hits / predicted) if predicted else None)
        assert entry['f1'] == (pytest.approx(2 * hits / (of_class + predicted)) if of_class + predicted else None)


@pytest.mark.parametrize(('right', 'count'), [(0, 1), (1, 1), (0, 10), (10, 10), (7, 10), (389, 400)])
def test_interval_is_wilsons(right: int, count: int) -> None:
    found = evaluation([0] * right + [1] * (count - right), [[0.7, 0.3]] * count)
    z, p = 1.959963984540054, right / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5
    assert found.accuracy == p
    assert found.accuracy_interval == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


def test_ties_go_to_the_first_class_and_the_first_image() -> None:
    found = evaluation([1, 0, 2, 1, 0], [[0.5, 0.5, 0], [0.2, 0.4, 0.4], [0.5, 0.25, 0.25], [0.9, 0.1, 0], [1, 0, 0]])
    assert found.predictions.tolist() == [0, 1, 0, 0, 0]
    assert found.worst(9) == [3, 0, 2, 1] and found.worst(2) == [3, 0] and found.worst(0) == []


@pytest.mark.parametrize('seed', range(5))
def test_worst_are_the_wrong_answers_by_confidence(seed: int) -> None:
    found = drawn(seed, 100, [0, 1, 2, 3])
    wrong = [index for index in range(100) if found.labels[index] != found.predictions[index]]
    assert found.worst(1000) == sorted(wrong, key=lambda index: (-float(found.probabilities[index].max()), index))


def test_to_dict_is_plain_and_names_the_worst_mistakes_only() -> None:
    found = evaluation([1, 0, 0, 2], [[0.75, 0.25, 0], [0.5, 0.25, 0.25], [0.125, 0.875, 0], [0, 0, 1]])
    plain = found.to_dict(worst=1)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain['mistakes'] == [{'name': '2.png', 'true': 'ant', 'predicted': 'bee', 'probability': 0.875, 'probability_of_true': 0.125}]
    assert plain['count'] == 4 and plain['accuracy'] == 0.5 and plain['confusion'] == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert plain['classes'] == ['ant', 'bee', 'cow'] and plain['balanced_accuracy'] == 0.5 and plain['largest_class'] == 0.5
    assert '0.png' not in json.dumps(plain) and len(found.to_dict()['mistakes']) == 2


def test_one_class_is_enough() -> None:
    found = evaluation([0, 0], [[1.0], [1.0]])
    assert found.confusion.tolist() == [[2]] and found.accuracy == found.balanced_accuracy == 1 and found.worst(5) == []


@pytest.mark.parametrize(
    ('labels', 'probabilities', 'names', 'message'),
    [
        (torch.tensor([], dtype=torch.int64), torch.zeros(0, 4), (), 'at least one image'),
        (torch.tensor([0.0]), torch.zeros(1, 4), ('a',), 'labels must be int64'),
        (torch.tensor([0, 1]), torch.zeros(1, 4), ('a',), 'labels must be int64'),
        (torch.tensor([0]), torch.zeros(1, 3), ('a',), 'probabilities must be float32'),
        (torch.tensor([0]), torch.zeros(1, 4).double(), ('a',), 'probabilities must be float32'),
        (torch.tensor([4]), torch.zeros(1, 4), ('a',), 'labels must be 0 to 3; they are 4 to 4'),
        (torch.tensor([-1]), torch.zeros(1, 4), ('a',), 'labels must be 0 to 3; they are -1 to -1'),
    ],
)
def test_what_does_not_fit_is_refused(labels: torch.Tensor, probabilities: torch.Tensor, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(CLASSES, labels, probabilities, names)
