"""Does the vendor grow? Mixed load on one real process, whose memory, descriptors and books are watched.

    make bench-soak

Callers of several accounts each do one thing after the other, drawn at random: texts, images, big requests,
all forms of answer, what must be refused, repeats under one idempotency key, bodies that come slowly, and
hanging up before the answer, then asking for it again. After the warm-up, the first quarter, memory and
descriptors must be flat: the mean of the last quarter is within 5% of that of the second. Every receipt must
be a charge and every charge a receipt.
"""

import argparse
import os
import random
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import httpx

from benchmarks import load
from benchmarks.customers import Customer, icons, image, judge
from benchmarks.watching import Sample, Watch
from shared.encoding import ROWS_MEDIA_TYPE
from tests.support.photograph import photograph
from tests.support.vendor_process import VendorProcess
from tests.vendor_service import fuzzing

CALLERS = 8
ROWS = 8  # of the table
GROWTH = 0.05  # of the second quarter's mean, which the last quarter's may be away from it
# Vectors of texts are kept; so few bytes for each account are full, and are turned over, after minutes.
SETTINGS = "VENDOR_TEXT_CACHE_BYTES=4194304\n"


class Load:
    """What the callers do. Each deed asks as some customer and checks what must be so."""

    def __init__(self, url: str, customers: Sequence[Customer], poor: Customer, hasty: Customer) -> None:
        self._port = int(url.rpartition(":")[2])
        self._customers = customers
        self._poor, self._hasty = poor, hasty
        self._icons = icons(400)
        buffer = BytesIO()
        photograph(4000, 3000).save(buffer, "JPEG", quality=90)
        self._photograph = buffer.getvalue()
        self.done: Counter[str] = Counter()
        self._deeds: dict[Callable[[Customer, random.Random], None], int] = {
            self._texts: 40,
            self._images: 25,
            self._rows: 25,
            self._openai: 10,
            self._repeat: 10,
            self._hang_up: 10,
            self._mutated: 10,
            self._refused: 10,
            self._look: 10,
            self._slow: 4,
            self._many: 2,
            self._large: 2,
        }

    def call(self, number: int, over: threading.Event) -> None:
        """Do one thing after the other until it is over."""
        rng = random.Random(number)
        deeds, weights = list(self._deeds), list(self._deeds.values())
        while not over.is_set():
            (deed,) = rng.choices(deeds, weights)
            deed(rng.choice(self._customers), rng)
            self.done[deed.__name__.strip("_")] += 1

    def _texts(self, customer: Customer, rng: random.Random) -> None:
        """A few texts, half of which nobody has asked for before."""
        encoding = rng.choice(["float", "base64"])
        _served(customer.post("/embed", json={"inputs": _some_texts(rng, 8), "encoding": encoding}))

    def _images(self, customer: Customer, rng: random.Random) -> None:
        inputs = [image(icon) for icon in rng.sample(self._icons, rng.randint(1, 32))]
        _served(customer.embed(inputs))

    def _rows(self, customer: Customer, rng: random.Random) -> None:
        """A form of files, answered as raw rows, on a connection of its own now and then."""
        body, content_type = load.form(rng.sample(self._icons, rng.randint(1, 32)))
        accept = ROWS_MEDIA_TYPE + rng.choice(["", ";dtype=float16"])
        headers = {"content-type": content_type, "accept": accept}
        if rng.random() < 0.2:
            headers["connection"] = "close"
        _served(customer.post("/embed", content=body, headers=headers))

    def _openai(self, customer: Customer, rng: random.Random) -> None:
        texts = [each["text"] for each in _some_texts(rng, 8)]
        _served(customer.post("/v1/embeddings", json={"model": "icon-clip", "input": texts}))

    def _repeat(self, customer: Customer, rng: random.Random) -> None:
        """Three times under one key: paid for once, and always the same."""
        inputs, key = [*_some_texts(rng, 3), image(rng.choice(self._icons))], secrets.token_hex(16)
        answers = [_served(customer.embed(inputs, key)).json() for _ in range(3)]
        assert len({answer["id"] for answer in answers}) == 1
        assert [answer["replayed"] for answer in answers] == [False, True, True]

    def _hang_up(self, customer: Customer, rng: random.Random) -> None:
        """Be gone at some moment before the answer, then ask for it again, under the same key."""
        inputs, key = [image(icon) for icon in rng.sample(self._icons, 8)], secrets.token_hex(16)
        sent = customer.raw(inputs, key)
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall(sent[: rng.choice([len(sent), rng.randrange(len(sent))])])
            time.sleep(rng.uniform(0, 0.3))
        _finished(customer, inputs, key)

    def _slow(self, customer: Customer, rng: random.Random) -> None:
        """A body that takes ten seconds to come, some of which never come whole."""
        inputs, key = [image(icon) for icon in rng.sample(self._icons, 4)], secrets.token_hex(16)
        sent = customer.raw(inputs, key)
        size = len(sent) // 20 + 1
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            for piece in pieces[: rng.choice([len(pieces), rng.randrange(len(pieces))])]:
                connection.sendall(piece)
                time.sleep(0.5)
        _finished(customer, inputs, key)

    def _mutated(self, customer: Customer, rng: random.Random) -> None:
        """Images and bodies that nobody means well; some are served all the same."""
        asked = fuzzing.request(rng.randrange(10**6))
        answer = customer.post(asked.path, content=asked.body, headers={"content-type": asked.content_type})
        assert answer.status_code < 500, answer.text

    def _refused(self, customer: Customer, rng: random.Random) -> None:
        """A wrong key, an account without quota, one in a hurry, too many inputs, another model."""
        text = {"text": "a cat"}
        nobody = {"authorization": "Bearer tk_no_key"}
        refused: list[tuple[str, Callable[[], httpx.Response]]] = [
            ("invalid_api_key", lambda: customer.post("/embed", json={"inputs": [text]}, headers=nobody)),
            ("model_not_found", lambda: customer.post("/embed", json={"inputs": [text], "model": "none"})),
            ("too_many_inputs", lambda: customer.embed([text] * 257)),
            ("quota_exhausted", lambda: self._poor.embed([text])),
            ("rate_limited", lambda: self._hasty.embed([text] * 100)),
        ]
        code, ask = rng.choice(refused)
        answer = ask()
        # Now and then, even a customer in a hurry has waited for long enough.
        assert answer.is_error or code == "rate_limited", code
        assert answer.is_success or answer.json()["error"]["code"] == code, answer.text

    def _look(self, customer: Customer, rng: random.Random) -> None:
        """What is free: account, usage, a page of the ledger, models, metrics, health."""
        path = rng.choice(
            [
                "/v1/account",
                "/v1/usage?group_by=kind",
                "/v1/ledger?limit=100",
                "/v1/models",
                "/metrics",
                "/readyz",
            ]
        )
        assert customer.http.get(path).status_code == 200

    def _many(self, customer: Customer, rng: random.Random) -> None:
        """As many inputs as a request may have."""
        _served(customer.embed([image(icon) for icon in rng.sample(self._icons, 256)]))

    def _large(self, customer: Customer, _: random.Random) -> None:
        """A photograph of 12 megapixels."""
        _served(customer.embed([image(self._photograph)]))


def _served(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code == 200, answer.text
    return answer


def _finished(customer: Customer, inputs: list[dict[str, str]], key: str) -> None:
    """Ask again for what was begun, until nobody is at it any more: whatever came of it, it is paid once."""
    while (answer := customer.embed(inputs, key)).status_code == 409:
        time.sleep(0.05)
    _served(answer)


def _some_texts(rng: random.Random, most: int) -> list[dict[str, str]]:
    """Texts, half of which have most likely been asked for before."""
    numbers = [rng.randrange(rng.choice([500, 10**9])) for _ in range(rng.randint(1, most))]
    return [{"text": f"a photo of number {number}"} for number in numbers]


def main() -> None:
    """Load the vendor, print what it kept, and fail where it grew or where its books are not exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    seconds = 60 * parser.parse_args().minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        (folder / ".env").write_text(SETTINGS)
        vendor = stack.enter_context(VendorProcess(folder, threads=os.cpu_count() or 1))
        keys = [vendor.create_key(), vendor.create_key(quota=10**9), vendor.create_key(credit_micros=10**12)]
        keys += [vendor.create_key(quota=0), vendor.create_key(queries_per_second=5)]
        customers = [stack.enter_context(Customer(vendor.url, key)) for key in keys]
        *steady, poor, hasty = customers
        work = Load(vendor.url, steady, poor, hasty)
        over = threading.Event()
        watch = stack.enter_context(Watch(lambda: vendor.pid))
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(work.call, number, over) for number in range(CALLERS)]
            wait(calls, seconds, FIRST_EXCEPTION)
            samples = list(watch.samples)
            over.set()
        for call in calls:
            call.result()
        answers = sum((each.answers for each in customers), Counter[str]())
        print("done:", ", ".join(f"{count} {deed}" for deed, count in work.done.most_common()))
        print("answers:", ", ".join(f"{count} {code}" for code, count in answers.most_common()))
        _tell(samples)
        verdict = judge(vendor, customers)
        print(f"books: {verdict}; ledgers verified")
        assert verdict.exact
        for what in ("resident", "descriptors"):
            _check_flat(what, samples)


def _tell(samples: Sequence[Sample]) -> None:
    print("| minutes | resident MB, mean | most | descriptors, mean | most |\n|---|---|---|---|---|")
    for number in range(ROWS):
        part = _part(samples, number, ROWS)
        memory = [each.resident / 1e6 for each in part]
        files = [each.descriptors for each in part]
        until = part[-1].seconds / 60
        print(
            f"| to {until:.1f} | {mean(memory):.0f} | {max(memory):.0f} | {mean(files):.1f} | {max(files)} |"
        )


def _check_flat(what: str, samples: Sequence[Sample]) -> None:
    second, last = (mean(getattr(each, what) for each in _part(samples, number, 4)) for number in (1, 3))
    print(f"{what}: the last quarter's mean is {last / second:.3f} of the second's")
    assert abs(last / second - 1) <= GROWTH


def _part(samples: Sequence[Sample], number: int, parts: int) -> Sequence[Sample]:
    return samples[number * len(samples) // parts : (number + 1) * len(samples) // parts]


if __name__ == "__main__":
    main()
