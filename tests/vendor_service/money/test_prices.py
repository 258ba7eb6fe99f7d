"""Prices of a running vendor: the books have them, a start changes none, and the log tells each change."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.logging import TextFormatter
from shared.kinds import cost_micros
from tests.vendor_service.books import Books
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.clock import DAY, SECOND
from vendor_service.money import prices
from vendor_service.money.price_log import PriceLog


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
    with LocalVendor(tmp_path, image_price_micros=70) as first:
        assert first.http.get("/v1/models").json()["data"][0]["prices"]["image_micros"] == 70
    assert "vendor prices set" not in caplog.text
    with LocalVendor(tmp_path, image_price_micros=90) as again:
        assert again.http.get("/v1/models").json()["data"][0]["prices"]["image_micros"] == 70
    assert "VENDOR_IMAGE_PRICE_MICROS is 90, but the price in the books is 70" in caplog.text
    assert "vendor prices set icon-clip image 90" in caplog.text


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
