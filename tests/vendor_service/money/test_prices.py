"""Prices of a running vendor: the books have them, a start changes none, and the log tells each change."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.logging import TextFormatter
from shared.kinds import cost_micros
from tests.vendor_service.books import Books, on_sqlite
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.clock import DAY, SECOND
from vendor_service.errors import UsageError
from vendor_service.money import prices
from vendor_service.money.invoice_formats import as_text
from vendor_service.money.price_log import PriceLog
from vendor_service.money.price_preview import preview, read_prices


def test_a_price_that_changes_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalVendor(tmp_path) as first:
        with first.books.write() as session:
            prices.set_price(session, "standard", "icon-clip", "image", 250, first.clock())
        watch = PriceLog(first.books, first.clock)
        with first.books.write() as session:
            prices.set_price(session, "standard", "icon-clip", "text", 30, first.clock())
            prices.set_price(session, "standard", "icon-clip", "image", 90, first.clock() + DAY)
        with caplog.at_level(logging.INFO, "vendor_service.money"):
            watch.look()
            watch.look()
            first.clock.advance(2 * DAY / SECOND)
            watch.look()
    told = [TextFormatter().format(each) for each in caplog.records]
    assert [line.partition("INFO ")[2] for line in told] == [
        "a price changed plan=standard model=icon-clip kind=text before=20 micros=30",
        "a price changed plan=standard model=icon-clip kind=image before=250 micros=90",
    ]


def test_a_start_keeps_the_prices_of_the_books_and_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "models.toml"
    table = '[[model]]\nid = "icon-clip"\nsource = "icon-clip"\ndefault = true\n'
    file.write_text(f"{table}prices.standard = {{image_micros = 70}}")
    with LocalVendor(tmp_path, models=file) as first:
        assert first.http.get("/v1/models").json()["data"][0]["prices"]["image_micros"] == 70
    assert "vendor prices set" not in caplog.text
    file.write_text(f"{table}prices.standard = {{image_micros = 90}}")
    with LocalVendor(tmp_path, models=file) as again:
        assert again.http.get("/v1/models").json()["data"][0]["prices"]["image_micros"] == 70
    assert "prices.standard.image_micros is 90, but the price in the books is 70" in caplog.text
    assert "vendor prices set icon-clip image 90micros" in caplog.text


def test_bulk_jobs_pay_half_or_what_the_plan_says(books: Books) -> None:
    order = books.open()
    with books.database.write() as session:
        now = books.clock()
        assert prices.batch(session, "standard", "icon-clip", now) == {"image": 50, "text": 10}
        prices.set_price(session, "research", "icon-clip", "image", 99, now)
        prices.set_price(session, "standard", "icon-clip", "batch-percent", 80, now + 1)
        prices.set_price(session, "research", "icon-clip", "batch-percent", 33, now + 2)
        session.flush()
        session.info.clear()
        for at, standard, research in (
            (0, (50, 10), (50, 10)),
            (1, (80, 16), (80, 16)),
            (2, (80, 16), (33, 7)),
        ):
            for plan, expected in (("standard", standard), ("research", research)):
                price = prices.batch(session, plan, "icon-clip", now + at)
                assert (price["image"], price["text"]) == expected
    books.clock.advance(1)
    with books.database.write() as session:
        for plan in ("standard", "research"):
            prices.unset_price(session, plan, "icon-clip", "batch-percent", books.clock())
    books.clock.advance(1)
    with books.database.read() as session:
        for plan, expected in (("standard", (50, 10)), ("research", (50, 10))):
            price = prices.batch(session, plan, "icon-clip", books.clock())
            assert (price["image"], price["text"]) == expected
        assert prices.current(session, "research", "icon-clip", books.clock())["image"] == 99
    assert books.buy(order).cost_micros == 100


@given(micros=st.integers(0, 10**12), percent=st.integers(0, 100), queries=st.integers(0, 10**5))
def test_a_part_of_a_price_is_exact_and_rounded_up(micros: int, percent: int, queries: int) -> None:
    part = prices.part_of(micros, percent)
    assert 100 * part - micros * percent in range(100)
    assert part <= micros
    assert prices.part_of(micros, 100) == micros
    # A job costs what its chunks cost, however it is cut.
    whole = cost_micros({"image": queries}, {"image": part, "text": 0})
    assert whole == sum(
        cost_micros({"image": each}, {"image": part, "text": 0})
        for each in (queries // 2, queries - queries // 2)
    )


@on_sqlite
def test_a_month_at_other_prices_says_who_pays_more_and_changes_nothing(books: Books) -> None:
    with books.database.write() as session:
        prices.set_price(session, "research", "icon-clip", "image", 70, books.clock())
    plain, research, idle = books.open(), books.open(plan="research"), books.open()
    books.buy(plain, images=10, texts=3)
    books.buy(research, images=10)
    books.buy(plain, images=4, held_until=books.clock() + DAY)  # a bulk job
    (_, of_bulk) = books.entries(plain)
    assert (of_bulk.batch, of_bulk.amount_micros) == (True, -200)
    written = "icon-clip image 0.0002  # twice\nicon-clip text 10micros research\n"
    with books.database.read() as session:
        found = preview(session, read_prices(session, written), "2026-11", books.clock())
        rows = {each.account: (each.charged_micros, each.at_new_micros) for each in found.data}
        assert rows == {"account-0": (1060 + 200, 2060 + 400), "account-1": (700, 700)}
        assert found.data[0].account == "account-0"
        assert (found.total.difference_micros, found.total.queries) == (1200, 27)
        wanted = read_prices(session, "icon-clip batch-percent 25")
        assert preview(session, wanted, "2026-11", books.clock()).total.difference_micros == -100
        for wrong, said in (
            ("icon-clip image", "line 1 is not"), ("icon-clip sound 1", "no kind 'sound'"),
            ("\nicon-clip image x", "line 2"), ("other image 1", "no model 'other'"),
            ("# nothing", "no price"),
            ("icon-clip batch-percent 101", "is no price"), ("icon-clip image -1", "is no price"),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=said):
                read_prices(session, wrong)
    for order in (plain, research, idle):
        books.check(order)
    books.clock.now += 31 * DAY
    lines = [(each.kind, each.batch, each.unit_micros, each.queries) for each in books.invoice(plain).lines]
    assert lines == [("image", False, 100, 10), ("image", True, 50, 4), ("text", False, 20, 3)] or lines == [
        ("text", False, 20, 3), ("image", False, 100, 10), ("image", True, 50, 4)
    ]  # fmt: skip
    assert "in bulk jobs" in as_text(books.invoice(plain))
