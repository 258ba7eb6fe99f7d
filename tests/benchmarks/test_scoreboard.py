"""benchmarks/scoreboard.py: every promise has a row, and one that was broken cannot look as if it held."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import evidence, results_page, score, scoreboard
from benchmarks.attacks import ATTACKS
from benchmarks.evidence import Evidence, Promise, found_by_attackers, promises, read_report
from benchmarks.probes import PROBES, Deployment, NotOffered
from benchmarks.results_page import written
from benchmarks.score import Row, scores
from benchmarks.scoreboard import NEIGHBOURS, the_one
from tests.support.figures import Figure, holds, taken
from tests.support.vendor_process import VendorProcess
from vendor_service.accounts.keys import Scope

_REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="test_c[1]" time="0.5"><properties>
  <property name="figure" value="[0.2, 1.5, &quot;s&quot;]"/></properties></testcase>
<testcase classname="tests.a.test_b" name="test_c[2]" time="0.25"><failure message="no"/></testcase>
<testcase classname="tests.a.test_b" name="test_d" time="0"><skipped message="no Chromium"/></testcase>
</testsuite></testsuites>"""
_PROMISE = Promise("Nothing breaks.", "A stranger", ("tests/a/test_b.py::test_c",))


def test_every_promise_of_the_page_has_a_row_and_every_attack_a_promise() -> None:
    stated = promises()
    assert len(stated) > 50
    for promise in stated:
        ids = [test for test in promise.tests if "::" in test]
        assert ids or promise == the_one(NEIGHBOURS, stated), promise.text
    for probe in PROBES.values():
        assert the_one(probe.promise, stated).tests
    with pytest.raises(LookupError):
        the_one("", stated)


def test_what_attackers_found_has_attacks_that_exist() -> None:
    found = found_by_attackers()
    assert len(found) >= 15
    for name, tests in found.items():
        for test in set(tests) - {*ATTACKS, *PROBES}:
            file, _, function = test.partition("::")
            assert f"def {function}(" in (evidence.ROOT / file).read_text(encoding="utf-8"), name


def test_a_report_of_tests_is_read_by_function_with_its_figures() -> None:
    read = read_report(_REPORT)
    assert read == {
        "tests/a/test_b.py::test_c": Evidence(1, 1, 0, 0.75, [Figure(0.2, 1.5, "s")], ["test_c[2]: no"]),
        "tests/a/test_b.py::test_d": Evidence(0, 0, 1, 0.0),
    }
    rows = list(score.tested(_PROMISE.tests, _PROMISE.text, read))
    (told,) = scores(rows, [_PROMISE])
    assert (told.tried, told.nearest) == (2, "at 0.2 of 1.5 s (`test_c`)")
    assert told.verdict == "BROKEN by tests/a/test_b.py::test_c"


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        ([Row("a", _PROMISE.text, tries=1)], 0, "| 1 | held |"),
        ([Row("a", _PROMISE.text, tries=2, broken=1)], 1, "BROKEN by a"),
        ([Row("a", _PROMISE.text, told="not offered")], 1, "not tried"),
        ([], 1, "not tried"),
    ],
)
def test_it_exits_with_1_if_a_promise_is_broken_or_was_not_tried(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    rows: list[Row],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(scoreboard, "promises", lambda: [_PROMISE])
    monkeypatch.setattr(scoreboard.Board, "rows", lambda _: iter(rows))
    assert scoreboard.main(["--json", str(tmp_path / "board.json")]) == code
    assert said in capsys.readouterr().out
    (told,) = json.loads((tmp_path / "board.json").read_text())
    assert [row["name"] for row in told["rows"]] == [row.name for row in rows]


def test_figures_are_kept_until_they_are_taken() -> None:
    taken()
    assert holds(1, 1, "s")
    assert not holds(2, 1, "s")
    assert [figure.share for figure in taken()] == [1, 2]
    assert not taken()


def test_the_tables_of_the_page_are_replaced_and_nothing_else() -> None:
    page, command = results_page.RESULTS.read_text(encoding="utf-8"), "make bench-attacks"
    new = written(page, command, "| a table |")
    assert written(new, command, "| another |").replace("| another |", "| a table |") == new
    assert len(new.splitlines()) < len(page.splitlines())
    with pytest.raises(SystemExit):
        written("a page", command, "")


@pytest.fixture(scope="module")
def deployment(vendor_process: VendorProcess) -> Iterator[Deployment]:
    keys = [vendor_process.create_key(scopes=frozenset(Scope)) for _ in range(2)]
    deployed = Deployment(vendor_process.url, *keys)
    yield deployed
    deployed.http.close()


@pytest.mark.parametrize(
    "name", sorted({*PROBES} - {"hostile_bodies", "worst_bodies"})  # which take long, and are tests as well
)  # fmt: skip
def test_attacks_on_a_vendor_that_runs_break_nothing_and_cost_what_they_say(
    deployment: Deployment, vendor_process: VendorProcess, name: str
) -> None:
    before = vendor_process.charges(deployment.key).queries
    try:
        figure = PROBES[name].try_on(deployment)
    except NotOffered:
        return
    assert figure.value <= figure.limit
    assert vendor_process.charges(deployment.key).queries - before <= PROBES[name].queries
