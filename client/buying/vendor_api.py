"""The vendor over HTTP: requests, retries, and the vendor's errors as the client's."""

import base64
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.buying.pace import LARGEST
from client.buying.queries import Query
from client.errors import (
    ClientError,
    FingerprintChanged,
    KeyRefused,
    PriceRaised,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    UsageError,
    VendorError,
    VendorUnreachable,
)
from shared.billing import AccountStatus, Entry, EntryPage, GroupBy, UsageReport
from shared.embeddings import EmbedResponse, ModelCard, ModelList, Usage
from shared.encoding import Vector, from_wire
from shared.errors import ErrorBody, ErrorCode, ErrorDetail

DEFAULT_URL = "http://127.0.0.1:8000"
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
PUSHED_BACK = frozenset({429, 503})
TRIES = 5
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# A vendor that is restarted in the middle of a purchase is waited for this long, in seconds.
PATIENCE = 60.0
_TELL_EVERY = 5.0

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Answer:
    """What one embed request brought.

    Attributes:
        vectors: the embedding of each answered query, float32 of shape (dimensions,).
        refused: the queries that the vendor would not embed, with its reason; they were not charged.
        usage: what was charged.
        request_id: the vendor's name for the request.
    """

    vectors: dict[Query, Vector]
    refused: dict[Query, str]
    usage: Usage
    request_id: str


class VendorClient:
    """One vendor and one key. Thread-safe; a context manager, which closes the connections.

    Connection errors and the statuses 408, 409, 429, 500, 502, 503 and 504 are tried again, with exponential
    backoff, full jitter and the vendor's `Retry-After`: five times, and a purchase for a minute if that is
    longer, so that a vendor may be restarted meanwhile. Everything else is raised at once.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 120.0,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the vendor is, e.g. http://127.0.0.1:8000.
            api_key: the key, `tk_...`; `None` for what needs none.
            transport: replaces the network.
            timeout: seconds to wait for an answer.
            on_wait: told why, now and then, while requests are tried again.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self.url = url.rstrip("/")
        self.key_id = _key_id(api_key)
        self._stopping = threading.Event()
        self._on_wait = on_wait
        self._told_at = -math.inf
        if not re.fullmatch("[!-~]*", api_key or ""):
            raise UsageError(f"The API key has characters that no key has.{_KEY}")
        self._http = httpx.Client(
            base_url=_checked(self.url),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            transport=transport,
            timeout=httpx.Timeout(timeout, connect=10),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=LARGEST),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._stopping.set()

    def models(self) -> list[ModelCard]:
        """The models for sale. Needs no key."""
        return _parse(ModelList, self._send("GET", "/v1/models")).data

    def model(self, name: str | None = None) -> ModelCard:
        """One model, by name or, where only one is for sale, without.

        Raises:
            VendorError: there is none of that name, or several and no name.
        """
        cards = self.models()
        chosen = [card for card in cards if name in (None, card.id)]
        if len(chosen) == 1:
            return chosen[0]
        raise VendorError(f"{self.url} sells {', '.join(card.id for card in cards)}; name one of them.")

    def account(self) -> AccountStatus:
        """Quota, limits and spending of the key's account."""
        return _parse(AccountStatus, self._send("GET", "/v1/account"))

    def usage(self, group_by: GroupBy = "day") -> UsageReport:
        """What the account used and was billed."""
        return _parse(UsageReport, self._send("GET", "/v1/usage", params={"group_by": group_by}))

    def ledger(self) -> Iterator[Entry]:
        """All entries of the account's ledger, oldest first."""
        after = 0
        while True:
            page = _parse(EntryPage, self._send("GET", "/v1/ledger", params={"after": after, "limit": 1000}))
            if not page.data:
                return
            yield from page.data
            after = page.next_after

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        on_push_back: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Buy the embeddings of some queries, in one request that is charged once however often it is sent.

        Args:
            queries: what to embed, with its bytes; its order is part of what `idempotency_key` stands for.
            model: what to embed it with; the vendor refuses, free of charge, if its fingerprint has changed.
            idempotency_key: at most 255 characters.
            max_cost_micros: the vendor refuses rather than charge more; what was paid for before is free.
            on_push_back: called whenever the vendor says that it is asked too much (429, 503).

        Raises:
            FingerprintChanged, KeyRefused, PriceRaised, QuotaExhausted, RequestTooLarge, VendorUnreachable,
            VendorError.
        """
        headers = {
            "content-type": "application/json",
            "idempotency-key": idempotency_key,
            "x-expect-fingerprint": model.fingerprint,
        }
        if max_cost_micros is not None:
            headers["x-max-cost-micros"] = str(max_cost_micros)
        response = self._send(
            "POST",
            "/embed",
            content=embed_body(queries, model.id),
            headers=headers,
            patience=PATIENCE,
            on_push_back=on_push_back,
        )
        return _answer(_parse(EmbedResponse, response), [query for query, _ in queries], model)

    def _send(
        self,
        method: str,
        path: str,
        *,
        patience: float = 0.0,
        on_push_back: Callable[[], None] = lambda: None,
        **request: Any,  # noqa: ANN401 (httpx's own)
    ) -> httpx.Response:
        """Send until it is answered for good: `TRIES` times, or for `patience` seconds if that is longer."""
        deadline = time.monotonic() + patience
        tries = 0
        while True:
            tries += 1
            try:
                response = self._http.request(method, path, **request)
            except httpx.RequestError as error:
                if tries >= TRIES and time.monotonic() >= deadline:
                    raise self._unreachable(error) from error
                self._wait(tries, None, f"{self.url} does not answer ({type(error).__name__})")
                continue
            if response.is_success:
                return response
            if response.status_code not in RETRIED or (tries >= TRIES and time.monotonic() >= deadline):
                raise _as_error(response, self.url)
            if response.status_code in PUSHED_BACK:
                on_push_back()
            self._wait(tries, response.headers.get("retry-after"), f"{self.url} said {response.status_code}")

    def _wait(self, tries: int, retry_after: str | None, why: str) -> None:
        delay = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** (tries - 1)))
        if retry_after is not None and retry_after.isdigit():
            delay += min(int(retry_after), 3600)
        # Said when it takes a while, and not by each of the requests in flight.
        if delay > 1 and time.monotonic() - self._told_at > _TELL_EVERY:
            self._told_at = time.monotonic()
            self._on_wait(f"{why}; trying again in {delay:.0f} s.")
        if self._stopping.wait(delay):
            raise VendorUnreachable(f"{why}, and there was no time to try again.")

    def _unreachable(self, error: httpx.RequestError) -> VendorUnreachable:
        return VendorUnreachable(
            f"No vendor answers at {self.url} ({error or type(error).__name__}). Is it running, and is "
            "--vendor (or TUITION_VENDOR_URL) right? What was bought is kept; the same command goes on."
        )


def _key_id(api_key: str | None) -> str | None:
    """The public half of a key, `tk_<id>_<secret>`."""
    parts = (api_key or "").split("_")
    return parts[1] if len(parts) == 3 else None


def embed_body(queries: Sequence[tuple[Query, bytes]], model: str) -> bytes:
    """The JSON body of an embed request; the same queries always give the same bytes."""
    inputs = [
        {"text": content.decode()}
        if query.kind == "text"
        else {"image": base64.b64encode(content).decode("ascii")}
        for query, content in queries
    ]
    body = {"model": model, "inputs": inputs, "encoding": "base64", "on_error": "skip"}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r} is no address of a vendor: {error}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is no address of a vendor, such as {DEFAULT_URL}.")
    return parsed


def _parse(model: type[Model], response: httpx.Response) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise VendorError(
            f"{response.url} does not answer as a Tuition vendor does ({error.error_count()} faults)."
        ) from error


def _answer(response: EmbedResponse, queries: list[Query], model: ModelCard) -> Answer:
    if response.model_fingerprint != model.fingerprint:
        raise FingerprintChanged(
            f"The vendor answered by {response.model_fingerprint}, not by {model.fingerprint}.{_MODEL}"
        )
    try:
        vectors = {queries[e.index]: from_wire(e.embedding, response.dimensions) for e in response.data}
        refused = {queries[error.index]: error.message for error in response.errors}
    except (IndexError, ValueError) as error:
        raise VendorError(f"The vendor's answer {response.id} makes no sense: {error}.") from error
    if vectors.keys() & refused.keys() or vectors.keys() | refused.keys() != set(queries):
        raise VendorError(f"The vendor's answer {response.id} does not match what was asked.")
    usage = response.usage
    if response.replayed and not usage.billed_queries:
        # Free now because it was paid for then; the receipt that was lost said so.
        images, texts = (sum(query.kind == kind for query in vectors) for kind in ("image", "text"))
        cost = model.prices.cost_micros(images=images, texts=texts)
        usage = Usage(images=images, texts=texts, billed_queries=images + texts, cost_micros=cost)
    if not usage.images + usage.texts == usage.billed_queries == len(vectors) or usage.cost_micros < 0:
        raise VendorError(
            f"The vendor answered {len(vectors)} queries in {response.id} and billed {usage.billed_queries}."
        )
    return Answer(vectors, refused, usage, response.id)


def _as_error(response: httpx.Response, url: str) -> ClientError:
    """The vendor's error body as one of ours; other bodies come from a proxy or from no vendor at all."""
    try:
        detail = ErrorBody.model_validate_json(response.content).error
    except ValidationError:
        return VendorError(f"{url} answered with status {response.status_code}. Is it a Tuition vendor?")
    other = VendorError if response.is_server_error or response.status_code in RETRIED else RequestRefused
    kind, advice = _ERRORS.get(detail.code, (other, ""))
    return kind(f"The vendor says: {_clean(detail)}{advice}")


def _clean(detail: ErrorDetail) -> str:
    """The vendor's message without what a terminal would obey."""
    message = "".join(c for c in detail.message[:500] if c.isprintable())
    return f"{message} ({detail.code}, request {detail.request_id[:64]})."


_KEY = " Give the right key in TUITION_API_KEY or with --api-key-file."
_QUOTA = " What was bought is kept. Once the vendor has raised the limit, the same command goes on from here."
_MODEL = (
    " What was bought from the former model is kept, but the two do not mix: start a new run for the new one."
)
_PRICE = " Its price has risen. What was bought is kept; the same command goes on at the new price."
_ERRORS: dict[str, tuple[type[ClientError], str]] = {
    ErrorCode.INVALID_API_KEY: (KeyRefused, _KEY),
    ErrorCode.KEY_REVOKED: (KeyRefused, _KEY),
    ErrorCode.ACCOUNT_SUSPENDED: (KeyRefused, ""),
    ErrorCode.QUOTA_EXHAUSTED: (QuotaExhausted, _QUOTA),
    ErrorCode.SPEND_LIMIT_REACHED: (QuotaExhausted, _QUOTA),
    ErrorCode.INSUFFICIENT_CREDIT: (QuotaExhausted, _QUOTA),
    ErrorCode.MAX_COST_EXCEEDED: (PriceRaised, _PRICE),
    ErrorCode.FINGERPRINT_MISMATCH: (FingerprintChanged, _MODEL),
    ErrorCode.REQUEST_TOO_LARGE: (RequestTooLarge, ""),
}
