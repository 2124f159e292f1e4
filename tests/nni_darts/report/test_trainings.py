"""The data of a training's page (test_scripts.py tests the page in a browser, test_training_page.py that a training writes it)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from nni_darts import Genotype, RnnGenotype
from nni_darts.report.trainings import AboutTraining, confusions, training_data, write_training

CELL = Genotype.random(random.Random(1))
CLASSES = ('cat', 'dog', '<b>')
EVALUATION = {
    'count': 10,
    'classes': list(CLASSES),
    'accuracy': 0.6,
    'accuracy_interval': [0.31, 0.83],
    'balanced_accuracy': 0.55,
    'largest_class': 0.5,
    'per_class': [{'class': name, 'count': count, 'recall': 0.5, 'precision': None, 'f1': 0.25} for name, count in zip(CLASSES, (5, 3, 2))],
    'confusion': [[3, 2, 0], [1, 2, 0], [1, 0, 1]],
    'mistakes': [
        {
            'name': 'a/b.png',
            'true': 'dog',
            'predicted': 'cat',
            'probability': 0.9,
            'probability_of_true': 0.1,
            'image': 'data:image/png;base64,AA',
        }
    ],
}


def data_of(**changes: Any) -> dict[str, Any]:
    records = [
        {
            'epoch': epoch,
            'of': 3,
            'train_accuracy': 0.5,
            'valid_accuracy': 0.2 * epoch,
            'train_loss': 1 / epoch,
            'learning_rate': 0.1 / epoch,
        }
        for epoch in (2, 1, 2, 3)
    ]
    described = {'stage': 'retrain', 'seed': 1, 'recipe': 'digits', 'metric': 'accuracy', 'genotype': CELL}
    about = AboutTraining(**{**described, **{name: changes.pop(name) for name in (*described, 'strategy') if name in changes}})
    return training_data(changes.pop('records', records), about, **{'over': True, **changes})


def page_of(folder: Path, **changes: Any) -> str:
    write_training(folder, 'training', data_of(**changes))
    return (folder / 'training.html').read_text()


def test_epochs_come_in_order_and_once() -> None:
    """A resumed trial reports an epoch again."""
    data = data_of(records=[{'epoch': 2, 'x': 1}, {'epoch': 1, 'x': 1, 'default': 0.5, 'text': 'x'}, {'epoch': 2, 'x': 3}, {'no': 'epoch'}])
    assert data['epochs'] == [{'epoch': 1, 'x': 1}, {'epoch': 2, 'x': 3}]
    assert json.loads(json.dumps(data)) == data


def test_the_most_frequent_mistakes_come_first() -> None:
    assert [(entry['true'], entry['predicted'], entry['images'], entry['share']) for entry in confusions(EVALUATION, 3)] == [
        ('cat', 'dog', 2, 0.4),
        ('<b>', 'cat', 1, 0.5),
        ('dog', 'cat', 1, 1 / 3),
    ]
    assert len(confusions(EVALUATION, 1)) == 1
    assert confusions({'classes': ['a', 'b'], 'confusion': [[3, 0], [0, 0]]}, 5) == []


def test_a_finished_page_shows_everything(tmp_path: Path) -> None:
    measured = {'test_accuracy': 0.6, 'valid_accuracy': 0.7, 'kept_epoch': 2, 'epochs': 3, 'ended': 'planned'}
    result = {**measured, 'parameters': 1234567, 'multiply_adds': 9876, 'seconds': 3725.0, 'passes': 12.5}
    page = page_of(tmp_path, result=result, evaluation=EVALUATION, commands=['nni-darts predict out photo.jpg'])
    for text in (
        '60.00 %',
        '31.00 to 83.00 %',
        '70.00 %',
        'of epoch 2 of 3',
        '1,234,567',
        '9,876',
        '62 min',
        '12.5 passes',
        'nni-darts predict out photo.jpg',
    ):
        assert text in page, text
    for text in (
        '>accuracy, %<',
        '>loss<',
        '>learning rate<',
        CELL.code(),
        'class="cell"',
        'data:image/png;base64,AA',
        'dog, taken for cat',
    ):
        assert text in page, text
    assert '&lt;b&gt;' in page and '<b>' not in page  # names of folders are text
    assert 'Finished' in page and '<progress' not in page
    assert page.count('class="wrong"') == 3 and page.count('class="right"') == 3


def test_before_the_test_there_is_no_evaluation(tmp_path: Path) -> None:
    page = page_of(tmp_path, over=False)
    assert 'Running' in page and '<progress value="3" max="3"' in page and 'Confusion' not in page and 'Using it' not in page
    assert 'no epoch is finished yet' in page_of(tmp_path, over=False, records=[])


def test_many_classes_are_listed_instead_of_drawn(tmp_path: Path) -> None:
    count = 101
    matrix = [[90 if row == column else 10 * (column == (row + 1) % count) for column in range(count)] for row in range(count)]
    names = [f'class {number}' for number in range(count)]
    entries = [{'class': name, 'count': 100, 'recall': 0.9, 'precision': 0.9, 'f1': 0.9} for name in names]
    page = page_of(tmp_path, evaluation={**EVALUATION, 'classes': names, 'confusion': matrix, 'per_class': entries, 'mistakes': []})
    assert 'class="matrix"' not in page and page.count('<td>class ') >= 101 and len(page) < 200_000


def test_text_has_perplexity_and_no_images(tmp_path: Path) -> None:
    records = [{'epoch': 1, 'of': 1, 'train_perplexity': 90.5, 'valid_perplexity': 100.25, 'train_loss': 4.5, 'valid_loss': 4.6}]
    cell = RnnGenotype.random(random.Random(1))
    page = page_of(tmp_path, records=records, metric='perplexity', genotype=cell, result={'test_perplexity': 99.5})
    assert '99.50' in page and '>perplexity<' in page and cell.code() in page and '%<' not in page and 'Confusion' not in page


def test_nothing_is_written_twice_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(tmp_path, evaluation=EVALUATION)
    before = (tmp_path / 'training.html').stat().st_mtime_ns
    write_training(tmp_path, 'training', data_of(evaluation=EVALUATION))
    assert (tmp_path / 'training.html').stat().st_mtime_ns == before
    assert '://' not in page.replace('http://www.w3.org/2000/svg', '')
