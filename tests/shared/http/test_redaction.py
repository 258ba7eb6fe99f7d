"""What is written down: one line whatever a stranger sends, and no secret in it."""

import json
import logging
import re
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.logging import JsonFormatter, TextFormatter, masked
from shared.text import visible

# What a terminal or a reader of lines takes for more than text.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SECRET = "0123456789abcdef" * 3

# Any text, and often what is meant to harm.
hostile = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=4),
        st.sampled_from(
            ["\n2026-11-27 06:00:00,000 INFO forged", "\x1b[2J", "\x85", "\u2028", "\u202e", '"=']
        ),
    ),
    max_size=6,
).map("".join)


def a_record(message: str, field: str, error: str | None) -> logging.LogRecord:
    record = logging.LogRecord("any.logger", logging.INFO, "file", 1, "said %s", (message,), None)
    record.fields = {"path": field, field: message}
    if error is not None:
        try:
            raise ValueError(error)
        except ValueError:
            record.exc_info = sys.exc_info()
    return record


@given(message=hostile, field=hostile, error=st.none() | hostile)
def test_nothing_forges_a_line_of_text(message: str, field: str, error: str | None) -> None:
    first, *rest = TextFormatter().format(a_record(message, field, error)).split("\n")
    assert not CONTROL.search(first)
    assert (error is None) == (rest == [])
    for line in rest:
        assert line.startswith("  | ")
        assert not CONTROL.search(line)
    first.encode()


@given(message=hostile, field=hostile, error=st.none() | hostile)
def test_nothing_forges_a_line_of_json(message: str, field: str, error: str | None) -> None:
    line = JsonFormatter().format(a_record(message, field, error))
    assert line.isascii()
    assert not CONTROL.search(line)
    assert isinstance(json.loads(line), dict)


@given(path=hostile)
def test_a_value_cannot_look_like_another_field(path: str) -> None:
    record = logging.makeLogRecord(
        {"msg": "request", "fields": {"path": f"{path} status=200", "status": 404}}
    )
    line = TextFormatter().format(record)
    # Outside the quotes, in which a quote is behind a backslash, there is one status.
    assert re.sub(r'"(\\.|[^"\\])*"', "", line).count("status=") == 1


def test_what_is_escaped_can_be_read() -> None:
    assert visible("a\nb\x1b[0m\u202eé漢") == r"a\nb\x1b[0m\u202eé漢"


@pytest.mark.parametrize(
    "text",
    [
        f"/v1/keys/tk_0f3c7a91d2b45e68_{SECRET}/rotate",
        f"/v1/operators/op_0f3c7a91d2b45e68_{SECRET}/rotate",
        f"cannot connect to postgresql://tuition:{SECRET}@database/books",
        f"connection to host=database password={SECRET} failed",
        f"connection to host=database password='{SECRET} {SECRET}' failed",
        f"?sslmode=require&sslpassword={SECRET}&x=1",
    ],
)
def test_secrets_are_masked_wherever_they_come_up(text: str) -> None:
    assert SECRET not in masked(text)
    assert "***" in masked(text)
    record = logging.makeLogRecord({"msg": text, "fields": {"path": text, "more": [text, {"deep": text}]}})
    for formatter in (TextFormatter(), JsonFormatter()):
        assert SECRET not in formatter.format(record)


@pytest.mark.parametrize("piece", ["a", "://", "a://b:", "password=", "password='", "password ", "tk_", "\n"])
def test_endless_text_is_searched_in_no_endless_time(piece: str) -> None:
    text = piece * (65_536 // len(piece))
    # Quadratic would be minutes; this is far from a measurement.
    assert timed(lambda: masked(text)) < 5


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
