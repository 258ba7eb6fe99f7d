"""Answers to the lines of a chunk: lines of the output file, and of the error file."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic_core import to_json

from shared.encoding import Vector
from shared.errors import APIError, ErrorBody, ErrorCode, error_detail
from shared.kinds import Kind, UnitPrices, cost_micros
from shared.receipts import Sold
from vendor_service.batches.intake import Fault
from vendor_service.batches.leases import Claim
from vendor_service.batches.lines import Line, LineReader, LineRefused
from vendor_service.embed.dialects import DIALECTS
from vendor_service.embed.models import ServedModel
from vendor_service.embed.request import EmbedResult, Timing, counts_of, what_was_sold
from vendor_service.embed.sales import refusal_by, refusal_of
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.queries import Prepared
from vendor_service.money.orders import Admitted

# A line that is not blank, from its first letter on; a chunk may have millions of blank ones.
_LINE = re.compile(rb"\S[^\n]*")


@dataclass
class LineWork:
    """A line on its way: what it asks, or why it is refused; and its queries, prepared and encoded.

    `number` is its place in the file, `first` the place of its first query among those of the chunk. `cost`
    is what its accepted queries take of the allowance where nobody pays for them.
    """

    number: int
    custom_id: str | None
    line: Line | None
    first: int
    error: APIError | None = None
    refused: dict[int, APIError] = field(default_factory=dict)
    accepted: list[Prepared] = field(default_factory=list)
    cost: int = 0
    rows: Vector | None = None

    def take(self, prepared: Sequence[Prepared | APIError]) -> None:
        """Take what became of the queries; where one is refused, so is the line, unless it passes over it."""
        assert self.line is not None
        queries = self.line.queries
        self.refused = {place: each for place, each in enumerate(prepared) if isinstance(each, APIError)}
        if self.refused and not queries.skip_bad:
            self.error = refusal_of(queries, self.refused)
            return
        self.accepted = [each for each in prepared if not isinstance(each, APIError)]


@dataclass
class Answers:
    """The lines of a chunk that are answered, and those that are refused, ready to be stored."""

    output: bytes = b""
    errors: bytes = b""
    completed: int = 0
    failed: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    sold: list[Sold] = field(default_factory=list)
    rows: list[Vector] = field(default_factory=list)


def read_lines(claim: Claim, content: bytes, reader: LineReader, model: ServedModel) -> list[LineWork]:
    """The lines of a chunk; those that were found faulty when the file came in are not read again."""
    faults = {} if claim.piece.faults is None else json.loads(claim.piece.faults)
    works: list[LineWork] = []
    first = 0
    for found in _LINE.finditer(content):
        text = found[0]
        number = claim.piece.first_line + len(works)
        fault = faults.get(str(len(works)))
        if fault is not None:
            works.append(_faulty(number, first, Fault(**fault)))
            continue
        work = _read(number, first, text, reader, model)
        works.append(work)
        first += 0 if work.line is None else len(work.line.queries.items)
    return works


def _faulty(number: int, first: int, fault: Fault) -> LineWork:
    error = APIError(ErrorCode(fault.code), fault.message)
    return LineWork(number, fault.custom_id, None, first, error)


def _read(number: int, first: int, text: bytes, reader: LineReader, model: ServedModel) -> LineWork:
    try:
        line = reader.read(text)
    except LineRefused as refused:  # the vendor takes less by now than when the file came
        return LineWork(number, refused.custom_id, None, first, refused.error)
    return LineWork(number, line.custom_id, line, first, refusal_by(model, line.queries))


def answers_of(claim: Claim, works: Sequence[LineWork], facts: ModelFacts, request_id: str) -> Answers:
    """The lines to be stored, and their charge under the id `request_id`."""
    answers = Answers()
    output, errors = bytearray(), bytearray()
    for each in works:
        line_id = f"{claim.job.id.replace('batch_', 'batch_req_')}-{each.number}"
        if each.error is not None or each.line is None or each.rows is None:
            errors += _refusal(line_id, each, request_id)
            answers.failed += 1
            continue
        output += _answer(line_id, each, each.line, facts, claim.job.prices, request_id, answers)
        answers.completed += 1
    answers.output, answers.errors = bytes(output), bytes(errors)
    return answers


def _answer(
    line_id: str,
    work: LineWork,
    line: Line,
    facts: ModelFacts,
    prices: UnitPrices,
    request_id: str,
    answers: Answers,
) -> bytes:
    assert work.rows is not None
    items = line.queries.items
    counts = counts_of(each for place, each in enumerate(items) if place not in work.refused)
    admitted = Admitted(
        request_id, counts, cost_micros(counts, prices), replayed=False, quota_left=None, rate=None
    )
    result = EmbedResult(request_id, facts, line.queries, work.refused, work.rows, admitted, Timing())
    body = DIALECTS[line.endpoint].render(result, line.encoding).body
    answers.counts.update(counts)
    answers.rows.append(work.rows)
    answers.sold += [
        each._replace(place=work.first + each.place) for each in what_was_sold(result, "float32")
    ]
    head = {"id": line_id, "custom_id": work.custom_id}
    response = b'{"status_code":200,"request_id":%s,"body":%s}' % (to_json(request_id), body)
    return b'%s,"response":%s,"error":null}\n' % (to_json(head)[:-1], response)


def _refusal(line_id: str, work: LineWork, request_id: str) -> bytes:
    error = work.error or APIError(ErrorCode.INTERNAL_ERROR, "this line could not be answered")
    message = error.message if error.param is None else f"{error.param}: {error.message}"
    detail = error_detail(error, request_id, f"line {work.number + 1}: {message}")
    body = ErrorBody(error=detail)
    response = {"status_code": error.code.kind.status, "request_id": request_id, "body": body}
    line = {"id": line_id, "custom_id": work.custom_id, "response": response, "error": None}
    return to_json(line) + b"\n"


def queries_of(works: Sequence[LineWork]) -> Mapping[int, int]:
    """How many queries each of the lines asks that are not refused already, by their place."""
    return {
        place: len(each.line.queries.items)
        for place, each in enumerate(works)
        if each.line is not None and each.error is None
    }
