"""Callers who ask without end, and each time until they are answered."""

import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from benchmarks.customers import Customer, icons, image

_CALLERS = 6
_PAUSE_SECONDS = 0.5  # before something is asked again
_ASKED_AGAIN = frozenset({409, 429, 502, 503, 504})


class LoadGenerator:
    """Callers that ask for texts and images for some customers, under idempotency keys.

    `cut` counts connections that ended without an answer, `longest` is the most seconds from asking for
    something first to its answer.
    """

    def __init__(self, customers: Sequence[Customer]) -> None:
        self.cut = 0
        self.longest = 0.0
        self._customers = customers
        self._icons = icons(100)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Have them ask while this is a context; at its end all that was begun is answered.

        Raises:
            AssertionError: an answer was none that one may expect.
        """
        over = threading.Event()
        with ThreadPoolExecutor(_CALLERS) as pool:
            calls = [pool.submit(self._call, number, over) for number in range(_CALLERS)]
            try:
                yield
            finally:
                over.set()
        for call in calls:
            call.result()

    def _call(self, number: int, over: threading.Event) -> None:
        rng = random.Random(number)
        while not over.is_set():
            inputs = [{"text": f"a photo of number {rng.randrange(10**9)}"} for _ in range(rng.randint(1, 4))]
            if rng.random() < 0.5:
                inputs = [image(icon) for icon in rng.sample(self._icons, 8)]
            began = time.monotonic()
            self._ask_until_answered(rng.choice(self._customers), inputs)
            self.longest = max(self.longest, time.monotonic() - began)

    def _ask_until_answered(self, customer: Customer, inputs: list[dict[str, str]]) -> None:
        key, status = secrets.token_hex(16), 0
        while status != 200:
            try:
                status = customer.embed(inputs, key).status_code
            except httpx.TransportError:
                self.cut += 1
            else:
                assert status == 200 or status in _ASKED_AGAIN, f"a request was answered with {status}"
            if status != 200:
                time.sleep(_PAUSE_SECONDS)
