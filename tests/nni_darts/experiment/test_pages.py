"""Pages from what trials report, where there is no NNI (with it: test_live.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.manager import TrialRecord
from nni_darts.experiment.pages import Pages, page_name
from nni_darts.experiment.protocol import Job, Protocol
from nni_darts.recipes import Recipe
from nni_darts.report.records import pack

PROTOCOL = Protocol(Recipe.load('digits', {'search.random_samples': 2}), ('random',), (1,))


class Reports:
    """The reports of trials; counts how often it is asked for them."""

    def __init__(self) -> None:
        self.of: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self.gone = False

    def reported(self, trial_id: str) -> tuple[list[Any], bool]:
        self.asked.append(trial_id)
        if self.gone:
            raise requests.ConnectionError('the manager is gone')
        return self.of.get(trial_id, []), False


class Site:
    """An experiment's folder with its pages, and the trials so far."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / 'log'
        self.log.mkdir()
        self.trials = folder / 'environments' / 'local-env' / 'trials'
        self.reports = Reports()
        self.pages = Pages(self.log, self.reports)  # type: ignore[arg-type]
        self.results: dict[str, dict[str, Any]] = {}
        self.records: list[TrialRecord] = []

    def jobs(self) -> list[Job]:
        return PROTOCOL.jobs(self.results, ())

    def start(self, job: Job, trial_id: str) -> None:
        self.records.append(TrialRecord(trial_id, 'RUNNING', {'key': job.key}, None))

    def report(self, trial_id: str, *epochs: int) -> None:
        records = [
            {'epoch': epoch, 'of': 4, 'train_accuracy': 0.2 * epoch, 'valid_accuracy': 0.1 * epoch, 'seconds': 2.0} for epoch in epochs
        ]
        self.reports.of[trial_id] = [{'default': record['valid_accuracy'], **pack(record)} for record in records]

    def end(self, job: Job, value: float) -> None:
        test = {'test_accuracy': value} if job.stage == 'retrain' else {}
        self.results[job.key] = {
            'default': value,
            'arch': job.arch,
            'key': job.key,
            'seconds': 8.0,
            'parameters': 5,
            'multiply_adds': 6,
            **test,
        }

    def update(self) -> dict[str, Any]:
        busy = frozenset(record.key for record in self.records) - self.results.keys()
        self.pages.update(PROTOCOL, self.jobs(), Standing(self.results, busy), self.records, {}, over=False)
        return json.loads((self.log / 'summary.json').read_text())

    def page(self, job: Job) -> dict[str, Any]:
        return json.loads((self.log / f'{page_name(job)}.json').read_text())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_training_on_another_machine_has_a_page_of_what_it_reports(site: Site) -> None:
    first, second = site.jobs()
    site.start(first, 'aaa')
    summary = site.update()
    assert [(row['key'], row['epoch']) for row in summary['running']] == [(first.key, 0)]
    site.report('aaa', 1, 2, 2)
    summary = site.update()
    assert [(row['key'], row['epoch'], row['of'], row['seconds_left']) for row in summary['running']] == [(first.key, 2, 4, 4)]
    assert summary['curves'] == [
        {'key': first.key, 'stage': 'select', 'strategy': 'random', 'seed': 1, 'cell': 1, 'part': 'valid', 'points': [[1, 0.1], [2, 0.2]]}
    ]
    assert [job['page'] for job in summary['jobs']] == ['select-random-1-1.html', '']
    page = site.page(first)
    assert (page['over'], page['arch'], page['strategy'], page['cell']) == (False, first.arch, 'random', 1)
    site.report('aaa', 1, 2, 3, 4)
    site.end(first, 0.4)
    site.update()
    page = site.page(first)
    assert page['over'] and page['result']['valid_accuracy'] == 0.4 and page['result']['parameters'] == 5 and page['evaluation'] is None
    assert 'href="summary.html"' in (site.log / 'select-random-1-1.html').read_text()
    asked = len(site.reports.asked)
    assert site.update()['curves'][0]['points'] == [[1, 0.1], [2, 0.2], [3, pytest.approx(0.3)], [4, 0.4]]
    assert len(site.reports.asked) == asked  # a finished page is not looked at again


def test_where_nothing_is_held_out_the_result_is_the_tests(site: Site) -> None:
    for number, job in enumerate(site.jobs()):
        site.start(job, f'a{number}')
        site.end(job, 0.4 + 0.1 * number)
    (retrain,) = [job for job in site.jobs() if job.stage == 'retrain']
    site.start(retrain, 'b')
    site.end(retrain, 0.7)
    summary = site.update()
    assert site.page(retrain)['result'] == {'seconds': 8.0, 'parameters': 5, 'multiply_adds': 6, 'test_accuracy': 0.7}
    assert summary['sizes']['retrain']['networks'][0]['value'] == 0.7


def test_a_training_on_this_machine_shows_what_lies_in_its_folder(site: Site) -> None:
    job = site.jobs()[0]
    site.start(job, 'aaa')
    site.report('aaa', 1, 2)
    folder = site.trials / 'aaa'
    folder.mkdir(parents=True)
    site.update()
    kept = {**site.page(job), 'over': False, 'commands': ['nni-darts predict here photo.jpg'], 'strategy': ''}
    (folder / 'training.json').write_text(json.dumps(kept))
    site.update()
    assert site.page(job)['commands'] and site.page(job)['strategy'] == 'random'
    # Its end has been reported, but is not in the folder: then what was reported is what there is.
    site.end(job, 0.4)
    site.update()
    assert site.page(job)['over'] and site.page(job)['commands'] == []


def test_a_trial_that_is_started_again_takes_the_page_over(site: Site) -> None:
    job = site.jobs()[0]
    site.start(job, 'aaa')
    site.report('aaa', 1, 2, 3)
    site.update()
    site.start(job, 'bbb')
    site.report('bbb', 1)
    assert site.update()['running'][0]['epoch'] == 1 and len(site.page(job)['epochs']) == 1


def test_a_page_that_cannot_be_written_takes_nothing_with_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    first, second = site.jobs()
    site.start(first, 'aaa')
    site.start(second, 'bbb')
    site.report('bbb', 1)
    (site.trials / 'aaa').mkdir(parents=True)
    (site.trials / 'aaa' / 'training.json').write_text('{"half')
    summary = site.update()
    assert site.page(second)['epochs'] and [row['epoch'] for row in summary['running']] == [0, 1]
    assert f'the page of {first.key} was not written' in caplog.text
    site.reports.gone = True
    assert site.update() == summary


@pytest.mark.parametrize(
    ('job', 'name'),
    [
        (Job('search', 'darts-2nd+pt', 3), 'search-darts-2nd-pt-3'),
        (Job('select', 'random', 2, 'x', 10), 'select-random-2-10'),
        (Job('retrain', 'random', 1, 'x'), 'retrain-random-1'),
    ],
)
def test_names_of_pages_are_safe_in_addresses(job: Job, name: str) -> None:
    assert page_name(job) == name
