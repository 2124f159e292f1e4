"""Tables of an evaluation fit 80 columns whatever the classes are called and however many there are."""

from __future__ import annotations

import pytest
import torch
from rich.cells import cell_len

from nni_darts.report.evaluations import evaluation_lines
from nni_darts.runs.evaluation import Evaluation


def lines(classes: list[str], labels: list[int], predictions: list[int]) -> list[str]:
    probabilities = torch.nn.functional.one_hot(torch.tensor(predictions), len(classes)).float()
    found = Evaluation(tuple(classes), torch.tensor(labels), probabilities, tuple(map(str, range(len(labels)))))
    return list(evaluation_lines(found.to_dict()))


def test_a_small_table() -> None:
    assert lines(['cat', 'dog', 'ox'], [0] * 10 + [1] * 2, [0] * 9 + [1] * 3) == [
        '         accuracy  91.67 % of 12 images, 95 % interval 64.61 to 98.51',
        'balanced accuracy  95.00 %',
        '    largest class  83.33 %',
        '',
        'class  images    recall  precision       F1',
        'cat        10   90.00 %   100.00 %  94.74 %',
        'dog         2  100.00 %    66.67 %  80.00 %',
        'ox          0         –          –        –',
        '',
        'Confusion matrix: a row for each true class, a column for each predicted class.',
        '       1  2  3',
        '1 cat  9  1  ·',
        '2 dog  ·  2  ·',
        '3 ox   ·  ·  ·',
    ]


@pytest.mark.parametrize('count', [2, 10, 21, 22, 40, 300])
@pytest.mark.parametrize('name', ['c', 'longer than the terminal is wide ' * 3, '日本の猫の名前はとても長い'])
def test_no_line_is_wider_than_a_terminal(count: int, name: str) -> None:
    generator = torch.Generator().manual_seed(count)
    labels, predictions = (torch.randint(count, (2000,), generator=generator).tolist() for _ in range(2))
    found = lines([f'{name}{number}' for number in range(count)], labels, predictions)
    assert max(map(cell_len, found)) <= 80
    whole = sum(a != b for a, b in zip(labels, predictions))
    if any(line.startswith('Confusion matrix') for line in found):
        cells = [int(cell) for line in found[-count:] for cell in line.split()[-count:] if cell != '·']
        assert sum(cells) == 2000
    else:
        listed = [line for line in found if 'taken for' in line]
        assert len(listed) == 20 and sum(int(line.split()[0]) for line in listed) <= whole
        assert [int(line.split()[0]) for line in listed] == sorted((int(line.split()[0]) for line in listed), reverse=True)


def test_no_confusion_at_all() -> None:
    assert lines([f'class {number}' for number in range(50)], list(range(50)), list(range(50)))[-1] == 'No image was confused.'
