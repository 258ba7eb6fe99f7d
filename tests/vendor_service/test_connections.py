"""Connections that ask nothing, ask without end or do not read keep nobody out and nothing in memory."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvicorn
from fastapi import FastAPI, Response

from tests.vendor_process import wait_until
from vendor_service.connections import Config

MOST = 8
PATIENCE = 0.5
ASK = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = 32 * 1024 * 1024  # far beyond what the kernel keeps of an answer that nobody reads


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    """A server with few and impatient connections."""
    app = FastAPI()
    app.get("/small")(lambda: Response(b"small"))
    app.get("/large")(lambda: Response(b"x" * LARGE))
    server = uvicorn.Server(Config(app, most=MOST, patience=PATIENCE, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join()


def connect(server: uvicorn.Server) -> socket.socket:
    return socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=20)


def send_a_lot(connection: socket.socket) -> None:
    """Send for far longer than the server's patience."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        connection.sendall(b"x" * 65_536)


def ended(connection: socket.socket) -> bool:
    """Wait for the end of a connection; whether nothing came before it."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_idle_connections_give_way_to_one_that_asks(server: uvicorn.Server) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(3 * MOST)]
        wait_until(lambda: len(server.server_state.connections) == MOST)
        asking = stack.enter_context(connect(server))
        asking.sendall(ASK)
        assert asking.recv(1000).startswith(b"HTTP/1.1 200")
        assert ended(idle[0])


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(server: uvicorn.Server, begun: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(ASK)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(begun)
        started = time.monotonic()
        assert ended(connection)
        assert time.monotonic() - started > PATIENCE / 2


def test_a_connection_that_goes_on_asking_is_kept(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        for _ in range(4):
            connection.sendall(ASK)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(PATIENCE / 2)


def test_an_endless_head_is_refused(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nendless: ")
        with pytest.raises(ConnectionError):
            send_a_lot(connection)


def test_the_rest_of_a_body_that_is_refused_is_dropped_for_a_while(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 405")
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            send_a_lot(connection)
        assert time.monotonic() - started > PATIENCE / 2


def test_an_answer_that_nobody_reads_is_dropped(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(ASK.replace(b"small", b"large"))
        wait_until(lambda: len(server.server_state.connections) == 1)
        wait_until(lambda: len(server.server_state.connections) == 0)


def test_an_answer_that_is_read_slowly_is_read_whole(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(ASK.replace(b"small", b"large"))
        received, pauses = 0, 0
        while block := connection.recv(1024 * 1024):
            received += len(block)
            if pauses < 6:
                pauses += 1
                time.sleep(PATIENCE / 2)
        assert received > LARGE
