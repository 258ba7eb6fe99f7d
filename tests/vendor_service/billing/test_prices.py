"""Prices of a running vendor: the books have them, a start changes none, and the log tells each change."""

import logging
from pathlib import Path

import pytest

from shared.serving.logging import TextFormatter
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.billing import prices
from vendor_service.billing.price_watch import PriceWatch
from vendor_service.clock import DAY, SECOND


def test_a_price_that_changes_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalVendor(tmp_path) as first:
        with first.books.write() as session:
            prices.set_price(session, "standard", "icon-clip", "image", 250, first.clock())
        watch = PriceWatch(first.books, first.clock)
        with first.books.write() as session:
            prices.set_price(session, "standard", "icon-clip", "text", 30, first.clock())
            prices.set_price(session, "standard", "icon-clip", "image", 90, first.clock() + DAY)
        with caplog.at_level(logging.INFO, "vendor_service.billing"):
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
