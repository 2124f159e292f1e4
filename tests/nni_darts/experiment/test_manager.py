"""The client of NNI's REST interface against a server that behaves as NNI's does."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import nni_node
import pytest
import requests as http

from nni_darts.experiment.manager import Manager
from nni_darts.files import write_text

_BODY = b'{"status": "RUNNING", "errors": []}'


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the requests that it got; it closes a connection that it promised to keep as the next request arrives."""
    requests: list[bytes] = []
    listener = socket.create_server(('127.0.0.1', 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            requests.append(connection.recv(65536))
            kept = 'close' if b'connection: close' in requests[-1].lower() else 'keep-alive'
            head = ['HTTP/1.1 200 OK', 'Content-Type: application/json', f'Content-Length: {len(_BODY)}', f'Connection: {kept}', '', '']
            connection.sendall('\r\n'.join(head).encode() + _BODY)
            if kept == 'keep-alive':
                connection.recv(65536)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f'127.0.0.1:{listener.getsockname()[1]}', requests


def test_a_connection_that_the_manager_closes_while_idle_leaves_no_line_in_the_log(
    server: tuple[str, list[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    address, requests = server
    manager = Manager(address)
    with caplog.at_level(logging.WARNING):
        assert [manager.status() for _ in range(3)] == ['RUNNING'] * 3
    assert len(requests) == 3 and caplog.records == []


_SERVE = """
const express = require(process.argv[2] + '/node_modules/express');
const server = express().use('/logs', express.static(process.argv[1])).listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


@pytest.fixture
def static(tmp_path: Path) -> Iterator[str]:
    """The address of NNI's own file server, which serves the folder."""
    base = Path(nni_node.__path__[0])
    node = subprocess.Popen([base / 'node', '-e', _SERVE, tmp_path, base], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    with node:
        yield f'127.0.0.1:{int(node.stdout.readline())}'
        node.kill()


def test_a_document_that_is_replaced_while_it_is_read_is_always_read_as_a_whole(static: str, tmp_path: Path) -> None:
    path, over, sizes = tmp_path / 'summary.json', threading.Event(), (10, 3000)
    write_text(path, '{"text": ""}')

    def keep_writing() -> None:
        while not over.wait(0.001):
            for size in sizes:
                write_text(path, json.dumps({'text': size * 'x'}))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        read = [Manager(static).document(path.name)['text'] for _ in range(300)]
    finally:
        over.set()
        writer.join()
    assert {len(text) for text in read} <= {0, *sizes}


def test_a_document_that_stays_damaged_counts_as_no_answer(static: str, tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text('{"text": ')
    with pytest.raises(http.RequestException, match='summary.json could not be read as a whole'):
        Manager(static).document('summary.json')
    assert Manager(static).document('none.json') == {}
