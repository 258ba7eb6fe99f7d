"""The lines of a chunk: blank ones take no memory and have no number."""

import json
import tracemalloc
from typing import cast

from vendor_service.api.bulk import DIALECTS
from vendor_service.batches.answers import read_lines
from vendor_service.batches.leases import Claim
from vendor_service.batches.lines import LineReader
from vendor_service.database.tables import BatchJob, FilePiece
from vendor_service.embed.models import ServedModel


def test_blank_lines_of_a_chunk_are_passed_over_at_once() -> None:
    fault = {"custom_id": None, "code": "invalid_request", "message": "a line is a JSON object"}
    piece = FilePiece(number=0, first_line=5, faults=json.dumps({"0": fault, "1": fault}))
    claim = Claim(BatchJob(), piece, "lease", "part", 0)
    blank = b"\n" * 10**6
    content = b" \r\n".join([b"", b" 1", blank, b"2\r", blank])
    model = cast(ServedModel, None)  # no line of these is asked
    tracemalloc.start()
    try:
        works = read_lines(claim, content, LineReader(DIALECTS, 64, 100), model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [each.number for each in works] == [5, 6]
    assert peak < 10**6
