"""The lines of bulk jobs: requests as they are sent, and answers as they come."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from pydantic import BaseModel, Field, ValidationError

from client.errors import Bill, VendorError
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, KeyRing
from client.vendors.statements import prove
from client.vendors.vendor import EmbedResult
from client.vendors.wire import clean, read_embeddings, rejected
from shared.embeddings import EmbedResponse, Kind, ModelCard, Prices
from shared.errors import ErrorBody
from shared.kinds import Usage
from shared.receipts import Sold, vector_digest


class AnsweredLine(BaseModel):
    """An answered line; its `body` is an answer of `/embed`."""

    place: int
    body: EmbedResponse


class _Answer(BaseModel):
    body: Any


class _Line(BaseModel):
    custom_id: str = Field(pattern="^[0-9]{1,9}$", description="the line's place, as `write_line` wrote it")
    response: _Answer


def write_line(to: BinaryIO, place: int, asked: Sequence[tuple[Query, bytes]], model: str) -> None:
    """Write the line at a place; the same queries always give the same bytes."""
    inputs = [
        {"text": content.decode()} if query.kind == "text" else {"image": base64.b64encode(content).decode()}
        for query, content in asked
    ]
    body = {"model": model, "encoding": "base64", "on_error": "skip", "inputs": inputs}
    line = {"custom_id": str(place), "method": "POST", "url": "/embed", "body": body}
    to.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_answers(file: BinaryIO, lines: int) -> Iterator[AnsweredLine]:
    """The lines of an output file, one at a time.

    Raises:
        VendorError: they are not those that were asked, in order.
    """
    last = -1
    for text in file:
        place, response = _line(text, lines)
        if place <= last:
            raise VendorError(f"The vendor answers line {place} of a bulk job twice, or out of order.")
        last = place
        try:
            yield AnsweredLine(place=place, body=EmbedResponse.model_validate(response))
        except ValidationError as error:
            raise VendorError(
                f"The vendor answers line {place} of a bulk job with something that is not an answer."
            ) from error


def read_refusals(file: BinaryIO, lines: int) -> Mapping[int, str]:
    """Why lines were refused, by their places, from an error file.

    Raises:
        VendorError: it has other lines than those that were asked.
    """
    refused = {}
    for text in file:
        place, response = _line(text, lines)
        try:
            refused[place] = clean(ErrorBody.model_validate(response).error.message)
        except ValidationError as error:
            raise VendorError(f"The vendor refuses line {place} of a bulk job without a reason.") from error
    return refused


def read_chunk(
    answered: Sequence[AnsweredLine],
    lines: Sequence[Sequence[Query]],
    first: int,
    token: str,
    model: ModelCard,
    prices: Prices,
    keys: KeyRing,
) -> EmbedResult:
    """Read the answers to some lines, checked against the request and the receipt.

    Args:
        answered: those of the lines that were answered.
        lines: the queries of all lines that the receipt is about.
        first: the place of the first of these lines.
        token: the receipt.
        model: what was to answer.
        prices: what a query may cost.
        keys: those of the vendor's receipts.

    Raises:
        AnswerRejected: it bills what it should not, its vectors cannot be used, or it is not what the receipt
            says.
    """
    by_line = {each.place - first: each.body for each in answered}
    results = {line: read_embeddings(body, lines[line], model) for line, body in by_line.items()}
    vectors = {query: vector for one in results.values() for query, vector in one.vectors.items()}
    refused = {query: reason for one in results.values() for query, reason in one.refused.items()}
    sold = [
        Sold(place, query.kind, query.digest, vector_digest(results[line].vectors[query]))
        for place, (line, query) in enumerate(_places(lines))
        if line in results and query in results[line].vectors
    ]
    billed = sum((Counter(one.usage.counts) for one in results.values()), Counter[Kind]())
    cost = sum(one.usage.cost_micros for one in results.values())
    request_id = "".join(one.request_id for one in list(results.values())[-1:])
    usage, agreed = Usage.of(billed, cost), prices.cost_of(billed)
    bill = Bill(request_id, model.fingerprint, usage)
    if cost > agreed:
        raise rejected(bill, f"billed {cost} micros, where {agreed} were agreed")
    try:
        proof = prove(token, keys, tuple(sold), bill)
    except BadSignature as error:
        raise rejected(bill, str(error)) from error
    return EmbedResult(vectors, refused, usage, request_id, proof)


def _places(lines: Sequence[Sequence[Query]]) -> Iterator[tuple[int, Query]]:
    """The queries of all lines, with the numbers of their lines."""
    return ((number, query) for number, line in enumerate(lines) for query in line)


def size_of(query: Query, content: bytes) -> int:
    """At least the bytes that a query takes in a line."""
    return 64 + query.most_in_json(content)


def _line(text: bytes, lines: int) -> tuple[int, Any]:
    try:
        given = _Line.model_validate_json(text)
    except ValidationError as error:
        raise VendorError("The vendor's file of answers to a bulk job cannot be read.") from error
    place = int(given.custom_id)
    if not place < lines:
        raise VendorError(f"The vendor answers line {place} of a bulk job of {lines} lines.")
    return place, given.response.body
