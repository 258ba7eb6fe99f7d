"""Customers who keep every receipt, and the comparison of these with the vendor's books."""

import base64
import json
import secrets
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from benchmarks import load
from client.data.bundled_set import ICONS
from client.vendors.teachers.tuition import VendorClient
from shared.encoding import ROWS_MEDIA_TYPE
from tests.support.vendor_process import VendorProcess, wait_until


@dataclass(frozen=True)
class Receipt:
    """What one request was charged: queries, and millionths of the currency unit."""

    queries: int
    cost_micros: int


class Customer:
    """An account's key, and what was bought with it. Thread-safe.

    `answers` counts what came of requests: `served`, `replayed`, or the code of the error. Whatever is sent
    through `embed` or `post` and answered leaves a receipt.
    """

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self.receipts: dict[str, Receipt] = {}
        self.answers: Counter[str] = Counter()
        self.http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=180,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=4),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def embed(self, inputs: Sequence[dict[str, str]], idempotency_key: str | None = None) -> httpx.Response:
        """Ask for these inputs under an idempotency key, one of their own unless it is named."""
        key = idempotency_key or secrets.token_hex(16)
        headers = {"content-type": "application/json", "idempotency-key": key}
        return self.post("/embed", content=embed_body(inputs), headers=headers)

    def raw(self, inputs: Sequence[dict[str, str]], idempotency_key: str) -> bytes:
        """The bytes of the same request, to be sent by other means."""
        return load.request(
            "/embed",
            embed_body(inputs),
            authorization=f"Bearer {self.key}",
            content_type="application/json",
            idempotency_key=idempotency_key,
        )

    def post(self, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """Send a request to be paid for; what its answer says that it cost is kept."""
        response = self.http.post(path, **request)
        self.note(response)
        return response

    def note(self, response: httpx.Response) -> None:
        """Count an answer, and keep its receipt."""
        if not response.is_success:
            self.answers[_code(response)] += 1
            return
        replayed = response.headers.get("idempotent-replayed") == "true"
        self.answers["replayed" if replayed else "served"] += 1
        request_id, receipt = _receipt(response)
        if receipt.queries and self.receipts.setdefault(request_id, receipt) != receipt:
            raise AssertionError(f"{request_id} was charged differently when it was answered again")


def embed_body(inputs: Sequence[dict[str, str]]) -> bytes:
    """A body of `POST /embed`; whoever asks again under an idempotency key sends the same bytes."""
    return json.dumps({"inputs": inputs, "encoding": "base64"}).encode()


def image(content: bytes) -> dict[str, str]:
    """An image file as an input."""
    return {"image": base64.b64encode(content).decode()}


def icons(count: int) -> list[bytes]:
    """The first files of the bundled images."""
    with zipfile.ZipFile(ICONS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:count]
        return [archive.read(name) for name in names]


def _code(response: httpx.Response) -> str:
    """The code of an error, or the status where something else than a vendor answered."""
    try:
        return str(response.json()["error"]["code"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _receipt(response: httpx.Response) -> tuple[str, Receipt]:
    """Which request pays for an answer, and what it was charged."""
    headers, cost = response.headers, int(response.headers["x-cost-micros"])
    if headers["content-type"] == ROWS_MEDIA_TYPE:
        return headers["x-embedding-id"], Receipt(int(headers["x-billed-queries"]), cost)
    body = response.json()
    assert body["usage"]["cost_micros"] == cost
    return body["id"], Receipt(body["usage"]["billed_queries"], cost)


@dataclass(frozen=True)
class Verdict:
    """How receipts and books compare, over several customers."""

    charges: int
    receipts: int
    matched: int
    open_holds: int

    @property
    def exact(self) -> bool:
        """Whether each charge is a receipt and each receipt a charge, and nothing is held."""
        return self.charges == self.receipts == self.matched and not self.open_holds

    def __str__(self) -> str:
        return (
            f"{self.charges} charges, {self.receipts} receipts, {self.matched} of them the same; "
            f"{self.open_holds} holds open"
        )


def judge(vendor: VendorProcess, customers: Sequence[Customer], *, release_seconds: float = 40) -> Verdict:
    """Verify the ledgers and compare them with the receipts, once nothing is held or that took too long.

    Raises:
        AssertionError: `vendor ledger verify` finds something wrong.
    """
    with suppress(AssertionError):  # the verdict has what is left
        wait_until(lambda: vendor.open_holds() == 0, release_seconds)
    charged: dict[str, Receipt] = {}
    received: dict[str, Receipt] = {}
    for customer in customers:
        problem = vendor.problem(customer.key)
        assert problem is None, problem
        received |= customer.receipts
        with VendorClient(vendor.url, customer.key) as client:
            for entry in client.ledger():
                if entry.kind == "charge":
                    receipt = Receipt(entry.images + entry.texts, -entry.amount_micros)
                    charged[entry.request_id or ""] = receipt
    matched = len(charged.items() & received.items())
    return Verdict(len(charged), len(received), matched, vendor.open_holds())
