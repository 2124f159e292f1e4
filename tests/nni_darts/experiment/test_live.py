"""One real experiment through everything a user does to it: killed trial, stop, resume, end, web page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nni_darts import Genotype
from nni_darts.experiment.manager import FINISHED, TrialRecord
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.live import Experiment, launched
from tests.helpers.tiny import overrides, write_images

pytestmark = pytest.mark.nni

STRATEGIES, SEEDS = ['darts-pt', 'evolution'], [1, 2]
EVOLUTION = {'cells': 3, 'population': 2, 'sample': 2}


class Story:
    """What happened."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.killed = ''
        self.finished_before_stop: dict[str, TrialRecord] = {}
        self.addresses: set[str] = set()
        self.trials: list[TrialRecord] = []


@pytest.fixture(scope='module')
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp('experiment')
    images = write_images(folder / 'images.npz')
    space = {
        'strategy': {'_type': 'choice', '_value': STRATEGIES},
        'seed': {'_type': 'choice', '_value': SEEDS},
    }
    arguments = {'recipe': 'digits', 'set': {**overrides(images), 'search.settings': {'evolution': EVOLUTION}}}
    with launched(folder, searchSpace=space, classArgs=arguments) as experiment:
        story = Story(experiment)
        story.addresses = experiment.listens_on()

        def kill_one() -> bool:
            running = [trial for trial in experiment.trials() if trial.status == 'RUNNING']
            if running and experiment.kill(running[0].id):
                story.killed = running[0].id
            return bool(story.killed)

        experiment.wait(kill_one)
        experiment.wait(lambda: sum(trial.metric is not None for trial in experiment.trials()) >= 3)
        # Stop while trials run.
        experiment.wait(lambda: sum(trial.status == 'RUNNING' for trial in experiment.trials()) >= 1)
        story.finished_before_stop = {trial.id: trial for trial in experiment.trials() if trial.metric is not None}
        experiment.stop()
        experiment.resume()
        story.addresses |= experiment.listens_on()
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 420)
        story.trials = experiment.trials()
        yield story


def test_the_manager_listens_on_loopback_only(story: Story) -> None:
    assert story.addresses == {'127.0.0.1'}


def test_every_job_has_one_result_under_its_name(story: Story) -> None:
    expected = {f'search {name} {seed}' for name in STRATEGIES[:1] for seed in SEEDS}
    expected |= {f'select {name} {seed}' for name in STRATEGIES[:1] for seed in SEEDS}
    expected |= {f'select evolution {seed}.{cell}' for seed in SEEDS for cell in range(1, EVOLUTION['cells'] + 1)}
    expected |= {f'retrain {name} 1' for name in STRATEGIES}
    results = Counter(trial.key for trial in story.trials if trial.metric is not None)
    assert set(results) == expected and set(results.values()) == {1}
    assert len(expected) >= 12


def test_record_metric_and_files_of_every_trial_agree(story: Story) -> None:
    """Trap 1 of NNI 3.0: with concurrency above 1 it labels most trials wrongly."""
    for trial in story.trials:
        if trial.metric is None:
            continue
        parameters, metric = trial.parameters, trial.metric
        assert metric['key'] == parameters['key']
        output = story.experiment.folder / 'environments' / 'local-env' / 'trials' / trial.id
        run = json.loads((output / 'run.json').read_text())
        assert (run['stage'], run['seed']) == (parameters['stage'], parameters['seed'])
        genotype = Genotype.from_json((output / 'genotype.json').read_text())
        assert genotype.code() == metric['arch']
        if parameters['stage'] == 'search':
            assert run['strategy'] == parameters['strategy']
        else:
            assert parameters['arch'] == metric['arch']
        result = json.loads((output / 'result.json').read_text())['result']
        assert metric['parameters'] == result['parameters']
        assert metric['default'] == pytest.approx(result['valid_accuracy'])
        assert ('test_accuracy' in metric) == (parameters['stage'] == 'retrain')
        assert parameters['mutation_summary'] == {key: parameters[key] or '-' for key in ('stage', 'strategy', 'seed', 'arch')}
        assert (output / 'last.ckpt').exists()


def test_the_killed_trial_was_started_again(story: Story) -> None:
    (killed,) = [trial for trial in story.trials if trial.id == story.killed]
    assert killed.status in FINISHED and killed.metric is None
    assert [trial.metric is not None for trial in story.trials if trial.key == killed.key].count(True) == 1


def test_resume_did_nothing_twice(story: Story) -> None:
    after = {trial.id: trial for trial in story.trials}
    for identifier, before in story.finished_before_stop.items():
        assert after[identifier] == before
    without = [trial for trial in story.trials if trial.metric is None]
    assert [trial.id for trial in without] == [story.killed]
    summary = json.loads((story.experiment.folder / 'log' / 'summary.json').read_text())
    assert len(summary['resumes']) == 1
    assert 'Resumed once' in (story.experiment.folder / 'log' / 'summary.html').read_text()


def test_evolution_trained_different_cells(story: Story) -> None:
    for seed in SEEDS:
        cells = [trial.metric['arch'] for trial in story.trials if trial.metric and trial.key.startswith(f'select evolution {seed}.')]
        assert len(set(cells)) == len(cells) == EVOLUTION['cells']


def test_the_best_cells_are_the_ones_trained(story: Story) -> None:
    metrics = {trial.key: trial.metric for trial in story.trials if trial.metric is not None}
    for name in STRATEGIES:
        selected = [metric for key, metric in metrics.items() if key.startswith(f'select {name} ')]
        best = max(metric['default'] for metric in selected)
        assert metrics[f'retrain {name} 1']['arch'] in {metric['arch'] for metric in selected if metric['default'] == best}
    for name in STRATEGIES[:1]:
        for seed in SEEDS:
            assert metrics[f'search {name} {seed}']['arch'] == metrics[f'select {name} {seed}']['arch']


@pytest.fixture(scope='module')
def browser(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: NNI's web page is not looked at")
    with Browser(tmp_path_factory.mktemp('chromium')) as browser:
        yield browser


def test_the_summary_page(story: Story, browser: Browser, tmp_path: Path) -> None:
    browser.errors.clear()
    browser.requests.clear()
    browser.open(f'http://localhost:{story.experiment.port}/logs/summary.html')
    browser.wait('document.body && document.body.innerText.includes("Finished")')
    text = browser.text()
    for name in STRATEGIES:
        assert name in text
    assert '12 of 12 known jobs done' in text and '±' in text
    assert not browser.errors
    assert {url.split('/')[2] for url in browser.requests} == {f'localhost:{story.experiment.port}'}
    assert browser.run('document.documentElement.scrollWidth <= window.innerWidth')
    for dark in (False, True):
        browser.picture(tmp_path / f'summary-{dark}.png', dark=dark)
        assert (tmp_path / f'summary-{dark}.png').stat().st_size > 20_000


def test_a_page_for_each_search(story: Story, browser: Browser, tmp_path: Path) -> None:
    """From what travelled in the metrics: the same numbers as in the files of the trial."""
    logs = f'http://localhost:{story.experiment.port}/logs'
    browser.open(f'{logs}/summary.html')
    links = browser.wait('[...document.querySelectorAll("#jobs td:first-child a")].map(e => e.href).filter(e => e.includes("/search-"))')
    assert links == [f'{logs}/search-{name}-{seed}.html' for name in STRATEGIES[:1] for seed in SEEDS]
    metrics = {trial.key: trial for trial in story.trials if trial.metric is not None}
    browser.errors.clear()
    browser.requests.clear()
    for link in links:
        browser.open(link)
        browser.wait('document.body && document.body.innerText.includes("Finished")')
        _, strategy, seed = link.rpartition('/')[2].removesuffix('.html').replace('darts-', 'darts/').split('-')
        trial = metrics[f'search {strategy.replace("/", "-")} {seed}']
        assert trial.metric['arch'] in browser.text()
        shown = json.loads((story.experiment.folder / 'log' / f'search-{trial.parameters["strategy"]}-{seed}.json').read_text())
        output = story.experiment.folder / 'environments' / 'local-env' / 'trials' / trial.id
        epochs = [json.loads(line) for line in (output / 'metrics.jsonl').read_text().splitlines()]
        assert [entry['valid_accuracy'] for entry in shown['epochs']] == [entry['valid_accuracy'] for entry in epochs]
        for entry, record in zip(shown['epochs'], epochs):
            for label, table in record['probabilities'].items():
                assert entry['probabilities'][label] == pytest.approx(table, abs=3e-4)
        decisions = [json.loads(line) for line in (output / 'selection.jsonl').read_text().splitlines()] if 'pt' in link else []
        assert [(entry['label'], str(entry['choice'])) for entry in shown['decisions']] == [
            (entry['label'], str(entry['choice'])) for entry in decisions
        ]
        assert browser.run('document.querySelectorAll(".share").length') == 2 * 5
    assert not browser.errors
    assert {url.split('/')[2] for url in browser.requests if url.startswith('http')} == {f'localhost:{story.experiment.port}'}


def test_a_page_for_each_training(story: Story, browser: Browser) -> None:
    """Of trials on this machine with what they tested: the numbers of their own files."""
    logs = f'http://localhost:{story.experiment.port}/logs'
    browser.errors.clear()
    browser.requests.clear()
    browser.open(f'{logs}/summary.html')
    links = browser.wait('[...document.querySelectorAll("#jobs td:first-child a")].map(e => [e.textContent, e.href])')
    trials = {trial.key: trial for trial in story.trials if trial.metric is not None}
    assert {key for key, _ in links} == set(trials)
    for key, link in links:
        stage = key.partition(' ')[0]
        if stage == 'search':
            continue
        output = story.experiment.folder / 'environments' / 'local-env' / 'trials' / trials[key].id
        shown = json.loads((story.experiment.folder / 'log' / link.rpartition('/')[2].replace('.html', '.json')).read_text())
        kept = json.loads((output / 'training.json').read_text())
        assert shown == {**kept, 'strategy': trials[key].parameters['strategy'], 'cell': shown['cell']} and shown['over']
        assert (shown['evaluation'] is not None) == (stage == 'retrain')
        if stage == 'retrain':
            assert shown['evaluation']['accuracy'] == pytest.approx(trials[key].metric['test_accuracy'], abs=1e-6)
            assert str(output) in shown['commands'][0]
    browser.open(link)  # of a retraining
    browser.wait('document.body && document.body.innerText.includes("Confusion matrix") && document.images.length > 0')
    browser.wait('[...document.images].every(image => image.naturalWidth == 8)')
    assert browser.run('[...document.querySelectorAll("a")].map(a => a.href)') == [f'{logs}/summary.html']
    assert not browser.errors
    assert {url.split('/')[2] for url in browser.requests if url.startswith('http')} == {f'localhost:{story.experiment.port}'}


def test_curves_and_sizes_of_all_runs(story: Story) -> None:
    summary = json.loads((story.experiment.folder / 'log' / 'summary.json').read_text())
    trials = {trial.key: trial for trial in story.trials if trial.metric is not None}
    assert {curve['key'] for curve in summary['curves']} == set(trials) and summary['running'] == []
    for curve in summary['curves']:
        output = story.experiment.folder / 'environments' / 'local-env' / 'trials' / trials[curve['key']].id
        epochs = [json.loads(line) for line in (output / 'metrics.jsonl').read_text().splitlines()]
        assert curve['points'] == [[entry['epoch'], entry['valid_accuracy']] for entry in epochs]
    networks = summary['sizes']['select']['networks']
    assert {row['key'] for row in networks} == {key for key in trials if key.startswith('select')}
    assert all(row['parameters'] == trials[row['key']].metric['parameters'] for row in networks)


def test_tensorboard_files_lie_where_nnis_button_looks(story: Story) -> None:
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    for trial in story.trials:
        if trial.metric is not None:
            events = accumulator.EventAccumulator(str(story.experiment.folder / 'trials' / trial.id / 'output' / 'tensorboard')).Reload()
            assert 'train_loss' in events.Tags()['scalars']
            last = events.Scalars('valid_accuracy' if trial.parameters['stage'] != 'retrain' else 'train_accuracy')[-1]
            if trial.parameters['stage'] != 'retrain':
                assert last.value == pytest.approx(trial.metric['default'])


def test_intermediate_results_of_every_stage(story: Story) -> None:
    """A dict for each epoch, under the trial's name."""
    metrics = story.experiment.manager._get('metric-data')
    epochs: dict[str, list[dict]] = {}
    finals = Counter(entry['trialJobId'] for entry in metrics if entry['type'] == 'FINAL')
    for entry in metrics:
        if entry['type'] == 'PERIODICAL':
            epochs.setdefault(entry['trialJobId'], []).append(json.loads(json.loads(entry['data'])))
    for trial in story.trials:
        if trial.metric is not None:
            assert finals[trial.id] == 1
            wanted = 1 if trial.parameters['stage'] == 'select' else 2
            if trial.key.startswith('search darts-pt'):
                wanted += 6  # five edges and one node with three inputs, an epoch of tuning after each
                assert [record['decisions'] for record in epochs[trial.id]] == [0, 2, 4, 6, 8, 10, 12, 12]
                assert {record['of_decisions'] for record in epochs[trial.id]} == {12}
            assert {record['epoch'] for record in epochs[trial.id]} == set(range(1, wanted + 1))
            assert {'default', 'train_loss', 'train_accuracy'} <= set(epochs[trial.id][-1])
            assert epochs[trial.id][-1]['default'] == pytest.approx(trial.metric['default'])


BUTTON = '[...document.querySelectorAll("button")].find(e => e.innerText.trim().endsWith("%s"))'
ROWS = '[...document.querySelectorAll("input[type=checkbox]")]'


def test_nnis_page_has_the_axes_and_compare_works(story: Story, browser: Browser, tmp_path: Path) -> None:
    browser.errors.clear()
    browser.open(f'http://localhost:{story.experiment.port}/detail')
    browser.wait(f'{ROWS}.length > 3', 60)
    browser.click(BUTTON % 'Hyper-parameter')
    axes = browser.wait('document.body.textContent.includes("multiply_adds") && document.body.textContent')
    for axis in ('stage', 'strategy', 'seed', 'arch', 'default', 'parameters', 'test_accuracy'):
        assert axis in axes
    for value in (*STRATEGIES, 'search', 'select', 'retrain'):
        assert value in axes
    assert 'recipe' not in axes  # only mutation_summary is shown
    browser.picture(tmp_path / 'axes.png')
    browser.run(f'{ROWS}.slice(1, 4).forEach(e => e.click()) || true')
    browser.click(BUTTON % 'Compare')
    compared = browser.wait('document.querySelector(".compare-modal") && document.querySelector(".compare-modal").innerText')
    for row in ('strategy', 'stage', 'Metric: default', 'Metric: key'):
        assert row in compared
    browser.picture(tmp_path / 'compare.png')
    assert not browser.errors


def test_nnis_list_says_which_trial_is_which_without_a_click(story: Story, browser: Browser, tmp_path: Path) -> None:
    """From the address that "launch" prints."""
    browser.errors.clear()
    browser.size(1280)
    browser.run('localStorage.clear()')
    browser.open(f'http://localhost:{story.experiment.port}/logs/trials.html')
    browser.wait('location.pathname == "/detail" && document.body.innerText.includes("strategy (space)")', 60)
    texts = 'row.innerText.split("\\n").filter(text => !/[\\ue000-\\uf8ff]/.test(text))'  # without icons
    rows = browser.wait(f'[...document.querySelectorAll(".ms-DetailsRow-fields")].map(row => {texts})')
    by_stage = [(row[4], row[3], row[2]) for row in rows]
    known = {(trial.parameters['stage'], trial.parameters['strategy'], str(trial.parameters['seed'])) for trial in story.trials}
    assert len(rows) == min(20, len(story.trials)) and set(by_stage) <= known
    heads = '[...document.querySelectorAll("[role=columnheader]")].map(e => [e.innerText.trim(), e.getBoundingClientRect().right])'
    places = dict(browser.run(heads))
    assert all(places[f'{name} (space)'] < 1280 for name in ('stage', 'strategy', 'seed'))
    assert {'arch (space)', 'test_accuracy (metric)', 'parameters (metric)'} <= set(places)
    browser.picture(tmp_path / 'list.png')
    browser.click(BUTTON % 'Hyper-parameter')
    axes = browser.wait(
        'document.querySelector(".parcoords svg") && [...document.querySelectorAll(".parcoords .label")].map(e => e.textContent)'
    )
    assert sorted(axes) == sorted(['stage', 'strategy', 'seed', 'arch', 'default', 'test_accuracy', 'parameters'])
    assert not browser.errors


def test_columns_of_the_users_own_are_left_alone(story: Story, browser: Browser) -> None:
    key = f'{story.experiment.id}_columns'
    entry = '{value: JSON.stringify(["sequenceId", "space/seed"]), time: Date.now() - AGE, expire: 1000000, isSelectall: false}'
    page = f'http://localhost:{story.experiment.port}/logs/trials.html'
    for age, heads in ((0, ['Trial No.', 'seed (space)']), (2000000, ['Status', 'Default metric', 'seed (space)'])):
        # Away from NNI's page, which may be open, and which keeps columns of its own.
        browser.open(f'http://localhost:{story.experiment.port}/logs/recipe.yml')
        browser.run(f'localStorage.setItem("{key}", JSON.stringify({entry.replace("AGE", str(age))}))')
        browser.open(page)
        browser.wait('location.pathname == "/detail" && document.body.innerText.includes("seed (space)")', 60)
        found = browser.run('[...document.querySelectorAll("[role=columnheader]")].map(e => e.innerText.trim()).filter(Boolean)')
        assert found[: len(heads)] == heads
