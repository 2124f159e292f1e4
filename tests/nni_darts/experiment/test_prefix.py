"""NNI behind a prefix of its addresses, as behind a reverse proxy: the pages work there, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nni_darts.experiment.manager import Manager
from nni_darts.experiment.nnictl import _identifier, _start
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.live import Experiment, free_port, write_experiment
from tests.helpers.tiny import overrides, write_images

pytestmark = [pytest.mark.nni, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine')]


def test_nnis_list_opens_with_its_columns_under_a_prefix(tmp_path: Path) -> None:
    arguments = {'recipe': 'digits', 'set': overrides(write_images(tmp_path / 'images.npz'))}
    space = {'strategy': {'_type': 'choice', '_value': ['random']}, 'seed': {'_type': 'choice', '_value': [1]}}
    port = free_port()
    path = write_experiment(tmp_path, searchSpace=space, classArgs=arguments)
    said = _start('create', '--config', str(path), '--port', str(port), '--url_prefix', 'nas')  # closed to other machines
    identifier = _identifier(said)
    assert identifier, said
    experiment = Experiment(identifier, port)
    experiment.manager = Manager(f'localhost:{port}/nas')
    try:
        experiment.wait(lambda: len(experiment.trials()) > 0, 60)
        with Browser(tmp_path / 'chromium') as browser:
            browser.open(f'http://localhost:{port}/nas/logs/trials.html')
            browser.wait('location.pathname == "/nas/detail" && document.body.innerText.includes("strategy (space)")', 60)
            assert re.search(r'1\nrandom\nselect', browser.text())
            browser.open(f'http://localhost:{port}/nas/logs/summary.html')
            browser.wait('!!document.querySelector("#head .only-served a")')
            browser.click('document.querySelector("#head .only-served a")')
            browser.wait('location.pathname == "/nas/detail"', 30)
            assert not browser.errors
    finally:
        experiment.stop()
