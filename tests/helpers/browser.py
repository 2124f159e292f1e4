"""Headless Chromium, controlled by its debugging protocol: opens a page, runs scripts, takes pictures, and collects errors."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import connect

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Browser:
    """One page of a browser, as a context manager."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._stack = ExitStack()

    def __enter__(self) -> Browser:
        self._process = subprocess.Popen(
            [
                str(CHROMIUM),
                *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'),
                *('--disable-component-update', '--disable-sync', '--remote-debugging-port=0', '--window-size=1280,800'),
                *('--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost', f'--user-data-dir={self.profile}', 'about:blank'),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        file = self.profile / 'DevToolsActivePort'
        deadline = time.monotonic() + 60
        while not (file.exists() and len(file.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline, 'chromium did not start'
            time.sleep(0.1)
        port = file.read_text().splitlines()[0]
        pages = [page for page in requests.get(f'http://127.0.0.1:{port}/json', timeout=10).json() if page['type'] == 'page']
        self._socket = self._stack.enter_context(connect(pages[0]['webSocketDebuggerUrl'], max_size=None))
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self._call(f'{domain}.enable')
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._process.terminate()
        self._process.wait(20)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method, 'params': parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get('id') == self._number:
                assert 'error' not in message, message
                return message['result']
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get('method') == 'Runtime.exceptionThrown':
            self.errors.append(str(event['params']['exceptionDetails'].get('exception', {}).get('description', event)))
        if event.get('method') == 'Network.requestWillBeSent':
            self.requests.append(event['params']['request']['url'])

    def open(self, url: str) -> None:
        """Opens a page, and waits until the previous page is gone, which could be taken for the new one."""
        within = '#' in url and self.run('location.href.split("#")[0]') == url.partition('#')[0]
        self.run('window.isBefore = true')
        self._call('Page.navigate', url=url)
        if not within:
            self.wait('!window.isBefore')

    def run(self, script: str) -> Any:
        """Returns the value of an expression in the page."""
        return self._call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)['result'].get('value')

    def click(self, script: str) -> None:
        """Clicks on the centre of the element that an expression returns."""
        middle = f"""(() => {{
            const element = {script};
            element.scrollIntoView({{block: "center"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.wait(middle)
        for kind in ('mousePressed', 'mouseReleased'):
            self._call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def press(self, key: str) -> None:
        """Presses and releases a key, such as Tab or Enter."""
        code = {'Tab': 9, 'Enter': 13, ' ': 32}[key]
        text = {'Enter': {'text': '\r'}, ' ': {'text': ' '}}.get(key, {})
        self._call('Input.dispatchKeyEvent', type='keyDown', key=key, windowsVirtualKeyCode=code, **text)
        self._call('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

    def point(self, script: str) -> None:
        """Moves the mouse to the centre of the element that an expression returns."""
        box = f'(() => {{ const box = {script}.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()'
        x, y = self.run(box)
        self._call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def write(self, text: str) -> None:
        """Types text into the focused element."""
        self._call('Input.insertText', text=text)

    def size(self, width: int, height: int = 800) -> None:
        """Sets the size of the page in pixels."""
        self._call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)

    def text(self) -> str:
        """Returns the visible text of the page."""
        return self.run('document.body ? document.body.innerText : ""') or ''

    def wait(self, script: str, seconds: float = 30) -> Any:
        """Waits until an expression is true, and returns its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.25)
        raise AssertionError(f'never true in the page: {script}\n{self.text()[:2000]}')

    def picture(self, path: Path, *, dark: bool = False) -> None:
        """Saves a screenshot of the page as PNG."""
        scheme = 'dark' if dark else 'light'
        self._call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])
        path.write_bytes(base64.b64decode(self._call('Page.captureScreenshot')['data']))
