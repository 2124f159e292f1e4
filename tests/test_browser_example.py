"""examples/browser in headless Chromium: digits fed by script, and one drawn with the mouse."""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from nni_darts import Recipe, load_model
from nni_darts.data import load_images
from tests.helpers.browser import CHROMIUM, Browser

FOLDER = Path(__file__).parents[1] / 'examples' / 'browser'
NEEDED = ('ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm')

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not all((FOLDER / 'ort' / name).exists() for name in NEEDED):
        if shutil.which('npm') is None or subprocess.run([str(FOLDER / 'install.sh')], capture_output=True, timeout=120).returncode:
            pytest.skip('onnxruntime-web is not there, and npm could not bring it (examples/browser/install.sh)')
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(FOLDER))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Browser(tmp_path_factory.mktemp('chromium')) as browser:
            browser.open(f'http://localhost:{server.server_port}/')
            browser.wait('document.getElementById("state") && document.getElementById("state").textContent == "Ready."', 60)
            yield browser
        server.shutdown()


def test_a_hundred_test_digits(page: Browser) -> None:
    data = load_images(Recipe.load('digits').data)
    items = [data.test[index] for index in range(100)]
    pixels = [(image.flatten() / 255).tolist() for image, _ in items]
    script = f'(async () => {{ const all = []; for (const one of {pixels}) all.push(await classify(one)); return all; }})()'
    shares = page.run(script)
    assert all(sum(share) == pytest.approx(1) for share in shares)
    right = sum(share.index(max(share)) == label for share, (_, label) in zip(shares, items))
    assert right >= 95
    expected = load_model(FOLDER / 'digits.onnx').predict([image for image, _ in items]).probabilities
    torch.testing.assert_close(torch.tensor(shares), expected, atol=1e-4, rtol=0)  # the page computes what nni-darts predict does
    assert not page.errors
    assert {url.split('/')[2] for url in page.requests if url.startswith('http')} == {page.run('location.host')}


def stroke(page: Browser, points: list[tuple[float, float]]) -> None:
    """Draws with the mouse; (0, 0) … (1, 1) is the paper."""
    left, top, side = page.run('(() => { const b = paper.getBoundingClientRect(); return [b.left, b.top, b.width]; })()')
    kinds = ['mousePressed', *['mouseMoved'] * (len(points) - 2), 'mouseReleased']
    for kind, (x, y) in zip(kinds, points):
        page._call('Input.dispatchMouseEvent', type=kind, x=left + side * x, y=top + side * y, button='left', buttons=1, clickCount=1)


def test_a_zero_drawn_with_the_mouse(page: Browser, tmp_path: Path) -> None:
    circle = [2 * math.pi * step / 24 for step in range(25)]
    stroke(page, [(0.5 + 0.22 * math.sin(angle), 0.5 - 0.35 * math.cos(angle)) for angle in circle])
    assert page.wait('document.getElementById("result").dataset.digit') == '0'
    for dark in (False, True):
        page.picture(tmp_path / f'zero-{dark}.png', dark=dark)
    assert not page.errors
