"""The intake of a file: what it says that it keeps in memory is what it keeps."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.vendor_service.batches.bulk_books import LIMITS
from vendor_service.api.bulk import DIALECTS
from vendor_service.batches import intake as intake_module
from vendor_service.batches.intake import Intake
from vendor_service.batches.lines import LineReader

LINES = 2000


def texts(number: int, count: int) -> str:
    body = {"inputs": [{"text": "x"}] * count}
    custom_id = f"{number:0100}"  # Pydantic keeps shorter ones for the whole process
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/embed", "body": body})


def many_texts(number: int) -> str:
    return texts(number, 40)


@pytest.mark.parametrize(
    "line",
    [
        lambda _: "{}",
        lambda number: json.dumps({"custom_id": f"{number:0255}", f"{number:0600}": 1}),
        lambda number: json.dumps({"custom_id": "ж" * 200 + str(number)}, ensure_ascii=False),
        many_texts,
        lambda number: texts(number, 1),
    ],
    ids=["no fields", "long texts", "wide texts", "a piece each", "a text each"],
)
def test_what_is_kept_of_lines_is_counted(line: Callable[[int], str]) -> None:
    intake = Intake(LineReader(DIALECTS, 64, 100), replace(LIMITS, max_lines=LINES, max_file_bytes=10**8))
    content = "".join(f"{line(number)}\n" for number in range(LINES)).encode()
    tracemalloc.start()
    try:
        intake.feed(content[:1000])
        before, counted = tracemalloc.get_traced_memory()[0], intake.kept_bytes
        intake.feed(content[1000:])
        kept, counted = tracemalloc.get_traced_memory()[0] - before, intake.kept_bytes - counted
    finally:
        tracemalloc.stop()
    assert 0.8 * kept < counted < 2 * kept


def test_blank_lines_make_no_piece_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{many_texts(number)}\n" for number in range(3)]
    longest = max(map(len, lines))
    monkeypatch.setattr(intake_module, "_PIECE_BYTES", longest + 100)
    blank = " " * 60 + "\n"
    content = "\n".join(["", *(each + blank * 50 for each in lines)]).encode()
    intake = Intake(LineReader(DIALECTS, 64, 100), LIMITS)
    intake.feed(content)
    pieces = intake.finish().pieces
    assert [(each.first_line, each.lines) for each in pieces] == [(0, 1), (1, 1), (2, 1)]
    assert max(each.bytes for each in pieces) <= longest + 100
    read = [content[each.first_byte : each.first_byte + each.bytes].strip() for each in pieces]
    assert read == [each.strip().encode() for each in lines]
