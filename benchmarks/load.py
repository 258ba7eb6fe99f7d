"""A load that costs next to nothing itself: requests made beforehand, on connections that stay open."""

import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import BinaryIO

import numpy as np


@dataclass(frozen=True)
class Load:
    """What came of it: answers a second, percentiles of their seconds, and the cores that the load took."""

    answers_a_second: float
    p50: float
    p99: float
    cores: float


def request(path: str, body: bytes, **headers: str) -> bytes:
    """A whole HTTP request."""
    head = [f"POST {path} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


def embed(key: str, body: bytes, content_type: str, path: str = "/embed", **headers: str) -> bytes:
    """A whole request that asks for embeddings as raw rows."""
    headers |= {"authorization": f"Bearer {key}", "content_type": content_type}
    return request(path, body, accept="application/octet-stream", **headers)


def form(files: Sequence[bytes], field: str = "image") -> tuple[bytes, str]:
    """Image files as `multipart/form-data`, and its content type."""
    boundary = "a-boundary-that-no-image-holds"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"; filename="x"\r\n\r\n'.encode()
    parts = b"".join(head + file + b"\r\n" for file in files)
    return parts + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def keyed(asked: bytes) -> bytes:
    """A whole request with an idempotency key that no other has."""
    first, _, rest = asked.partition(b"\r\n")
    return b"\r\n".join((first, f"idempotency-key: {secrets.token_hex(16)}".encode(), rest))


def run(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    *,
    apart: bool = False,
    with_keys: bool = False,
) -> Load:
    """Send requests in turn on each connection, one after the other, until the time is over.

    Each connection sends all of them; `apart`, each sends others, and none is sent twice while they last.
    They may come `with_keys`: each has an idempotency key of its own.
    The first answer on each connection, before there is a queue, does not count, nor the last ones, after it.

    Raises:
        RuntimeError: an answer is not 200, or there are too few of them to tell a rate.
    """
    over = threading.Event()

    def call(number: int) -> list[tuple[float, float]]:
        answered = []
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            connection.makefile("rb") as answers,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for each in islice(cycle(requests), number, None, connections if apart else 1):
                if over.is_set():
                    break
                sent = time.perf_counter()
                connection.sendall(keyed(each) if with_keys else each)
                _read(answers)
                answered.append((sent, time.perf_counter()))
        return answered

    with ThreadPoolExecutor(connections) as pool:
        cpu = time.process_time()
        calls = pool.map(call, range(connections))
        time.sleep(seconds)
        ended = time.perf_counter()
        cpu = time.process_time() - cpu
        over.set()
        spans = [span for each in calls for span in each[1:] if span[1] <= ended]
    ends = sorted(end for _, end in spans)
    if len(ends) < 2:
        raise RuntimeError("too few answers to tell a rate; measure for longer")
    p50, p99 = np.percentile([end - start for start, end in spans], [50, 99])
    return Load((len(ends) - 1) / (ends[-1] - ends[0]), float(p50), float(p99), cpu / seconds)


def _read(answers: BinaryIO) -> None:
    status, length = answers.readline(), 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = answers.read(length)
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r}: {body[:500]!r}")
