"""The billing log where its file cannot be written; what its lines say is tested where they come from."""

import json
from pathlib import Path

import pytest

from tests.vendor_service.books import HOLD_SECONDS, opened_books
from vendor_service.errors import APIError
from vendor_service.money.billing_log import open_billing_log


def test_a_file_that_cannot_be_opened_again_fails_no_decision_and_loses_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, old = tmp_path / "log", tmp_path / "old"
    folder.mkdir()
    with (
        opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books,
        open_billing_log(folder / "billing.jsonl"),
    ):
        order = books.open()
        books.buy(order)
        folder.rename(old)
        books.buy(order)
        with pytest.raises(APIError, match="spend limit"):
            books.admit(books.open(spend_limit_micros=1))
        books.admit(order)
        books.clock.advance(HOLD_SECONDS + 1)
        assert books.admission.sweep() == 1
        folder.mkdir()
        books.buy(order)
        assert books.account(order).queries_used == 3
        books.check(order)
    assert _outcomes(old / "billing.jsonl") == _outcomes(folder / "billing.jsonl") == ["held", "settled"]
    assert all("billing log cannot be written: [Errno 2]" in each for each in caplog.messages)
    told = [vars(each)["fields"]["outcome"] for each in caplog.records]
    assert told == ["held", "settled", "refused", "held", "voided"]


def _outcomes(log: Path) -> list[str]:
    return [json.loads(line)["outcome"] for line in log.read_text().splitlines()]
