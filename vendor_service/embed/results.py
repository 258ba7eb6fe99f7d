"""The result of an embed request, and its forms on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from pydantic_core import to_json

from shared.embeddings import Embedding, EmbedResponse, Encoding, InputError, Usage
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, to_base64, to_rows
from vendor_service.embed.queries import Queries
from vendor_service.embed.timing import Timing
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.encoder.queues import Vectors
from vendor_service.errors import APIError
from vendor_service.money.orders import Admitted

_BYTES_A_NUMBER = 24  # a float32 in JSON, as in -1.1754943508222875e-38 and a comma
_BYTES_A_ROW = 256  # index, kind, names; or a reason why there is no vector


@dataclass(frozen=True)
class EmbedResult:
    """The rows of the queries that were not `refused`, in order, as float32 of shape (rows, dimensions).

    `id` is the request that pays for them; nothing was `admitted` where nothing was left to charge.
    `timing` is complete once the result is.
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
            return Usage(images=0, texts=0, billed_queries=0, cost_micros=0)
        images, texts = self.admitted.images, self.admitted.texts
        return Usage(
            images=images, texts=texts, billed_queries=images + texts, cost_micros=self.admitted.cost_micros
        )

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


def largest_bytes(rows: int, dimensions: int) -> int:
    """How many bytes a response of so many rows may have, in any form."""
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
        "x-billed-images": str(usage.images),
        "x-billed-texts": str(usage.texts),
    }
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
