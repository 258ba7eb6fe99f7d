"""The lines of a chunk: blank ones take no memory and have no number, and a refusal is the contract's."""

import json
import tracemalloc
from datetime import UTC, datetime
from typing import cast

from shared.errors import APIError, ErrorBody, ErrorCode
from vendor_service.batches.answers import LineWork, answers_of, read_lines
from vendor_service.batches.leases import Claim
from vendor_service.batches.lines import LineReader
from vendor_service.database.tables import BatchJob, FilePiece
from vendor_service.embed.models import ServedModel
from vendor_service.encoder.facts import ModelFacts


def test_blank_lines_of_a_chunk_are_passed_over_at_once() -> None:
    fault = {"custom_id": None, "code": "invalid_request", "message": "a line is a JSON object"}
    piece = FilePiece(number=0, first_line=5, faults=json.dumps({"0": fault, "1": fault}))
    claim = Claim(BatchJob(), piece, "lease", "part", 0)
    blank = b"\n" * 10**6
    content = b" \r\n".join([b"", b" 1", blank, b"2\r", blank])
    model = cast(ServedModel, None)  # no line of these is asked
    tracemalloc.start()
    try:
        works = read_lines(claim, content, LineReader(64, 100), model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [each.number for each in works] == [5, 6]
    assert peak < 10**6


def test_a_refused_line_says_what_a_refused_request_does() -> None:
    moment = datetime(2026, 12, 1, tzinfo=UTC)
    error = APIError(ErrorCode.QUOTA_EXHAUSTED, "no queries are left", param="inputs", resets_at=moment)
    job = BatchJob(id="batch_1", prices={"image": 1, "text": 1})
    claim = Claim(job, FilePiece(number=0, first_line=4), "lease", "part", 0)
    facts = cast(ModelFacts, None)  # it answers no line of these
    works = [LineWork(4, "a", None, 0, error)]
    answers = answers_of(claim, works, facts, "req_1")
    response = json.loads(answers.errors)["response"]
    assert response["status_code"] == 402
    detail = ErrorBody.model_validate(response["body"]).error
    assert detail.message == "line 5: inputs: no queries are left"
    assert (detail.param, detail.request_id) == ("inputs", "req_1")
    assert detail.resets_at == "2026-12-01T00:00:00Z"
