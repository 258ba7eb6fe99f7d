"""The result of a request for embeddings: its forms on the wire, and its receipt."""

import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from pydantic_core import to_json

from shared.embeddings import Embedding, EmbedResponse, Encoding, InputError, Usage
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, Vector, from_rows, to_base64, to_rows
from shared.kinds import NOTHING, count_fields
from shared.receipts import RECEIPT_TYPE, ReceiptClaims, Signs, Sold, answer_hash, request_hash, vector_digest
from vendor_service.clock import SECOND
from vendor_service.embed.request import Queries, Timing
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.queries import ImageQuery, Query, Vectors
from vendor_service.errors import APIError
from vendor_service.money.orders import Admitted, Charged

_BYTES_A_NUMBER = 24  # a float32 in JSON, as in -1.1754943508222875e-38 and a comma
_BYTES_A_ROW = 256  # index, kind, names; or a reason why there is no vector


@dataclass(frozen=True)
class EmbedResult:
    """The answer to a request.

    Attributes:
        id: the request that pays for it.
        model: which model answered.
        queries: what was asked.
        refused: why some of the queries were passed over, by their indices.
        rows: the vectors of the others, in order, float32 of shape (rows, dimensions).
        admitted: the order that it is answered for; `None` where nothing was left to charge.
        timing: complete once the result is.
    """

    id: str
    model: ModelFacts
    queries: Queries
    refused: dict[int, APIError]
    rows: Vectors
    admitted: Admitted | None
    timing: Timing

    @property
    def answered(self) -> list[int]:
        """The indices, among the queries, of those that are answered."""
        return [index for index in range(len(self.queries.items)) if index not in self.refused]

    @property
    def usage(self) -> Usage:
        """The bill."""
        if self.admitted is None:
            return Usage.of(NOTHING, 0)
        return Usage.of(self.admitted.counts, self.admitted.cost_micros)

    @property
    def replayed(self) -> bool:
        """Whether it was paid for before."""
        return self.admitted is not None and self.admitted.replayed


@dataclass(frozen=True)
class Content:
    """A response body; `headers` are those of its form, beside those that every response has.

    `dtype` is that of the numbers in it.
    """

    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)
    dtype: RowDtype = "float32"

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """The same with these headers as well."""
        return replace(self, headers=self.headers | dict(headers))


Render = Callable[[EmbedResult], Content]


def largest_bytes(rows: int, dimensions: int) -> int:
    """The most bytes that a response of `rows` may have, in any form."""
    return rows * (dimensions * _BYTES_A_NUMBER + _BYTES_A_ROW)


def as_json(result: EmbedResult, encoding: Encoding) -> Content:
    """An `EmbedResponse`."""
    # Constructed, not validated: these are our own numbers, and there are many of them.
    response = EmbedResponse.model_construct(
        id=result.id,
        model=result.model.id,
        model_fingerprint=result.model.fingerprint,
        dimensions=result.model.dimensions,
        data=[
            Embedding.model_construct(index=index, kind=result.queries.items[index].kind, embedding=value)
            for index, value in zip(result.answered, as_values(result.rows, encoding), strict=True)
        ],
        errors=[
            InputError(index=index, code=each.code, message=each.message)
            for index, each in result.refused.items()
        ],
        usage=result.usage,
        replayed=result.replayed,
    )
    return Content(to_json(response), "application/json")


def as_rows(result: EmbedResult, dtype: RowDtype) -> Content:
    """The rows alone; what else the JSON says is in headers."""
    usage = result.usage
    headers = {
        "x-embedding-id": result.id,
        "x-embedding-shape": f"{len(result.rows)},{result.model.dimensions}",
        "x-embedding-dtype": dtype,
        "x-billed-queries": str(usage.billed_queries),
    }
    headers |= {f"x-billed-{name}": str(number) for name, number in count_fields(usage.counts).items()}
    if result.refused:
        headers["x-skipped-inputs"] = _skipped(result.refused)
    return Content(to_rows(result.rows, dtype), ROWS_MEDIA_TYPE, headers, dtype)


def as_values(rows: Vectors, encoding: Encoding) -> list[list[float]] | list[str]:
    """Each row as JSON has it: numbers, or base64 of little-endian float32."""
    if encoding == "base64":
        return [to_base64(row) for row in rows]
    values: list[list[float]] = rows.tolist()
    return values


def _skipped(refused: dict[int, APIError]) -> str:
    # Grouped by code, so that hundreds of them still fit where proxies expect headers to fit.
    by_code: dict[str, list[str]] = {}
    for index, error in refused.items():
        by_code.setdefault(error.code, []).append(str(index))
    return "; ".join(f"{code}={','.join(indices)}" for code, indices in by_code.items())


def no_rows(model: ModelFacts) -> Vectors:
    """The rows of an answer in which no query is left."""
    return np.empty((0, model.dimensions), dtype=np.float32)


def what_was_sold(result: EmbedResult, dtype: RowDtype) -> list[Sold]:
    """Each answered query with digests of the query and of its vector, in `dtype` on the wire."""
    rows = result.rows if dtype == "float32" else _as_sent(result.rows, dtype)
    items = result.queries.items
    return [
        Sold(index, items[index].kind, _digest(items[index]), vector_digest(row))
        for index, row in zip(result.answered, rows, strict=True)
    ]


def receipt(signer: Signs, result: EmbedResult, sold: Sequence[Sold], charged: Charged) -> str:
    """The signed receipt of an answer, as a compact JWS.

    A replay has the entry and the date of the first time: the same vectors bring the very same receipt.
    """
    usage = result.usage
    claims = ReceiptClaims(
        iat=charged.created_at // SECOND,
        request_id=result.id,
        request_hash=request_hash(sold),
        answer_hash=answer_hash(sold),
        model=result.model.id,
        model_fingerprint=result.model.fingerprint,
        cost_micros=usage.cost_micros,
        key_id=charged.key_id,
        ledger_seq=charged.seq,
        entry_hash=charged.entry_hash,
        **count_fields(usage.counts),
    )
    return signer.sign(RECEIPT_TYPE, claims)


def _digest(query: Query) -> str:
    if not isinstance(query, ImageQuery):
        content = query.text.encode(errors="surrogatepass")
    elif isinstance(query.file, bytes):
        content = query.file
    else:
        content = binascii.a2b_base64(query.file)  # it was decoded before, so it can be
    return hashlib.sha256(content).hexdigest()


def _as_sent(rows: Vector, dtype: RowDtype) -> Vector:
    return from_rows(to_rows(rows, dtype), rows.shape, dtype)
