"""`POST /embed` on the wire: queries as a form, and answers as raw rows or JSON."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import httpx

from client.buying.protocols import Answer
from client.buying.queries import Query
from client.buying.sender import parse
from client.errors import FingerprintChanged, VendorError
from shared.embeddings import EmbedResponse, ModelCard, Usage
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, Vector, from_rows, from_wire

# Raw rows are the smallest; a vendor, or a proxy, that knows only JSON may answer that.
ACCEPT = f"{ROWS_MEDIA_TYPE}, application/json;q=0.5"


@dataclass(frozen=True)
class Form:
    """The body of an embed request and its content type; the same queries always give the same bytes."""

    content_type: str
    body: bytes


def embed_form(queries: Sequence[tuple[Query, bytes]], model: str) -> Form:
    """The form that asks a model for the embeddings of some queries, passing over what it cannot embed."""
    digests = ":".join([model, *(query.digest for query, _ in queries)])
    boundary = hashlib.sha256(digests.encode()).hexdigest()  # no content holds the digest of itself
    parts = [_part(boundary, 'name="model"', model.encode()), _part(boundary, 'name="on_error"', b"skip")]
    for query, content in queries:
        disposition = 'name="text"' if query.kind == "text" else 'name="image"; filename="image"'
        parts.append(_part(boundary, disposition, content))
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return Form(f"multipart/form-data; boundary={boundary}", body)


def _part(boundary: str, disposition: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return b"".join([head.encode(), content, b"\r\n"])


def read_answer(response: httpx.Response, queries: Sequence[Query], model: ModelCard) -> Answer:
    """What a successful answer brings, checked against what was asked.

    Raises:
        FingerprintChanged: another model has answered.
        VendorError: it makes no sense, or bills other than it answers.
    """
    if response.headers.get("content-type", "").startswith(ROWS_MEDIA_TYPE):
        reply = _from_rows(response, len(queries))
    else:
        reply = _from_json(parse(EmbedResponse, response))
    if reply.fingerprint != model.fingerprint:
        raise FingerprintChanged(
            f"The vendor answered by {reply.fingerprint}, not by {model.fingerprint}. What was bought from "
            "the former model is kept, but the two do not mix: start a new run for the new one."
        )
    places = [*reply.vectors, *reply.refused]
    dimensions = {len(vector) for vector in reply.vectors.values()}
    if sorted(places) != list(range(len(queries))) or dimensions - {model.dimensions}:
        raise VendorError(f"The vendor's answer {reply.id} does not match what was asked.")
    usage, answered = reply.usage, len(reply.vectors)
    if not usage.images + usage.texts == usage.billed_queries == answered or usage.cost_micros < 0:
        raise VendorError(
            f"The vendor answered {answered} queries in {reply.id} and billed {usage.billed_queries}."
        )
    vectors = {queries[place]: vector for place, vector in reply.vectors.items()}
    refused = {queries[place]: reason for place, reason in reply.refused.items()}
    return Answer(vectors, refused, usage, reply.id)


@dataclass(frozen=True)
class _Reply:
    """An answer as it came, by the places of the queries in the request."""

    id: str
    fingerprint: str
    vectors: dict[int, Vector]
    refused: dict[int, str]
    usage: Usage


def _from_json(response: EmbedResponse) -> _Reply:
    try:
        vectors = {e.index: from_wire(e.embedding, response.dimensions) for e in response.data}
    except ValueError as error:
        raise VendorError(f"The vendor's answer {response.id} makes no sense: {error}.") from error
    refused = {error.index: error.message for error in response.errors}
    return _Reply(response.id, response.model_fingerprint, vectors, refused, response.usage)


def _from_rows(response: httpx.Response, asked: int) -> _Reply:
    headers = response.headers
    try:
        count, dimensions = map(int, headers["x-embedding-shape"].split(","))
        (dtype,) = (each for each in get_args(RowDtype) if each == headers["x-embedding-dtype"])
        rows = from_rows(response.content, (count, dimensions), dtype)
        refused = dict(_skipped(headers.get("x-skipped-inputs", "")))
        answered = [place for place in range(asked) if place not in refused]
        usage = Usage(
            images=int(headers["x-billed-images"]),
            texts=int(headers["x-billed-texts"]),
            billed_queries=int(headers["x-billed-queries"]),
            cost_micros=int(headers["x-cost-micros"]),
        )
        vectors = dict(zip(answered, rows, strict=True))
        return _Reply(headers["x-embedding-id"], headers["x-model-fingerprint"], vectors, refused, usage)
    except (KeyError, ValueError) as error:
        raise VendorError(f"{response.url} does not answer as a Tuition vendor does: {error}.") from error


def _skipped(header: str) -> Iterator[tuple[int, str]]:
    """Places and reasons of what was passed over: `invalid_image=0,3; image_too_large=5`."""
    for group in filter(None, header.split("; ")):
        code, _, places = group.partition("=")
        for place in places.split(","):
            yield int(place), f"the vendor says: {code.replace('_', ' ')}"
