"""The report of what answers have given away, from real answers of a real vendor to the command's output."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from shared.billing import AccountStatus, UsageReport
from tests.vendor_service.books import Books
from tests.vendor_service.extraction.test_recorder import answered
from tests.vendor_service.extraction.test_sketch import KEY
from tests.vendor_service.local_vendor import LocalVendor, error_code, image_file, image_input
from vendor_service.cli.main import app
from vendor_service.database.tables import Coverage, SketchRow
from vendor_service.extraction import curve
from vendor_service.extraction.recorder import Recorder
from vendor_service.extraction.report import ALL, extraction, meaning


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_accounts_are_told_apart_together_and_beside_the_one_most_like_them(books: Books) -> None:
    orders, spans = [books.open() for _ in range(3)], ((0, 60), (30, 90), (200, 240))
    recorder = Recorder(books.database, books.clock, KEY)
    for order, (begin, end) in zip(orders, spans, strict=True):
        recorder.note(answered(order, begin, end))
        books.buy(order, images=end - begin)
    recorder.write()
    with books.database.read() as session:
        rows = extraction(session)
        (alone,) = extraction(session, books.account(orders[1]))
    by_name = {row.account: row for row in rows}
    assert [row.account for row in rows] == [ALL, "account-0", "account-1", "account-2"]
    assert (by_name[ALL].queries, by_name[ALL].distinct_inputs, by_name[ALL].buckets) == (160, 130, 90)
    first, second, third = (by_name[f"account-{number}"] for number in range(3))
    assert (first.queries, first.distinct_inputs, first.buckets) == (60, 60, 60)
    assert (first.alike, first.shared_inputs) == ("account-1", 0.333)
    assert (second.alike, second.shared_inputs, second.shared_buckets) == ("account-0", 0.333, 0.333)
    assert (third.alike, third.shared_inputs, third.shared_buckets) == ("account-0", 0.0, 0.667)
    assert second == alone
    assert "account-1 has asked icon-clip about 60 different inputs" in meaning(second)
    assert "60 of 4,096 buckets" in meaning(second)


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_inputs_under_two_keys_are_not_compared_but_coverage_is(books: Books) -> None:
    order = books.open()
    for key in (KEY, b"another".ljust(32)):
        recorder = Recorder(books.database, books.clock, key)
        recorder.note(answered(order, 0, 40))
        recorder.write()
    with books.database.read() as session:
        (row,) = extraction(session)
    assert (row.distinct_inputs, row.buckets) == (80, 40)


def test_the_curve_that_comes_with_the_vendor_rises_with_coverage() -> None:
    found = [curve.expected(buckets) for buckets in (1, 100, 400, 1000, 4096)]
    fidelities = [each for each in found if each is not None]
    assert len(fidelities) == 5
    assert curve.expected(0) is None
    for before, after in pairwise(fidelities):
        assert 0 <= before.cosine <= after.cosine <= 1
        assert 0 <= before.agreement <= after.agreement <= 1
    assert fidelities[-1].cosine == max(point.cosine for point in curve.measured())
    assert fidelities[3].cosine > fidelities[1].cosine


def vendor_command(vendor: LocalVendor, *arguments: str) -> Any:
    done = CliRunner().invoke(app, ["extraction", *arguments, "--database-url", vendor.database_url])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_a_vendor_answered_is_in_its_report(tmp_path: Path) -> None:
    colours = [image_input(image_file(colour)) for colour in ("red", "green", "blue", "white")]
    with LocalVendor(tmp_path) as vendor:
        key, limited = vendor.key(), vendor.key(coverage_limit=3)
        vendor.embed(key, *colours, {"text": "a cat"}, colours[0])
        vendor.embed(key, *colours)
        assert vendor.embed(limited, *colours[:2]).status_code == 200
        # Counted with the charge, and not some seconds later.
        usage = UsageReport.model_validate(vendor.get("/v1/usage", limited))
        assert 1 <= usage.buckets_covered <= 2
        assert usage.coverage_limit == 3
        status = AccountStatus.model_validate(vendor.get("/v1/account", limited))
        assert (status.buckets_covered, status.coverage_limit) == (usage.buckets_covered, 3)
        refused = vendor.embed(limited, *colours)
        assert error_code(refused) == "coverage_limit_reached"
        assert vendor.get("/v1/usage", limited)["total"]["billed_queries"] == 2
    # The server has written by its end.
    rows = json.loads(vendor_command(vendor, "report", "--json"))
    most = rows[1]
    assert rows[0]["account"] == ALL
    assert (most["queries"], most["distinct_inputs"]) == (10, 5)
    assert 2 <= most["buckets"] == rows[0]["buckets"] <= 5
    assert most["effective_rank"] > 1
    assert rows[2]["buckets"] == usage.buckets_covered
    assert "different inputs" in vendor_command(vendor, "report", most["account"])
    vendor_command(vendor, "forget", most["account"], "--yes")
    vendor_command(vendor, "forget", rows[2]["account"], "--yes")
    with vendor.books.read() as session:
        assert session.scalars(select(SketchRow)).all() == []
        (kept,) = session.scalars(select(Coverage)).all()  # of the account with a limit
    assert kept.account_id
    (left,) = json.loads(vendor_command(vendor, "report", "--json"))
    assert (left["buckets"], left["distinct_inputs"]) == (usage.buckets_covered, 0)
    done = CliRunner().invoke(app, ["ledger", "verify", "--database-url", vendor.database_url])
    assert done.exit_code == 0, done.output


def test_a_vendor_that_keeps_no_sketches_still_limits_coverage(tmp_path: Path) -> None:
    with LocalVendor(tmp_path, sketches=False) as vendor:
        free, limited = vendor.key(), vendor.key(coverage_limit=1)
        vendor.embed(free, {"text": "a cat"})
        assert vendor.embed(limited, {"text": "a cat"}).status_code == 200
        assert error_code(vendor.embed(limited, {"text": "a cat"})) == "coverage_limit_reached"
    assert not (tmp_path / "local.sketch-key").exists()
    (row,) = json.loads(vendor_command(vendor, "report", "--json"))
    assert (row["buckets"], row["distinct_inputs"], row["effective_rank"]) == (1, 0, None)


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", [["report", "nobody"], ["forget", "nobody", "--yes"]])
def test_an_unknown_account_is_told(books: Books, command: list[str]) -> None:
    url = books.url
    done = CliRunner().invoke(app, ["extraction", *command, "--database-url", url])
    assert "no account 'nobody'" in str(done.exception)
