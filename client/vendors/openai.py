"""Vendors that speak OpenAI's embeddings API, each in the dialect in which it takes images.

- "infinity": strings, which `"modality": "image"` says are data-URIs, as infinity-emb takes them.
- "jina": items `{"text": ...}` and `{"image": ...}`, as Jina's CLIP API takes them.

Such a vendor knows no idempotency, states no price and no fingerprint. What can be made up for is made up for
here: see `OpenAIVendor`.
"""

import base64
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import httpx
import numpy as np
from pydantic import BaseModel

from client.errors import (
    ClientError,
    FingerprintChanged,
    InputRefused,
    KeyRefused,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    VendorError,
)
from client.vendors import transport, wire
from client.vendors.heads import SignedHead
from client.vendors.model_cards import PinnedCard
from client.vendors.query import Query
from client.vendors.transport import HttpTransport, parse
from client.vendors.vendor import EmbedResult
from shared.billing import Quote
from shared.embeddings import Kind, Limits, ModelCard, Prices, Usage
from shared.encoding import Vector, from_wire

Dialect = Literal["infinity", "jina"]

# After these the request may have been served, and charged, all the same.
_UNSURE = frozenset({408, 500, 502, 504})
_MOST_DIMENSIONS = 2**16
# Of what such a vendor takes, little is published; it says 413 or 400 to more, and then gets less.
_LIMITS = Limits(
    max_inputs=32, max_request_bytes=16 * 2**20, max_image_bytes=10 * 2**20, max_image_pixels=50_000_000
)


class OpenAIVendor:
    """One vendor with OpenAI's embeddings API, and one key. Thread-safe; a context manager.

    - **Fingerprint**: none; `client/purchase/identification.py` makes up for it. A model that is exchanged in
      the middle of a run is noticed only by the name or the dimensions that it answers with.
    - **Lost answers**: a request that may have been served is sent again all the same, but counts as paid.
    - **Prices**: not known; all costs are 0, and only a budget of queries can be kept.
    - Vectors are normalised here.
    """

    repeats_are_free = False
    states_prices = False

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        dialect: Dialect,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 120.0,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: what `/embeddings` follows, e.g. http://127.0.0.1:7997 or https://api.jina.ai/v1.
            api_key: the key; `None` for a vendor that takes none.
            dialect: how the vendor takes images.
            transport: replaces the network.
            timeout: seconds to wait for an answer.
            on_wait: told why, now and then, while requests are tried again.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self._http = HttpTransport(
            url,
            api_key,
            as_error=_as_error,
            transport=transport,
            timeout=timeout,
            on_wait=on_wait,
            doubt_lasts=False,
        )
        self.url = self._http.url
        self.key_id: str | None = None
        self._dialect = dialect

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def head(self, *, within: float | None = None) -> SignedHead | None:  # noqa: ARG002
        """Nothing: such a vendor keeps no ledger that it shows."""
        return None

    def signed_card(
        self,
        name: str,  # noqa: ARG002
        *,
        within: float | None = None,  # noqa: ARG002
    ) -> PinnedCard | None:
        """Nothing: such a vendor promises no fingerprint."""
        return None

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._http.stop()

    def model(
        self,
        name: str | None = None,
        *,
        fingerprint: str | None = None,  # noqa: ARG002 (as `Vendor` has it)
    ) -> ModelCard:
        """The model of a name, or the only one for sale; the vendor says no more of it.

        Raises:
            VendorError: there are several models and no name.
        """
        return ModelCard(
            id=name or self._only_model(),
            owned_by=self._dialect,
            dimensions=0,
            fingerprint="",
            tolerance=0.0,
            dtype="unknown",
            image_size=0,
            prices=Prices(image_micros=0, text_micros=0),
            limits=_LIMITS,
        )

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,  # noqa: ARG002 (nobody here would keep to it)
        on_try: Callable[[], None] = lambda: None,
        on_push_back: Callable[[], None] = lambda: None,
        on_unsure: Callable[[], None] = lambda: None,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, all of one kind, in one request; see `Vendor.embed`.

        Raises:
            FingerprintChanged, InputRefused, KeyRefused, QuotaExhausted, RequestTooLarge, VendorUnreachable,
            VendorError.
        """
        vectors = self._ask(
            queries,
            model.id,
            dimensions=model.dimensions or _MOST_DIMENSIONS,
            # It does no harm, and some gateways in front of such vendors do keep it.
            headers={"idempotency-key": idempotency_key},
            patience=transport.PATIENCE if model.dimensions else 0.0,  # nothing is bought yet
            on_try=on_try,
            on_push_back=on_push_back,
            on_unsure=on_unsure,
        )
        asked = [query for query, _ in queries]
        if model.dimensions and {len(vector) for vector in vectors} != {model.dimensions}:
            raise _served(
                f"{self.url} answered with {len(vectors[0])} dimensions, not {model.dimensions}: {model.id} "
                "is another model now. What was bought is kept, but the two do not mix: start a new run."
            )
        answered = dict(zip(asked, vectors, strict=True))
        return EmbedResult(answered, {}, _usage(asked), f"{self._dialect}-{secrets.token_hex(8)}")

    def estimate(
        self,
        *,
        images: int = 0,  # noqa: ARG002 (as `Vendor` has it)
        texts: int = 0,  # noqa: ARG002
        model: ModelCard | None = None,  # noqa: ARG002
    ) -> Quote:
        """Nothing.

        Raises:
            VendorError: always: such a vendor states no prices.
        """
        raise VendorError(f"{self.url} states no prices.")

    def _only_model(self) -> str:
        names = [model.id for model in parse(_Models, self._http.send("GET", "/models")).data]
        if len(names) == 1:
            return names[0]
        raise VendorError(f"{self.url} sells {', '.join(names)}; name one of them with --model.")

    def _ask(
        self,
        queries: Sequence[tuple[Query, bytes]],
        model: str,
        *,
        dimensions: int,
        **options: Any,  # noqa: ANN401 (those of HttpTransport.send)
    ) -> list[Vector]:
        """The unit vectors of some queries of one kind, in order."""
        (kind,) = {query.kind for query, _ in queries}
        body = _body(self._dialect, kind, [content for _, content in queries], model)
        limit = wire.most_bytes(len(queries), dimensions)
        answer = self._http.send("POST", "/embeddings", json=body, most_bytes=limit, **options)
        response = parse(_Embeddings, answer)
        if response.model not in (None, model):
            raise _served(f"{self.url} answered by {str(response.model)[:64]!r}, not by {model}.")
        rows = sorted(response.data, key=lambda each: each.index)
        if [each.index for each in rows] != list(range(len(queries))):
            raise VendorError(f"{self.url} answered {len(rows)} of {len(queries)} queries.")
        return [self._unit(each.embedding) for each in rows]

    def _unit(self, value: list[float] | str) -> Vector:
        try:
            dimensions = len(value) if isinstance(value, list) else len(base64.b64decode(value)) // 4
            vector = from_wire(value, dimensions)
        except ValueError as error:
            raise VendorError(f"An answer of {self.url} makes no sense: {error}.") from error
        exact = vector.astype(np.float64)
        length = float(np.linalg.norm(exact))
        if not length:
            raise VendorError(f"{self.url} answered with a vector of zeros.")
        return (exact / length).astype(np.float32)


def _served(message: str) -> FingerprintChanged:
    """Another model has answered, and so was paid."""
    error = FingerprintChanged(message)
    error.unsure = True
    return error


class _Row(BaseModel):
    index: int
    embedding: list[float] | str


class _Embeddings(BaseModel):
    model: str | None = None
    data: list[_Row]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _body(dialect: Dialect, kind: Kind, contents: Sequence[bytes], model: str) -> dict[str, Any]:
    """What is posted: OpenAI's fields, and the dialect's."""
    if kind == "text":
        texts = [content.decode() for content in contents]
        items: list[Any] = [{"text": text} for text in texts] if dialect == "jina" else list(texts)
    else:
        encoded = [(content, base64.b64encode(content).decode("ascii")) for content in contents]
        items = [
            {"image": text} if dialect == "jina" else f"data:{_media_type(content)};base64,{text}"
            for content, text in encoded
        ]
    own = {} if dialect == "jina" else {"encoding_format": "base64", "modality": kind}
    return {"model": model, "input": items, **own}


def _media_type(content: bytes) -> str:
    if content.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if content[8:12] == b"WEBP" else "image/jpeg"


def _usage(queries: Sequence[Query]) -> Usage:
    images = sum(query.kind == "image" for query in queries)
    return Usage(images=images, texts=len(queries) - images, billed_queries=len(queries), cost_micros=0)


_ERRORS: dict[int, tuple[type[ClientError], str]] = {
    400: (InputRefused, ""),
    401: (KeyRefused, " Give the right key in TUITION_API_KEY or with --api-key-file."),
    402: (QuotaExhausted, " What was bought is kept; the same command goes on from here."),
    403: (KeyRefused, " Give the right key in TUITION_API_KEY or with --api-key-file."),
    404: (RequestRefused, " Is --vendor what /embeddings follows, and does it sell this model?"),
    413: (RequestTooLarge, ""),
    422: (InputRefused, ""),
}


def _as_error(response: httpx.Response, url: str) -> ClientError:
    """The status as one of our errors, with the beginning of what the vendor says of it."""
    said = "".join(c for c in response.text[:300] if c.isprintable())
    kind, advice = _ERRORS.get(response.status_code, (VendorError, ""))
    error = kind(f"{url} answered with status {response.status_code}: {said}{advice}")
    error.unsure = response.status_code in _UNSURE
    return error
