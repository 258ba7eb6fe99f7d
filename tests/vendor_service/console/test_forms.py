"""What people write into fields: a comma is read between thousands, and nowhere else."""

import pytest

from vendor_service.console.forms import Fields
from vendor_service.errors import UsageError
from vendor_service.terms import money


def field(written: str) -> Fields:
    return Fields((("amount", written),))


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("12.5", 12_500_000),
        ("1,234.5", 1_234_500_000),
        ("-1,234,567", -1_234_567_000_000),
        ("\u22121,234.50", -1_234_500_000),
        (" 0.000001 ", 1),
        ("", None),
    ],
)
def test_an_amount_may_have_commas_between_thousands(written: str, micros: int | None) -> None:
    amount = field(written).money("amount")
    assert (amount and amount.of_books_in(None)) == micros


@pytest.mark.parametrize(
    "written",
    ["12,50", "12,5", "0,500", "1,2345", "1234,567", "1,23,456", "1.234,567", ",5", "5,", ",", "1e,5"],
)
def test_no_comma_is_dropped_from_an_amount(written: str) -> None:
    with pytest.raises(UsageError, match=r"amount: .* is not an amount; .* as in 12\.50"):
        field(written).money("amount")


def test_what_the_pages_show_can_be_sent_back() -> None:
    for micros in (1, -1, 999_999_999, 1_000_000_000, -1_234_567_890_123):
        amount = field(money(micros)).money("amount")
        assert amount is not None
        assert amount.micros == micros


@pytest.mark.parametrize(
    ("written", "number"), [("1000", 1000), ("1,000", 1000), ("-1,000,000", -1_000_000), ("1_000", 1000)]
)
def test_a_number_may_have_commas_between_thousands(written: str, number: int) -> None:
    assert field(written).number("amount") == number


@pytest.mark.parametrize("written", ["1,5", "1,50", "0,500", "10,00", "1,000.5", "1000,", ","])
def test_no_comma_is_dropped_from_a_number(written: str) -> None:
    with pytest.raises(UsageError, match="amount: write a whole number, as in 1000"):
        field(written).number("amount")
