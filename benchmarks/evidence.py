"""Promises of the documents, and what their tests say: each test that a promise names is run once."""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from tests.support.figures import Figure

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/security.md"

_PROMISES = ROOT / "tests" / "surface" / "promises.toml"
_FOUND = Path(__file__).with_name("found.toml")
_PART = re.compile(r"^\*\*(.+?)\*\*|^- (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Promise:
    """What a page says, word for word; who would break it; and the tests that it names."""

    text: str
    part: str
    tests: tuple[str, ...]


@dataclass
class Evidence:
    """What came of a test in all its cases."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def promises() -> list[Promise]:
    """The promises of docs/security.md, in its order."""
    tests: Mapping[str, list[str]] = tomllib.loads(_PROMISES.read_text(encoding="utf-8"))[PAGE]
    part, found = "", {}
    for heading, item in _PART.findall((ROOT / PAGE).read_text(encoding="utf-8")):
        part = heading.rstrip(".") or part
        found[item] = part
    return [Promise(text, found.get(text, "What is not promised"), tuple(ids)) for text, ids in tests.items()]


def found_by_attackers() -> dict[str, tuple[str, ...]]:
    """What attackers once found, and the tests that show that it is closed."""
    return {name: tuple(tests) for name, tests in tomllib.loads(_FOUND.read_text(encoding="utf-8")).items()}


def run_tests(ids: Collection[str], *, slow: bool) -> dict[str, Evidence]:
    """Run tests in a process of their own, two at a time, and say what came of each function.

    Args:
        ids: `file::function`.
        slow: also those that are marked as slow.
    """
    if not ids:
        return {}
    marks = "not infinity and not scale" + ("" if slow else " and not slow")
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--workers=2", f"--junitxml={report}", "-m", marks]
        ran = subprocess.run([*command, *sorted(ids)], cwd=ROOT, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(f"the tests did not run:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
        return read_report(report.read_text(encoding="utf-8"))


def read_report(report: str) -> dict[str, Evidence]:
    """What a report of JUnit's form says, by test function."""
    tests: dict[str, Evidence] = defaultdict(Evidence)
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 (pytest wrote it just now)
        name = case.get("name", "").partition("[")[0]
        test = tests[f"{case.get('classname', '').replace('.', '/')}.py::{name}"]
        test.seconds += float(case.get("time", 0))
        failure = case.find("failure")
        if failure is None:
            failure = case.find("error")
        if failure is not None:
            test.failed += 1
            test.failures.append(f"{case.get('name')}: {failure.get('message', '')[:1000]}")
        elif case.find("skipped") is not None:
            test.skipped += 1
        else:
            test.passed += 1
        for each in case.iter("property"):
            if each.get("name") == "figure":
                test.figures.append(Figure(*json.loads(each.get("value", ""))))
    return dict(tests)
