"""The intake of a file: what it says that it keeps is what it keeps, and blank lines are passed over."""

import json
import re
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.errors import APIError
from tests.support.figures import holds
from tests.vendor_service.batches.bulk_books import LIMITS
from vendor_service.batches import intake as intake_module
from vendor_service.batches.intake import Intake
from vendor_service.batches.lines import LineReader

LINES = 500


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
    intake = Intake(LineReader(64, 100), replace(LIMITS, max_lines=LINES, max_file_bytes=10**8))
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


def test_lines_that_cannot_be_asked_make_few_pieces() -> None:
    intake = Intake(LineReader(64, 100), replace(LIMITS, max_lines=10_000))
    content = [*(texts(number, 1) for number in range(64)), *["x"] * 1200, texts(64, 64), "x", texts(65, 1)]
    intake.feed("\n".join(content).encode())
    pieces = intake.finish().pieces
    assert [(each.lines, len(each.faults), each.counts["text"]) for each in pieces] == [
        (564, 500, 64),
        (500, 500, 0),
        (202, 201, 64),
        (1, 0, 1),
    ]


def test_blank_lines_make_no_piece_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{many_texts(number)}\n" for number in range(3)]
    longest = max(map(len, lines))
    monkeypatch.setattr(intake_module, "_PIECE_BYTES", longest + 100)
    blank = " " * 60 + "\n"
    content = "\n".join(["", *(each + blank * 50 for each in lines)]).encode()
    intake = Intake(LineReader(64, 100), LIMITS)
    intake.feed(content)
    pieces = intake.finish().pieces
    assert [(each.first_line, each.lines) for each in pieces] == [(0, 1), (1, 1), (2, 1)]
    assert max(each.bytes for each in pieces) <= longest + 100
    read = [content[each.first_byte : each.first_byte + each.bytes].strip() for each in pieces]
    assert read == [each.strip().encode() for each in lines]


def test_millions_of_blank_lines_take_no_time() -> None:
    intake = Intake(LineReader(64, 100), replace(LIMITS, max_file_bytes=10**8))
    intake.feed(b"\n")
    began = time.thread_time()
    for blank in (b"\n", b"\r\n", b" \n", b"\n\v"):
        intake.feed(blank * (1 << 20))
    assert holds(time.thread_time() - began, 1, "s")


def test_blank_lines_are_passed_over_alike_however_they_come() -> None:
    blank = b"\n\r\n \t\v\f\n" + b" " * 9999 + b"\n\n"
    lines = [many_texts(0).encode(), b"{}", b"  " + texts(1, 1).encode(), many_texts(2).encode()]
    content = blank + b"\n".join(each + b"\n" + blank for each in lines) + b" \n " + texts(3, 1).encode()
    taken = []
    for size in (len(content), 7, 1):
        intake = Intake(LineReader(64, 100), LIMITS)
        for start in range(0, len(content), size):
            intake.feed(content[start : start + size])
        taken.append(intake.finish())
    assert [(each.first_line, each.lines, list(each.faults)) for each in taken[0].pieces] == [
        (0, 3, [1]),
        (3, 2, []),
    ]
    assert taken[0] == taken[1] == taken[2]


def test_a_blank_line_among_others_may_be_too_long() -> None:
    intake = Intake(LineReader(64, 100), LIMITS)
    with pytest.raises(APIError, match="line 2 is longer than 10000 bytes"):
        intake.feed(texts(0, 1).encode() + b"\n\n \n" + b" " * 10_000 + b"\n\n")


def test_reasons_are_short_and_repeat_no_name_of_the_callers() -> None:
    def line(custom_id: str, model: str, **more: int) -> bytes:
        body = {"model": model, "input": "x"} | more
        asked = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
        return f"{json.dumps(asked)}\n".encode()

    intake = Intake(LineReader(64, 100), LIMITS)
    intake.feed(
        line("a", "\N{CAT}" * 255) + line("b", "icon-clip") + line("c", "\N{CAT}" * 255, **{"ж" * 90: 1})
    )
    (piece,) = intake.finish().pieces
    model, field = (each.message for each in piece.faults.values())
    assert model == "body.model: all lines of a file are for one model, that of the first one"
    assert re.fullmatch(r"body\.ж{17}: [A-Z][^ж]+", field)
    assert len(field.encode()) <= 120


def named(custom_id: object, **changes: object) -> str:
    """A line with its name at the end, behind more bytes than are searched for one."""
    body = {"model": "icon-clip", "input": ["x" * 90] * 60}
    line = {"method": "POST", "url": "/v1/embeddings", "body": body} | changes
    return json.dumps(line | {"custom_id": custom_id})


def test_a_line_that_cannot_be_asked_keeps_the_name_that_was_read() -> None:
    other = {"model": "other", "input": "x"}
    lines: list[tuple[str, str | None]] = [
        (named("cat é", body=other), "cat é"),
        (named('"cat"', url="/embed"), '"cat"'),
        (named("far behind", url="/elsewhere"), "far behind"),
        (named("far behind too", method="GET"), "far behind too"),
        (named("é" * 150), "é" * 150),
        (named("x" * 256), None),
        (named(5), None),
        (json.dumps({"custom_id": 'too "many" é', "body": {"input": ["x"] * 65}}), 'too "many" é'),
        (r'{"custom_id": "cut \u00e9", "body": {"input', "cut é"),
        (r'{"custom_id": "no escape \u00g9", "body": {"input', None),
        ('{"custom_id": "cut', None),
    ]
    content = [named("é" * 150), *(line for line, _ in lines)]
    intake = Intake(LineReader(64, 100), LIMITS)
    intake.feed("\n".join(content).encode())
    faults = {
        at + each.first_line: fault for each in intake.finish().pieces for at, fault in each.faults.items()
    }
    assert [faults[place].custom_id for place in range(1, len(content))] == [name for _, name in lines]
