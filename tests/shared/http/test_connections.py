"""Connections that ask nothing, ask without end or do not read keep nobody out and nothing in memory."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from shared.http.connections import BoundedHttp, Config
from tests.support.figures import holds
from tests.support.vendor_process import wait_until

MOST = 8
PATIENCE = 0.5
ASK = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = 32 * 1024 * 1024  # far beyond what the kernel keeps of an answer that nobody reads


@contextmanager
def serving(patience: float, loop: str = "auto") -> Iterator[uvicorn.Server]:
    """A server with few connections."""
    app = FastAPI()
    app.get("/small")(lambda: Response(b"small"))
    app.get("/large")(lambda: Response(b"x" * LARGE))
    app.get("/slow")(lambda: time.sleep(3 * PATIENCE))

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.post("/named")
    async def named(request: Request) -> Response:
        await request.body()
        return Response(" ".join(request.headers.getlist("x-forwarded-for")))

    @app.get("/until-gone")
    async def until_gone(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    config = Config(
        app,
        most=MOST,
        patience=patience,
        loop=loop,
        port=0,
        log_config=None,
        timeout_graceful_shutdown=20,  # where a test fails
    )
    server = uvicorn.Server(config)

    @app.get("/after-gone")
    async def after_gone(request: Request) -> None:
        await request.receive()  # from now on the end of the connection is noticed
        while server.server_state.connections:
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    """A server with few and impatient connections."""
    with serving(PATIENCE) as server:
        yield server


@pytest.fixture(scope="module")
def lasting() -> Iterator[uvicorn.Server]:
    """A server for all tests of one request."""
    with serving(20 * PATIENCE) as server:
        yield server


def connect(server: uvicorn.Server) -> socket.socket:
    return socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=20)


def send_a_lot(connection: socket.socket, sent: bytes = b"x" * 65_536) -> None:
    """Send for far longer than the server's patience."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        connection.sendall(sent)


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
        started = time.monotonic()
        connection.sendall(ASK)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(begun)
        assert ended(connection)
        assert time.monotonic() - started > PATIENCE / 2


def test_a_connection_that_goes_on_asking_is_kept(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        for _ in range(15):
            connection.sendall(ASK)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(PATIENCE / 10)


def test_an_endless_head_is_refused() -> None:
    with serving(patience=60) as server, connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nendless: ")
        with pytest.raises(ConnectionError):
            send_a_lot(connection)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1\r\nhost: shop.example:80", 200),
        (b"HTTP/1.1\r\nHost: [::1]:8080", 200),
        (b"HTTP/1.0", 200),  # which knew no Host
        (b"HTTP/1.1\r\naccept: */*", 400),
        (b"HTTP/1.1\r\nhost:", 400),
        (b"HTTP/1.1\r\nhost: x\r\nhost: x", 400),
        (b"HTTP/1.0\r\nhost: x\r\nhost: y", 400),
        (b"HTTP/1.1\r\nhost: x, y", 400),
        (b"HTTP/1.1\r\nhost: evil.example/localhost", 400),
        (b"HTTP/1.1\r\nhost: evil.example@localhost", 400),
        (b"HTTP/1.1\r\nhost: [x", 400),
        (b"HTTP/1.1\r\nhost: localhost:80:80", 400),
    ],
)
def test_a_request_names_one_host(lasting: uvicorn.Server, head: bytes, status: int) -> None:
    with connect(lasting) as connection:
        connection.sendall(b"GET /small " + head + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /small?%b HTTP/1.1\r\n\r\n" % (b"x" * 65_600),
        b"GET /small HTTP/1.1\r\n%b\r\n" % (b"x:\r\n" * 300),
    ],
    ids=["a request line", "many short headers"],
)
def test_a_large_head_is_refused_that_comes_at_once(server: uvicorn.Server, head: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", [b"/small", b"/body"], ids=["that was answered", "that is served"])
@pytest.mark.parametrize(
    "sent", [b"x: y\r\n" * 1000, b"x" * 65_536], ids=["many trailers", "one endless trailer"]
)
def test_trailers_of_a_request_are_not_kept_without_bound(path: bytes, sent: bytes) -> None:
    with serving(patience=60) as server, connect(server) as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path)
        if path == b"/small":
            assert connection.recv(1000).startswith(b"HTTP/1.1 405")
        connection.sendall(b"0\r\nx: y")
        with pytest.raises(ConnectionError):
            send_a_lot(connection, sent)


def test_a_trailer_is_no_header_also_where_a_proxy_passes_it_on(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"POST /named HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nx-forwarded-for: 192.0.2.2\r\n\r\n"
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n192.0.2.1"):  # it may come in two pieces
            piece = connection.recv(1000)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", [b"/small", b"/body"], ids=["that was answered", "that is served"])
def test_a_body_of_tiny_pieces_ends_the_connection(path: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
    with serving(patience=60) as server, connect(server) as connection:
        connection.sendall(head + 2000 * b"1\r\nx\r\n" + b"0\r\n\r\n")  # of few, as encoders make them
        assert connection.recv(1000).startswith(b"HTTP/1.1 405" if path == b"/small" else b"HTTP/1.1 200")
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            send_a_lot(connection, 1000 * b"1\r\nx\r\n")


def test_the_rest_of_a_body_that_is_refused_is_dropped_for_a_while(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        started = time.monotonic()
        connection.sendall(b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 405")
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
            if pauses < 15:
                pauses += 1
                time.sleep(PATIENCE / 10)
        assert received > LARGE


BODY = b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"
DROPPED = b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"


def crowd(server: uvicorn.Server, stack: ExitStack, sent: bytes) -> list[socket.socket]:
    """As many connections as there may be, each of which has sent this and then nothing."""
    crowd = []
    for _ in range(MOST):
        crowd.append(stack.enter_context(connect(server)))
        crowd[-1].sendall(sent)
    wait_until(lambda: len(server.server_state.connections) == MOST)
    return crowd


@pytest.mark.parametrize(
    "sent",
    [BODY + b"begun", DROPPED + b"begun", ASK.replace(b"small", b"large")],
    ids=["bodies that do not come", "bodies that are dropped", "answers that nobody reads"],
)
def test_who_gets_nowhere_gives_way_to_one_that_asks(sent: bytes) -> None:
    with serving(patience=60) as server, ExitStack() as stack:
        crowd(server, stack, sent)
        began = time.monotonic()
        for _ in range(2 * MOST):
            asking = stack.enter_context(connect(server))
            asking.sendall(ASK)
            assert asking.recv(1000).startswith(b"HTTP/1.1 200")
            wait_until(lambda: len(server.server_state.connections) <= MOST)
        assert time.monotonic() - began < 20 * PATIENCE


def waiting(server: uvicorn.Server) -> list[BoundedHttp]:
    """The connections that may give way; the one that would do so next comes first."""
    assert isinstance(server.config, Config)
    return list(server.config.waiting)


def longest_waiting(server: uvicorn.Server) -> tuple[str, int] | None:
    """The other side's address of the connection that would give way next."""
    return waiting(server)[0].client


def test_who_gets_somewhere_gives_way_after_who_drips(server: uvicorn.Server) -> None:
    """A body that comes goes on when others, which began later, come byte by byte."""
    with ExitStack() as stack:
        coming = stack.enter_context(connect(server))
        coming.sendall(BODY.replace(b"1000000000", b"1000000"))
        dripping = [stack.enter_context(connect(server)) for _ in range(MOST - 1)]
        for each in dripping:
            each.sendall(BODY)
        wait_until(lambda: sum(each._in_body for each in waiting(server)) == MOST)  # all heads have come
        for _ in range(10):
            coming.sendall(b"x" * 100_000)
            for each in dripping[5:]:
                with suppress(ConnectionError):  # in the end they have given way
                    each.sendall(b"x")
            wait_until(lambda: longest_waiting(server) != coming.getsockname())
            stack.enter_context(connect(server)).sendall(BODY)
            wait_until(lambda: len(server.server_state.connections) <= MOST)
        assert coming.recv(1000).startswith(b"HTTP/1.1 200")


def test_one_whose_request_is_served_never_gives_way(server: uvicorn.Server) -> None:
    with ExitStack() as stack:
        served = stack.enter_context(connect(server))
        served.sendall(ASK.replace(b"small", b"slow"))
        for _ in range(3 * MOST):
            stack.enter_context(connect(server)).sendall(BODY)
        assert served.recv(1000).startswith(b"HTTP/1.1 200")


def test_an_answer_that_is_read_byte_by_byte_is_dropped(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(ASK.replace(b"small", b"large"))
        wait_until(lambda: len(server.server_state.connections) == 1)
        until = time.monotonic() + 20 * PATIENCE
        while server.server_state.connections:
            assert time.monotonic() < until
            connection.recv(1)
            time.sleep(PATIENCE / 10)


def test_what_is_dropped_is_taken_slowly(server: uvicorn.Server) -> None:
    """Whoever sends an endless body in vain does not keep the process busy with it."""
    with connect(server) as connection:
        connection.sendall(DROPPED)
        sent, until = 0, time.monotonic() + PATIENCE / 2
        connection.settimeout(0.01)
        while time.monotonic() < until:
            try:
                sent += connection.send(b"x" * 1024 * 1024)
            except TimeoutError:
                continue
        # Ten times as much as is taken in that time; without a bound it would be a hundred times.
        assert holds(sent / 2**20, 64, "MiB")


def test_too_many_requests_before_their_answers_end_the_connection(server: uvicorn.Server) -> None:
    with connect(server) as connection:
        connection.sendall(ASK.replace(b"small", b"slow") + ASK * 100)
        assert ended(connection)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("first", [b"", ASK], ids=["the first request", "a pipelined one"])
@pytest.mark.parametrize("path", [b"until-gone", b"after-gone"])
def test_the_request_that_is_served_learns_of_a_hang_up_though_others_came_with_it(
    path: bytes, first: bytes, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(PATIENCE, loop) as server:
        with connect(server) as connection:
            connection.sendall(first + ASK.replace(b"small", path) + ASK)
            wait_until(lambda: server.server_state.total_requests == bool(first))
            wait_until(lambda: bool(server.server_state.tasks))
        wait_until(lambda: not server.server_state.tasks)
        assert not waiting(server)
    assert "Traceback" not in caplog.text
