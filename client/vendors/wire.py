"""`POST /embed` on the wire: queries as a form, answers as raw rows or JSON, and what is wrong with them."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import httpx
import numpy as np

from client.errors import AnswerRejected, Bill, FingerprintChanged, VendorError
from client.vendors.query import Query, counts_of
from client.vendors.signatures import BadSignature, KeyRing
from client.vendors.statements import prove, what_was_sold
from client.vendors.transport import AnswerTooLong, parse
from client.vendors.vectors import MOST_DIMENSIONS
from client.vendors.vendor import EmbedResult
from shared.embeddings import EmbedResponse, ModelCard
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, Vector, from_rows, from_wire
from shared.kinds import KINDS, Usage
from shared.receipts import RECEIPT_HEADER
from shared.text import visible

# Raw rows are the smallest; a vendor, or a proxy, that knows only JSON may answer that.
ACCEPT = f"{ROWS_MEDIA_TYPE}, application/json;q=0.5"
# What JSON takes for one number, and for one query beside its numbers; raw rows take less.
_NUMBER_BYTES = 32
_QUERY_BYTES = 2048
_ANSWER_BYTES = 2**16
# Vectors are of length 1 within what float16 or bfloat16 round.
_NORM_TOLERANCE = 0.01
_MOST_MICROS = 10**12


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


def most_bytes(queries: int, dimensions: int) -> int:
    """The longest answer that this many queries can have."""
    return _ANSWER_BYTES + queries * (_QUERY_BYTES + dimensions * _NUMBER_BYTES)


def check_card(card: ModelCard, url: str) -> None:
    """Refuse a model whose card cannot be meant.

    Raises:
        VendorError: it cannot.
    """
    limits = card.limits
    prices = [*card.prices.by_kind.values(), *(card.batch_prices or card.prices).by_kind.values()]
    sane = (
        0 < card.dimensions <= MOST_DIMENSIONS
        and 0 <= card.tolerance < math.inf
        and re.fullmatch("[!-~]{1,256}", card.fingerprint)
        and max(prices) <= _MOST_MICROS
        and min(limits.max_inputs, limits.max_request_bytes, limits.max_image_bytes) > 0
    )
    if not sane:
        raise VendorError(f"{url} says of its model {card.id[:64]!r} what cannot be.")


def read_answer(
    response: httpx.Response,
    queries: Sequence[Query],
    model: ModelCard,
    max_cost_micros: int | None = None,
    keys: KeyRing | None = None,
) -> EmbedResult:
    """Read a successful answer, checked against the request.

    Args:
        response: the answer.
        queries: what was asked, in order.
        model: what was to answer.
        max_cost_micros: the most that was to be charged now; nothing or 0 where what was paid for before may
            come back. What a replay has cost at its time is known elsewhere, and compared there.
        keys: those of the vendor's receipts; nothing where receipts are not looked at.

    Raises:
        FingerprintChanged: another model has answered.
        AnswerRejected: it bills what it should not, its vectors cannot be used, or its receipt is not one of
            this answer.
        VendorError: it makes no sense.
    """
    if response.headers.get("content-type", "").startswith(ROWS_MEDIA_TYPE):
        reply = _from_rows(response, len(queries))
    else:
        reply = _from_json(parse(EmbedResponse, response))
    if reply.bill.fingerprint != model.fingerprint:
        raise _changed(reply.bill, model)
    result = _taken(reply, queries, model, None if reply.replayed else max_cost_micros)
    if keys is None:
        return result
    try:
        sold = what_was_sold(queries, reply.vectors)
        proof = prove(
            response.headers.get(RECEIPT_HEADER), keys, sold, reply.bill, paid_now=not reply.replayed
        )
    except BadSignature as error:
        raise rejected(reply.bill, str(error)) from error
    return EmbedResult(result.vectors, result.refused, result.usage, result.request_id, proof)


def read_embeddings(answer: EmbedResponse, queries: Sequence[Query], model: ModelCard) -> EmbedResult:
    """Read one answer of a bulk job, without its receipt.

    Raises:
        AnswerRejected: it is another model's, bills what it should not, or its vectors cannot be used.
    """
    reply = _from_json(answer)
    if reply.bill.fingerprint != model.fingerprint:
        raise rejected(reply.bill, f"answered by another model, {reply.bill.fingerprint}")
    return _taken(reply, queries, model, None)


def rejected(bill: Bill, fault: str) -> AnswerRejected:
    """The error of an answer that is billed and cannot be taken."""
    error = AnswerRejected(
        f"The vendor {fault} (request {bill.request_id}, billed {bill.usage.cost_micros} micros). Nothing of "
        "this answer is stored, and its bill is noted: `client usage --reconcile` shows what of it is in "
        "the vendor's ledger. Ask the vendor about it."
    )
    error.bill, error.fault = bill, fault
    return error


def too_long(error: AnswerTooLong) -> VendorError:
    """The error of an answer that was not read to its end, with its bill where the headers give it."""
    try:
        bill = _bill(error.headers)
    except (KeyError, ValueError):
        return error
    return rejected(bill, f"sent what cannot be an answer: {error}")


def clean(message: str) -> str:
    """A vendor's words without what a terminal would obey."""
    return visible(message[:500])


@dataclass(frozen=True)
class _Reply:
    """An answer as it came, by the indices of the queries in the request.

    `vectors` is empty, and `fault` says why, where they cannot be read.
    """

    bill: Bill
    vectors: dict[int, Vector]
    refused: dict[int, str]
    replayed: bool
    fault: str | None = None


def _changed(bill: Bill, model: ModelCard) -> FingerprintChanged:
    changed = FingerprintChanged(
        f"The vendor answered by {bill.fingerprint}, not by {model.fingerprint}. What was bought from "
        "the former model is kept, but the two do not mix: start a new run for the new one."
    )
    changed.bill, changed.unsure = bill, True
    changed.fault = f"answered by another model, {bill.fingerprint}"
    return changed


def _taken(
    reply: _Reply, queries: Sequence[Query], model: ModelCard, max_cost_micros: int | None
) -> EmbedResult:
    """An answer by its queries, once nothing is wrong with it.

    Raises:
        AnswerRejected: something is.
    """
    fault = _fault(reply, len(queries), model) or _overcharge(
        reply.bill.usage, (queries[index] for index in reply.vectors), max_cost_micros
    )
    if fault is not None:
        raise rejected(reply.bill, fault)
    vectors = {queries[index]: vector for index, vector in reply.vectors.items()}
    refused = {queries[index]: reason for index, reason in reply.refused.items()}
    return EmbedResult(vectors, refused, reply.bill.usage, reply.bill.request_id)


def _fault(reply: _Reply, asked: int, model: ModelCard) -> str | None:
    """Why the vectors cannot be used, if they cannot."""
    if reply.fault is not None:
        return f"sent an answer that makes no sense: {reply.fault}"
    if sorted([*reply.vectors, *reply.refused]) != list(range(asked)):
        return f"answered other queries than the {asked} that were asked"
    for vector in reply.vectors.values():
        if len(vector) != model.dimensions:
            return f"answered with {len(vector)} dimensions, not {model.dimensions}"
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not abs(length - 1) <= _NORM_TOLERANCE:
            return f"answered with a vector of length {length:.3g}, where all have length 1"
    return None


def _overcharge(usage: Usage, answered: Iterable[Query], max_cost_micros: int | None) -> str | None:
    """The fault of the bill, if it has one."""
    counts, billed = counts_of(answered), usage.counts
    if usage.billed_queries != counts.total() or any(n != counts[kind] for kind, n in billed.items()):
        answers = " and ".join(f"{counts[kind]} {kind}s" for kind in billed)
        bills = " and ".join(map(str, billed.values()))
        return f"answered {answers}, and billed {bills}, {usage.billed_queries} queries in all"
    if usage.cost_micros < 0:
        return f"billed {usage.cost_micros} micros"
    if max_cost_micros and usage.cost_micros > max_cost_micros:
        return f"billed {usage.cost_micros} micros, where at most {max_cost_micros} were agreed"
    return None


def _from_json(answer: EmbedResponse) -> _Reply:
    indices = [each.index for each in answer.data] + [each.index for each in answer.errors]
    vectors: dict[int, Vector] = {}
    fault = None if len(indices) == len(set(indices)) else "it answers a query twice"
    try:
        vectors = {each.index: from_wire(each.embedding, answer.dimensions) for each in answer.data}
    except ValueError as error:
        fault = str(error)
    refused = {error.index: clean(error.message) for error in answer.errors}
    bill = Bill(_name(answer.id), _name(answer.model_fingerprint), answer.usage)
    return _Reply(bill, vectors, refused, answer.replayed, fault)


def _from_rows(response: httpx.Response, asked: int) -> _Reply:
    headers = response.headers
    try:
        bill = _bill(headers)
    except (KeyError, ValueError) as error:
        raise VendorError(f"{response.url} does not answer as a Tuition vendor does: {error}.") from error
    vectors: dict[int, Vector] = {}
    refused: dict[int, str] = {}
    fault = None
    try:
        count, dimensions = map(_count, headers["x-embedding-shape"].split(","))
        (dtype,) = (each for each in get_args(RowDtype) if each == headers["x-embedding-dtype"])
        rows = from_rows(response.content, (count, dimensions), dtype)
        refused = _skipped(headers.get("x-skipped-inputs", ""))
        answered = [index for index in range(asked) if index not in refused]
        vectors = dict(zip(answered, rows, strict=True))
    except (KeyError, ValueError) as error:
        fault = clean(str(error))
    return _Reply(bill, vectors, refused, headers.get("idempotent-replayed") == "true", fault)


def _bill(headers: httpx.Headers) -> Bill:
    """Read the bill from the headers.

    Raises:
        KeyError, ValueError: they do not say it.
    """
    usage = Usage(
        **{plural: _count(headers[f"x-billed-{plural}"]) for plural in KINDS.values()},
        billed_queries=_count(headers["x-billed-queries"]),
        cost_micros=_count(headers["x-cost-micros"]),
    )
    return Bill(_name(headers["x-embedding-id"]), _name(headers["x-model-fingerprint"]), usage)


def _count(text: str) -> int:
    """A number as a header gives it: digits and nothing else."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"{text[:40]!r} is no count")
    return int(text)


def _name(text: str) -> str:
    """A name as a vendor gives it, which is kept and shown."""
    return visible(text[:128])


def _skipped(header: str) -> dict[int, str]:
    """Places and reasons of what was passed over: `invalid_image=0,3; image_too_large=5`."""
    skipped: dict[int, str] = {}
    for group in filter(None, header.split("; ")):
        code, _, indices = group.partition("=")
        for index in map(_count, indices.split(",")):
            if index in skipped:
                raise ValueError(f"input {index} is skipped twice")
            skipped[index] = f"the vendor says: {code[:64].replace('_', ' ')}"
    return skipped
