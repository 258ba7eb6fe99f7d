"""Tables for a terminal: names, and times that a vendor tells, are shown as they are."""

from typing import Any

import pytest

from client.cli.tables import print_batches, print_table
from shared.batches import BatchObject, RequestCounts


@pytest.mark.parametrize("name", ["photos [old]", "x[/y]", ":cat:", "{3F25}", "a\x1b[2Jb"])
def test_a_name_is_shown_as_it_is_wherever_it_stands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("class", name), [(name, 3)])
    shown = name.replace("\x1b", r"\x1b")
    header, row = (line for line in capsys.readouterr().out.splitlines() if shown in line)
    assert "class" in header
    assert "3" in row


def test_a_vendors_name_of_megabytes_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("model",), [("m" * 7_000_000,)])
    assert capsys.readouterr().out.count("m") < 2000


def test_a_job_that_began_at_no_date_is_listed_with_what_the_vendor_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for begun, shown in ((1_790_000_000, "2026-09-21"), (10**17, f"no date ({10**17})")):
        print_batches([BatchObject.model_construct(**_JOB, created_at=begun)])
        assert shown in capsys.readouterr().out


_JOB: dict[str, Any] = {
    "id": "b_1",
    "status": "in_progress",
    "request_counts": RequestCounts(total=3, completed=1, failed=0),
    "cost_micros": 10,
    "held_micros": 20,
}
