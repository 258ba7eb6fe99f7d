"""Files that go and come slowly: what goes on is waited for, and what only trickles in is given up."""

import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from socket import socket

import httpx
import pytest

from client.errors import VendorUnreachable
from client.vendors import transport
from client.vendors.teachers.tuition import VendorClient
from shared.batches import FileObject
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "TRIES", 1)
    monkeypatch.setattr(transport, "PATIENCE", 0.0)


class _Trickling(TcpProxy):
    """Answers every request by a byte each hundredth of a second, for some five seconds."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    def forward(self, caller: socket) -> None:
        with caller, suppress(OSError):
            caller.recv(2**16)
            caller.sendall(f"HTTP/1.1 {self._status} Said\r\ncontent-length: 500\r\n\r\n".encode())
            for _ in range(500):
                caller.sendall(b"x")
                time.sleep(0.01)


@pytest.mark.parametrize("status", [200, 500])
def test_a_file_that_only_trickles_in_is_given_up(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TRICKLES", 0.05)
    with (
        _Trickling(status) as vendor,
        VendorClient(f"http://127.0.0.1:{vendor.port}", "tk_1_s", timeout=10) as client,
        pytest.raises(VendorUnreachable, match="the answer does not end"),
    ):
        client.bulk.download("file", BytesIO(), 2**20)


class _Slow(httpx.SyncByteStream):
    """Twenty pieces, one in nearly all of the time that they have; `now` is what its clock shows."""

    def __init__(self, piece: bytes) -> None:
        self.now = 0.0
        self._piece = piece

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(20):
            self.now += 590.0
            yield self._piece


def _fetch(stream: _Slow, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("client.vendors.transport.time.monotonic", lambda: stream.now)
    edge = httpx.MockTransport(lambda _: httpx.Response(200, stream=stream))
    file = BytesIO()
    with VendorClient("http://vendor", "tk_1_s", transport=edge, timeout=120) as client:
        client.bulk.download("file", file, 2**26)
    return len(file.getvalue())


def test_a_file_that_goes_on_is_waited_for_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fetch(_Slow(bytes(2**20)), monkeypatch) == 20 * 2**20


def test_a_file_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Slow(bytes(2**18))
    with pytest.raises(VendorUnreachable, match="the answer does not end"):
        _fetch(stream, monkeypatch)
    assert stream.now == 2 * 590


def test_a_file_may_be_sent_for_longer_than_an_answer_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("client.vendors.transport.time.monotonic", lambda: now)
    stored = FileObject(id="file-1", bytes=1, created_at=0, expires_at=1, filename="f", purpose="batch")

    def takes_its_time(_: httpx.Request) -> httpx.Response:
        nonlocal now
        now += 3600.0
        return httpx.Response(200, json=stored.model_dump())

    edge = httpx.MockTransport(takes_its_time)
    with VendorClient("http://vendor", "tk_1_s", transport=edge, timeout=120) as client:
        assert client.bulk.send_file(BytesIO(b"line\n")) == stored
