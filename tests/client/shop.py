"""A scripted vendor that keeps books of its own, a cache, and teachers that buy from that vendor."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import numpy as np

from client.cache.cache import EmbeddingCache
from client.cache.notes import ContentOf, file_content
from client.purchase.budget import Budget
from client.purchase.buyer import Buyer
from client.purchase.checkout import Checkout
from client.purchase.requests import Requests
from client.purchase.result import Tally
from client.purchase.settlement import Settlement
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.embeddings import ModelCard
from shared.encoding import to_base64
from shared.receipts import KEYS_PATH
from tests.client.cards import MODEL
from tests.client.forms import read_form

LIMITS = MODEL.limits
VECTOR = to_base64(np.array([0.6, 0.8], dtype=np.float32))


class Vendor(httpx.BaseTransport):
    """Charges each idempotency key once; refuses texts that begin with "bad"; stops at its quota."""

    def __init__(self, quota: int | None = None) -> None:
        self.paid: dict[str, int] = {}
        self.sizes: list[int] = []  # of each request: how many queries, and how many bytes
        self.bytes: list[int] = []
        self.too_large = 0  # requests that were
        self.quota = quota
        self.former: set[str] = set()  # keys that were paid for under another model
        self.spent: set[str] = set()  # keys that it answers no more
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    @property
    def charged(self) -> int:
        return sum(self.paid.values())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == KEYS_PATH:
            return refusal(404, "not_found")  # it does not sign
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [MODEL.model_dump()]})
        self.before()
        if len(request.content) > LIMITS.max_request_bytes:
            self.too_large += 1
            return refusal(413, "request_too_large")
        _, inputs = read_form(request)
        good = [i for i, (_, content) in enumerate(inputs) if not content.startswith(b"bad")]
        images = sum(inputs[i][0] == "image" for i in good)
        key = request.headers["idempotency-key"]
        with self._lock:
            self.sizes.append(len(inputs))
            self.bytes.append(len(request.content))
            replayed = key in self.paid
            if key in self.spent:
                return refusal(410, "idempotency_key_expired")
            if key in self.former:
                return refusal(412, "fingerprint_mismatch")
            cost = 100 * images + 20 * (len(good) - images)
            if not replayed and cost > int(request.headers["x-max-cost-micros"]):
                return refusal(402, "max_cost_exceeded")
            if not replayed and self.quota is not None and self.charged + len(good) > self.quota:
                return refusal(402, "quota_exhausted")
            self.paid[key] = len(good)
        self.after()
        usage = {"images": images, "texts": len(good) - images, "billed_queries": len(good)}
        answer = {
            "id": f"req_{key[:8]}",
            "model": "m",
            "model_fingerprint": "fp_1",
            "dimensions": 2,
            "data": [{"index": i, "kind": "text", "embedding": VECTOR} for i in good],
            "errors": [
                {"index": i, "code": "c", "message": "bad"} for i in range(len(inputs)) if i not in good
            ],
            "usage": {**usage, "cost_micros": cost},
            "replayed": replayed,
        }
        return httpx.Response(200, json=answer)


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    detail = {"code": code, "type": "t", "message": "m", "request_id": "r", "retryable": False}
    return httpx.Response(status, json={"error": detail}, headers=headers)


class Shop:
    """A vendor, a cache, and teachers that use both."""

    def __init__(
        self, folder: Path, quota: int | None = None, *, content_of: ContentOf = file_content
    ) -> None:
        self.vendor = Vendor(quota)
        self.client = VendorClient("http://vendor", "tk_1", transport=self.vendor)
        self.cache = EmbeddingCache(folder / "cache.db", content_of=content_of)

    def teacher(self, budget: int | None = None, model: ModelCard = MODEL) -> Buyer:
        return Buyer(self.client, self.cache, model=model, run_id="run", budget=budget)

    def settlement(self, queries: Sequence[Query]) -> Settlement:
        """What a purchase of these queries settles."""
        checkout, tally = Checkout(self.client, self.cache, MODEL, "run", Budget(None)), Tally(lambda _: None)
        requests = Requests(checkout, tally, lambda: None)
        settlement = Settlement(checkout, requests, None, False, tally, time.sleep, lambda _: None)
        settlement.wanted = {query: query for query in queries}
        return settlement

    def close(self) -> None:
        self.client.__exit__()
        self.cache.__exit__()


def texts(count: int, word: str = "good") -> list[Query]:
    return [Query.text(f"{word} {i}") for i in range(count)]


def images(folder: Path, sizes: list[int]) -> list[Query]:
    folder.mkdir(exist_ok=True)
    queries = []
    for i, size in enumerate(sizes):
        path = folder / f"{i}.png"
        path.write_bytes(i.to_bytes(4, "big") * (size // 4))
        queries.append(Query.image_file(path))
    return queries
