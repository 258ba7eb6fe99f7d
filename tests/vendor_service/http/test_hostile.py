"""Strangers who send the worst at a real process: nobody else waits, and memory stays within its bound."""

import resource
import socket
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.figures import holds
from tests.support.vendor_process import VendorProcess, forget_peak, resident_bytes
from tests.vendor_service.hostile_bodies import (
    BODIES,
    MEBIBYTE,
    connect,
    half_sent,
    head,
    livez_seconds,
    sent_beside,
)

CAT = {"inputs": [{"text": "a photo of a cat"}]}
HALF_SENT = 2000
AT_ONCE = 8
SIZE = 32 * MEBIBYTE
# As `docs/operations.md` has it: a body, as much again while it is taken apart, and what allocators keep.
MOST_MEMORY = AT_ONCE * 2 * SIZE + 128 * MEBIBYTE
READERS = 125


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """Room for some thousand sockets, which are closed at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * HALF_SENT), hard))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_all(vendor: VendorProcess, api_key: str) -> None:
    """Ask as somebody who means well, on a connection of one's own each time."""
    for path in ("/livez", "/readyz"):
        assert httpx.get(vendor.url + path, timeout=30).status_code == 200
    headers = {"authorization": f"Bearer {api_key}"}
    answer = httpx.post(f"{vendor.url}/embed", json=CAT, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


@pytest.mark.long
@pytest.mark.parametrize(
    "descriptors",
    [
        pytest.param(500, id="few descriptors"),
        pytest.param(None, id="many descriptors", marks=pytest.mark.slow),
    ],
)
def test_thousands_of_half_sent_bodies_keep_nobody_out(
    tmp_path: Path, sockets: ExitStack, descriptors: int | None
) -> None:
    with VendorProcess(tmp_path, descriptors=descriptors) as vendor:
        bad, good = vendor.create_key(), vendor.create_key()
        asked = [
            half_sent(path, key, chunked=chunked)
            for path in ("/embed", "/v1/estimate", "/v1/embeddings", "/no/such/path", "/livez")
            for key in (bad, None)
            for chunked in (False, True)
        ]
        # Most of them where they cost most: with a good key, where a body is waited for.
        asked += [half_sent("/embed", bad)] * len(asked)
        for number in range(HALF_SENT):
            connection = sockets.enter_context(connect(vendor.url))
            connection.sendall(asked[number % len(asked)])
            if number % 600 == 599:
                ask_all(vendor, good)
        ask_all(vendor, good)


def test_the_worst_bodies_stop_nobody_and_take_no_more_memory_than_is_said(tmp_path: Path) -> None:
    with VendorProcess(tmp_path) as vendor:
        keys = [vendor.create_key() for _ in range(AT_ONCE)]
        ask_all(vendor, keys[0])
        before = forget_peak(vendor.pid)
        took: list[float] = []
        with sent_beside(vendor.url, keys, list(BODIES), SIZE):
            for _ in range(10):
                took += livez_seconds(vendor.url, 0.5)
            most = resident_bytes(vendor.pid, "VmHWM")
        # The strict figure, 0.3 s for the slowest, is for a machine that does nothing else. Where four others
        # wanted each of two cores the median was 0.02 s and this quantile 0.12 s: that leaves room for more.
        assert holds(statistics.median(took), 0.3, "s")
        assert holds(statistics.quantiles(took, n=20)[-1], 1.5, "s")
        assert holds((most - before) / MEBIBYTE, MOST_MEMORY / MEBIBYTE, "MiB")
        ask_all(vendor, keys[0])


def test_large_answers_that_nobody_reads_are_not_kept_without_bound(
    tmp_path: Path, sockets: ExitStack
) -> None:
    """As many answers as there are readers would be 165 MB; 32 MiB are allowed to be in hand."""
    allowed = 32 * MEBIBYTE
    body = b'{"inputs":[%b]}' % b",".join([b'{"text":"a"}'] * 256)
    environment = {"VENDOR_MAX_QUEUED_BYTES": str(allowed)}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    with VendorProcess(tmp_path) as vendor:
        slow, good = vendor.create_key(), vendor.create_key()
        headers = {"authorization": f"Bearer {good}", "content-type": "application/json"}
        for _ in range(3):  # what the model itself takes for so many texts
            assert httpx.post(f"{vendor.url}/embed", content=body, headers=headers, timeout=60).is_success
        before = resident_bytes(vendor.pid)
        lines = (f"content-length: {len(body)}", "content-type: application/json")
        for number in range(READERS):
            connection = socket.socket()
            sockets.enter_context(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            address = connect(vendor.url)
            with address:
                connection.connect(address.getpeername())
            connection.sendall(head("/embed", *lines, api_key=slow) + body)
            if number % 50 == 49:
                ask_all(vendor, good)
        ask_all(vendor, good)
        more = resident_bytes(vendor.pid) - before
        assert holds(more / MEBIBYTE, 3 * allowed / MEBIBYTE, "MiB")
