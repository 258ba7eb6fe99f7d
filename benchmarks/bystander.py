"""Who stands beside an attack: a customer who waits for answers, and who asks whether the vendor lives."""

import json
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from benchmarks import load
from benchmarks.background import Background
from benchmarks.barrage import read_answer
from benchmarks.customers import icons

PATIENCE_SECONDS = 30.0  # for an answer, before it counts as none


@dataclass
class Waits:
    """Seconds that the good customer waited for answers, and answers that were none, by status."""

    texts: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return float(p50), float(p99)


class GoodCustomer:
    """Asks one thing at a time, on one connection that it makes anew when it is closed."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._connection: socket.socket | None = None
        files = icons(256)
        self._images = [load.embed(key, *load.form(files[start : start + 32])) for start in range(0, 256, 32)]
        self._key = key
        self._numbers = count()

    def ask(self, seconds: float) -> Waits:
        """Ask until the time is over, and each kind once at least."""
        waits, ends = Waits(), time.monotonic() + seconds
        while time.monotonic() < ends or not waits.images:
            number = next(self._numbers)
            text = json.dumps({"inputs": [{"text": f"a sketch of number {number}"}]}).encode()
            for request, seen in (
                (load.embed(self._key, text, "application/json"), waits.texts),
                (self._images[number % len(self._images)], waits.images),
            ):
                began = time.perf_counter()
                status = self._answer(request)
                seen.append(time.perf_counter() - began)
                if status != "200":
                    waits.refused[status] += 1
        return waits

    def _answer(self, request: bytes) -> str:
        # A connection that stayed open may have been closed meanwhile: then it is made anew, once.
        for connection in (self._connection, None):
            try:
                if connection is None:
                    address = ("127.0.0.1", self._port)
                    connection = self._connection = socket.create_connection(address, PATIENCE_SECONDS)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(request)
                with connection.makefile("rb") as answers:
                    status, stays = read_answer(answers)
                if not stays:
                    self.close()
                return status
            except TimeoutError:
                self.close()
                return "none"
            except OSError:
                self.close()
        return "cut"

    def close(self) -> None:
        """Close its connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class LivezWatch(Background):
    """Asks `/livez` on new connections, five times a second, while it is a context; `worst` in seconds."""

    def __init__(self, port: int) -> None:
        super().__init__(every=0.2)
        self.worst = 0.0
        self._port = port

    def tick(self) -> None:
        """Ask once."""
        asked = b"GET /livez HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
        began = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS) as connection:
                connection.sendall(asked)
                with connection.makefile("rb") as answers:
                    read_answer(answers)
            seconds = time.perf_counter() - began
        except OSError:
            seconds = PATIENCE_SECONDS  # no answer at all
        self.worst = max(self.worst, seconds)
