"""The pages' script in headless Chromium: tables, charts, updates, a phone's width, and no request to any other host."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nni_darts import Genotype
from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.recipes import Recipe
from nni_darts.report.summary import Observed, summarize, write_summary
from nni_darts.report.trainings import write_training
from tests.helpers.browser import CHROMIUM, Browser
from tests.nni_darts.report.test_trainings import EVALUATION, data_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine')

STRATEGIES = ('darts-2nd', 'darts-2nd+pt', 'pc-darts', 'random', 'sgas')
CELLS = {name: Genotype.random(random.Random(name)).code() for name in STRATEGIES}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def send_head(self) -> Any:
        """Serves a file whenever it is asked for: Python's server goes by whole seconds, in which these pages change more than once."""
        del self.headers['If-Modified-Since']
        return super().send_head()

    def end_headers(self) -> None:
        """Lets the browser keep nothing: without a word it takes a page of ten seconds for fresh for another one."""
        self.send_header('Cache-Control', 'no-store')
        super().end_headers()


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('pages')


@pytest.fixture(scope='module')
def address(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://localhost:{server.server_port}'
        server.shutdown()


@pytest.fixture(scope='module')
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp('chromium')) as browser:
        yield browser


@pytest.fixture
def browser(opened: Browser) -> Browser:
    opened.size(1280)
    opened.errors.clear()
    opened.requests.clear()
    return opened


def curve(of: int, last: float, epochs: int | None = None) -> list[dict[str, Any]]:
    return [
        {'epoch': epoch, 'of': of, 'valid_accuracy': last * epoch / of, 'seconds': 3.0}
        for epoch in range(1, 1 + (of if epochs is None else epochs))
    ]


def write(folder: Path, search_epochs: int = 6, over: bool = False) -> None:
    """An experiment of which the last search runs, unless it is over."""
    protocol = Protocol(Recipe.load('digits', {'search.random_samples': 2, 'limits.parameters': 145_000}), STRATEGIES, (1, 2))
    results: dict[str, dict[str, Any]] = {}
    epochs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(3):
        for job in protocol.jobs(results, ()):
            if job.key == 'search sgas 2' and not over:
                epochs[job.key] = curve(10, 0.8, search_epochs)
            elif job.key not in results:
                value = 0.8 + 0.1 * random.Random(job.key).random()
                arch = job.arch or CELLS[job.strategy]
                sizes = {'parameters': 100_000 + 10_000 * STRATEGIES.index(job.strategy), 'multiply_adds': 5000 - 100 * job.seed}
                results[job.key] = {'default': value, 'arch': arch, 'seconds': 3.0, 'passes': 1.0, **sizes}
                if job.stage == 'retrain':
                    results[job.key]['test_accuracy'] = value
                epochs[job.key] = curve(10, value)
    busy = frozenset() if over else frozenset({'search sgas 2'})
    jobs = protocol.jobs(results, ())
    write_summary(folder, summarize(protocol, jobs, Standing(results, busy), [], Observed(epochs=epochs), over=over))


def column(browser: Browser, table: str, number: int) -> list[str]:
    """The texts of a column, of the rows that can be seen."""
    rows = f'[...document.querySelectorAll("#{table} tbody tr")].filter(row => !row.hidden)'
    return browser.run(f'{rows}.map(row => row.cells[{number}].innerText.split("\\n")[0])')


def head(table: str, number: int) -> str:
    return f'document.querySelector("#{table}-by-{number}")'


def sorted_by(browser: Browser, table: str) -> list[str]:
    return browser.run(f'[...document.querySelectorAll("#{table} th")].map(head => head.getAttribute("aria-sort"))')


def shown(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait(f'location.href == "{url}" && document.readyState == "complete" && !!document.querySelector("main section")')


def test_tables_are_sorted_by_their_heads(folder: Path, address: str, browser: Browser) -> None:
    write(folder, over=True)
    shown(browser, f'{address}/summary.html')
    before = column(browser, 'strategies-table', 0)
    assert before == list(STRATEGIES) and sorted_by(browser, 'strategies-table') == ['none'] * 8
    browser.click(head('strategies-table', 2))
    values = [float(text.split()[0]) for text in column(browser, 'strategies-table', 2)]
    assert values == sorted(values, reverse=True) and sorted_by(browser, 'strategies-table')[2] == 'descending'
    # By keyboard: the head is a button that has the focus now.
    browser.press('Enter')
    assert [float(text.split()[0]) for text in column(browser, 'strategies-table', 2)] == sorted(values)
    assert sorted_by(browser, 'strategies-table') == ['none', 'none', 'ascending', *['none'] * 5]
    browser.press('Tab')
    browser.press(' ')
    assert sorted_by(browser, 'strategies-table')[3] == 'descending'
    browser.click(head('strategies-table', 0))
    assert column(browser, 'strategies-table', 0) == sorted(STRATEGIES)
    assert not browser.errors


def test_what_has_no_value_stands_last(folder: Path, address: str, browser: Browser) -> None:
    write(folder)
    shown(browser, f'{address}/summary.html')
    for _ in range(2):
        browser.click(head('jobs-table', 3))
        tests = column(browser, 'jobs-table', 3)
        count = tests.count('–')
        assert 0 < count < len(tests) and set(tests[-count:]) == {'–'}


def test_tables_are_filtered_by_words(folder: Path, address: str, browser: Browser) -> None:
    write(folder, over=True)
    shown(browser, f'{address}/summary.html')
    count = len(column(browser, 'jobs-table', 0))
    browser.click('document.getElementById("jobs-table-filter")')
    browser.write('SELECT rand')
    assert column(browser, 'jobs-table', 0) == [f'select random {seed}.{cell}' for seed in (1, 2) for cell in (1, 2)]
    assert browser.run('document.getElementById("jobs-table-count").textContent') == f'4 of {count}'
    browser.run('document.getElementById("jobs-table-filter").select()')
    browser.write('no such job')
    assert column(browser, 'jobs-table', 0) == []


LIT = '[...document.querySelectorAll("#curves .lit")].map(run => run.dataset.run)'


def test_a_run_that_is_pointed_at_stands_out(folder: Path, address: str, browser: Browser) -> None:
    write(folder, over=True)
    shown(browser, f'{address}/summary.html')
    assert browser.run('[...document.querySelectorAll("#curves .chart")].map(e => e.querySelectorAll(".run").length)') == [8, 12, 5]
    browser.run('document.getElementById("curves").scrollIntoView()')
    browser.point('document.querySelector("#curves .run[data-run=\'search pc-darts 2\'] .end")')
    lit = browser.wait(f'{LIT}.length == 1 && {LIT}')
    name = lit[0]  # lines may end at one place
    assert name.startswith('search ') and browser.run('document.querySelector("#curves .said").textContent').startswith(f'{name}: ')
    assert browser.run('getComputedStyle(document.querySelector("#curves .run:not(.lit)")).opacity') == '0.15'
    browser.click('document.querySelector("#curves .legend button[data-group=random]")')
    browser.point('document.querySelector("h1")')
    browser.wait(f'{LIT}.length == 5 && {LIT}.every(name => name.includes("random"))')
    assert browser.run('document.querySelector(".legend button[data-group=random]").getAttribute("aria-pressed")') == 'true'
    assert not browser.errors


def test_the_page_updates_itself_and_keeps_what_the_reader_has_set(folder: Path, address: str, browser: Browser) -> None:
    write(folder, search_epochs=6)
    shown(browser, f'{address}/summary.html')
    assert browser.run('document.querySelector("#running progress").value') == 6 and 'epoch 6 of 10' in browser.text()
    browser.click(head('jobs-table', 2))
    browser.click('document.getElementById("jobs-table-filter")')
    browser.write('darts')
    browser.run('document.querySelector("#cells details").open = true')
    browser.run('window.untouched = true')
    before = column(browser, 'jobs-table', 0)
    place = browser.run('document.getElementById("jobs").getBoundingClientRect().top')
    assert browser.run('window.scrollY') > 1000
    write(folder, search_epochs=7)
    page = (folder / 'summary.html').read_text()
    (folder / 'summary.html').write_text(page[: len(page) // 2])  # as NNI cuts off a file that is replaced while it is read
    fetched = 'performance.getEntriesByType("resource").filter(entry => entry.name.includes("summary.html")).length'
    browser.wait(f'{fetched} > 0', 60)
    assert column(browser, 'jobs-table', 0) == before
    (folder / 'summary.html').write_text(page)
    browser.wait('document.querySelector("#running progress").value == 7', 60)
    assert column(browser, 'jobs-table', 0) == before and sorted_by(browser, 'jobs-table')[2] == 'descending'
    assert browser.run('document.getElementById("jobs").getBoundingClientRect().top') == pytest.approx(place, abs=2)
    write(folder, over=True)  # a section goes, the table that is filtered is another one
    browser.wait('!document.getElementById("running") && document.body.innerText.includes("Finished")', 60)
    assert browser.run('document.activeElement.id') == 'jobs-table-filter' and browser.run('document.activeElement.value') == 'darts'
    after = column(browser, 'jobs-table', 0)
    assert set(before) < set(after) or set(before) == set(after)
    assert all('darts' in name for name in after) and sorted_by(browser, 'jobs-table')[2] == 'descending'
    assert browser.run('document.getElementById("jobs").getBoundingClientRect().top') == pytest.approx(place, abs=2)
    assert browser.run('window.untouched') and browser.run('document.querySelector("#cells details").open')
    assert not browser.errors


def test_a_page_says_when_nobody_serves_it_any_more_and_goes_on_once_somebody_does(folder: Path, address: str, browser: Browser) -> None:
    write(folder, search_epochs=6)
    shown(browser, f'{address}/summary.html')
    os.rename(folder / 'summary.json', folder / 'away')
    browser.wait('document.body.innerText.includes("does not answer")', 60)
    assert 'epoch 6 of 10' in browser.text()
    os.rename(folder / 'away', folder / 'summary.json')
    write(folder, search_epochs=8)
    browser.wait('document.body.innerText.includes("epoch 8 of 10") && !document.body.innerText.includes("does not answer")', 60)
    assert not browser.errors


def test_from_a_file_the_summary_stands_still_and_complains_about_nothing(folder: Path, browser: Browser) -> None:
    write(folder)
    page = (folder / 'summary.html').as_uri()
    shown(browser, page)
    browser.click(head('jobs-table', 0))
    browser.run('new Promise(resolve => setTimeout(resolve, 6000))')  # longer than between two looks
    assert set(browser.requests) <= {page, 'data:,'} and not browser.errors and browser.run('document.getElementById("connection").hidden')
    assert not browser.run('getComputedStyle(document.querySelector(".only-served")).display != "none"')


WIDER = '[...document.querySelectorAll("main *")].filter(e => !e.closest(".wide, svg") && e.getBoundingClientRect().right > innerWidth + 1)'


@pytest.mark.parametrize('width', [400, 1280])
def test_pages_fit_the_window_and_ask_nobody_else(width: int, folder: Path, address: str, browser: Browser) -> None:
    write(folder)
    long = ['a class with quite a long name', 'dog', 'x' * 60]
    evaluation = {
        **EVALUATION,
        'classes': long,
        'per_class': [{**entry, 'class': name} for entry, name in zip(EVALUATION['per_class'], long)],
    }
    write_training(folder, 'training', data_of(evaluation=evaluation, commands=[f'nni-darts predict {"/long" * 40} photo.jpg'], over=False))
    browser.size(width)
    for name in ('summary', 'training'):
        shown(browser, f'{address}/{name}.html')
        assert browser.run('document.documentElement.scrollWidth') <= width
        assert browser.run(f'{WIDER}.map(e => e.tagName + " " + e.textContent.slice(0, 40))') == []
        # A box that scrolls can be reached by keyboard.
        assert browser.run('[...document.querySelectorAll(".wide")].every(box => box.scrollWidth <= box.clientWidth || box.tabIndex == 0)')
        unnamed = '[...document.querySelectorAll("input, button, progress, img, svg, [role=region]")].filter(e => !(NAME))'
        names = 'e.ariaLabel || e.alt || e.textContent.trim()'
        assert browser.run(unnamed.replace('NAME', names) + '.map(e => e.outerHTML.slice(0, 99))') == []
    assert {url.split('/')[2] for url in browser.requests if url.startswith('http')} == {address.split('/')[2]}
    assert not browser.errors


OVERLAPPING = """(() => {
    const chart = document.querySelector("#sizes line.limit").closest("svg"), frame = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    const label = boxes.find(([text]) => text == "limit 145k")[1];
    const inside = label.left >= frame.left && label.right <= frame.right + 1;
    const beside = box => box.right <= label.left || label.right <= box.left;
    const apart = box => box.bottom - 2 <= label.top || label.bottom - 2 <= box.top;
    return [inside, boxes.filter(([text, box]) => !beside(box) && !apart(box)).map(([text]) => text)];
})()"""


@pytest.mark.parametrize('width', [400, 1280])
@pytest.mark.parametrize('dark', [False, True])
def test_the_limit_is_seen_in_both_schemes_and_its_label_covers_no_text(
    width: int, dark: bool, folder: Path, address: str, browser: Browser, tmp_path: Path
) -> None:
    write(folder, over=True)
    browser.size(width)
    shown(browser, f'{address}/summary.html')
    browser.picture(tmp_path / 'page.png', dark=dark)
    assert browser.run(OVERLAPPING) == [True, ['limit 145k']]
    assert browser.run('document.querySelectorAll("#sizes line.limit").length') == 2  # of the short trainings and the retrainings
    stroke, page = browser.run(
        '["line.limit", "body"].map(name => getComputedStyle(document.querySelector(name)))'
        '.map((style, index) => index ? style.backgroundColor : style.stroke)'
    )
    light = [sum(map(int, colour.strip('rgb()').split(', '))) > 384 for colour in (stroke, page)]
    assert light == [dark, not dark]
