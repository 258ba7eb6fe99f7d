"""Every promise of the documents stands in promises.toml, with tests that exist."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).with_name("promises.toml")
_PROMISES: dict[str, dict[str, list[str]]] = tomllib.loads(_HERE.read_text(encoding="utf-8"))
# The part of docs/security.md whose lists are promises.
_LISTS = re.compile(r"^## Who could do harm.*?(?=^## )", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", _PROMISES)
def test_each_page_says_what_is_promised_here(page: str) -> None:
    text = " ".join((_ROOT / page).read_text(encoding="utf-8").split())
    missing = [each for each in _PROMISES[page] if each not in text]
    assert not missing, f"{page} does not say this (any more); change or delete it in {_HERE.name}"


def test_each_item_of_the_lists_of_security_stands_here() -> None:
    part = _LISTS.search((_ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert part is not None
    items = re.findall(r"^- (.*)", part[0], re.MULTILINE)
    assert len(items) > 40
    missing = [each for each in items if each not in _PROMISES["docs/security.md"]]
    assert not missing, f"add these to {_HERE.name}, with the tests that hold them"


@pytest.mark.parametrize("page", _PROMISES)
def test_each_promise_has_tests_and_they_exist(page: str) -> None:
    assert not [promise for promise, tests in _PROMISES[page].items() if not tests], "no test"
    missing = [test for tests in _PROMISES[page].values() for test in tests if not _exists(test)]
    assert not missing, f"there is no such test (any more); name in {_HERE.name} those that hold the promise"


def _exists(test: str) -> bool:
    if test.startswith("make "):
        return f"\n{test.removeprefix('make ')}:" in _text("Makefile")
    file, _, function = test.partition("::")
    return (_ROOT / file).is_file() and re.search(
        rf"^(?:async )?def {function}\(", _text(file), re.M
    ) is not None


@cache
def _text(file: str) -> str:
    return (_ROOT / file).read_text(encoding="utf-8")
