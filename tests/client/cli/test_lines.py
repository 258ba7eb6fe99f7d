"""`-` among words: the lines of standard input, as they are."""

import os
from io import BytesIO, TextIOWrapper

import pytest

from client.cli.lines import from_lines
from client.errors import UsageError


def _type(monkeypatch: pytest.MonkeyPatch, typed: bytes) -> None:
    """Standard input as Python opens it where the locale is UTF-8."""
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(typed), encoding="utf-8", errors="strict"))


def test_names_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"caf\xe9.png", b" a.png ", "caf\u00e9.png".encode(), b"b.png"]
    _type(monkeypatch, b"\n".join(names[:3]) + b"\r\n \n\n" + names[3])
    assert from_lines([], ["first.png", "-"]) == ([], ["first.png", *map(os.fsdecode, names)])


def test_lines_are_texts_or_images_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _type(monkeypatch, b"a dog\n")
    assert from_lines(["a cat"], ["a.png"]) == (["a cat"], ["a.png"])
    assert from_lines(["-"], ["a.png"]) == (["a dog"], ["a.png"])
    for texts, images in ((["-"], ["-"]), ([], ["-", "-"])):
        with pytest.raises(UsageError, match="read once"):
            from_lines(texts, images)
