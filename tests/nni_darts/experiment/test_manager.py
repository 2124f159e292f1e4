"""The client of NNI's REST interface against a server that behaves as NNI's does."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from nni_darts.experiment.manager import Manager

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
