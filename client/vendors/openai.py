"""Vendors that speak OpenAI's embeddings API; how each takes images is declared in `teachers/`.

Such a vendor knows no idempotency, states no price and no fingerprint. The client makes up for that: what may
have been served counts as paid, all costs are 0, and a model is recognised by its answers
(`client/purchase/identification.py`). A model that is exchanged in the middle of a run is noticed only by the
name or the dimensions that it answers with.
"""

import base64
import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

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
from client.vendors import transport
from client.vendors.query import Query, counts_of
from client.vendors.transport import NO_HOOKS, Hooks, parse
from client.vendors.vendor import EmbedResult, Vendor
from client.vendors.wire import MOST_DIMENSIONS, most_bytes
from shared.embeddings import Kind, Limits, ModelCard, Prices
from shared.encoding import Vector, from_wire
from shared.kinds import Usage
from shared.text import visible

# After these the request may have been served, and charged, all the same.
_UNSURE = frozenset({408, 500, 502, 504})


class OpenAIVendor(Vendor):
    """One vendor with OpenAI's embeddings API, and one key. Its vectors are normalised here.

    Attributes:
        name: of the protocol, with which fingerprints and receipts begin.
        limits: what its vendors take; they say 413 or 400 to more, and then get less.
    """

    repeats_are_free = False
    states_prices = False
    states_fingerprints = False
    name: ClassVar[str]
    limits: ClassVar[Limits] = Limits(
        max_inputs=32, max_request_bytes=16 * 2**20, max_image_bytes=10 * 2**20, max_image_pixels=50_000_000
    )

    @abstractmethod
    def body(self, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The request body without the model: inputs of one kind, and the format of the answer."""

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:  # noqa: ARG002
        """The model of a name, or the only one for sale; the vendor says no more of it.

        Raises:
            VendorError: there are several models and no name.
        """
        return ModelCard(
            id=name or self._only_model(),
            owned_by=self.name,
            dimensions=0,
            fingerprint="",
            tolerance=0.0,
            dtype="unknown",
            image_size=0,
            prices=Prices(image_micros=0, text_micros=0),
            limits=self.limits,
        )

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,  # noqa: ARG002 (nobody here would keep to it)
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, all of one kind, in one request; see `Vendor.embed`.

        Raises:
            FingerprintChanged, InputRefused, KeyRefused, QuotaExhausted, RequestTooLarge, VendorUnreachable,
            VendorError.
        """
        asked = [query for query, _ in queries]
        answer = self._http.send(
            "POST",
            "/embeddings",
            json={"model": model.id, **self.body(asked[0].kind, [content for _, content in queries])},
            # It does no harm, and some gateways in front of such vendors do keep it.
            headers={"idempotency-key": idempotency_key},
            most_bytes=most_bytes(len(queries), model.dimensions or MOST_DIMENSIONS),
            patience=transport.PATIENCE if model.dimensions else 0.0,  # nothing was bought of it yet
            hooks=hooks,
        )
        vectors = self._read(parse(_Embeddings, answer), asked, model)
        request_id = f"{self.name}-{secrets.token_hex(8)}"
        return EmbedResult(
            dict(zip(asked, vectors, strict=True)),
            {},
            Usage.of(counts_of(asked), 0),
            request_id,
        )

    def _only_model(self) -> str:
        names = [model.id for model in parse(_Models, self._http.send("GET", "/models")).data]
        if len(names) == 1:
            return names[0]
        raise VendorError(f"{self.url} sells {', '.join(names)}; name one of them with --model.")

    def _read(self, answer: "_Embeddings", asked: Sequence[Query], model: ModelCard) -> list[Vector]:
        """The unit vectors of an answer, in the order of the queries."""
        if answer.model not in (None, model.id):
            raise _served(f"{self.url} answered by {str(answer.model)[:64]!r}, not by {model.id}.")
        rows = sorted(answer.data, key=lambda each: each.index)
        if [each.index for each in rows] != list(range(len(asked))):
            raise VendorError(f"{self.url} answered {len(rows)} of {len(asked)} queries.")
        vectors = [self._unit(each.embedding) for each in rows]
        if model.dimensions and {len(vector) for vector in vectors} != {model.dimensions}:
            raise _served(
                f"{self.url} answered with {len(vectors[0])} dimensions, not {model.dimensions}: {model.id} "
                "is another model now. What was bought is kept, but the two do not mix: start a new run."
            )
        return vectors

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

    @staticmethod
    def _error_of(response: httpx.Response, url: str) -> ClientError:
        """The status as one of our errors, with the beginning of what the vendor says of it."""
        said = visible(response.text[:300])
        kind, advice = _ERRORS.get(response.status_code, (VendorError, ""))
        error = kind(f"{url} answered with status {response.status_code}: {said}{advice}")
        error.unsure = response.status_code in _UNSURE
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


def _served(message: str) -> FingerprintChanged:
    """Another model has answered, and so was paid."""
    error = FingerprintChanged(message)
    error.unsure = True
    return error


_KEY = " Give the right key in TUITION_API_KEY or with --api-key-file."
_ERRORS: dict[int, tuple[type[ClientError], str]] = {
    400: (InputRefused, ""),
    401: (KeyRefused, _KEY),
    402: (QuotaExhausted, " What was bought is kept; the same command goes on from here."),
    403: (KeyRefused, _KEY),
    404: (RequestRefused, " Is --vendor what /embeddings follows, and does it sell this model?"),
    413: (RequestTooLarge, ""),
    422: (InputRefused, ""),
}
