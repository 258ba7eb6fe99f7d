"""Books that an earlier version made (commit a096508) are opened with every entry as it was written.

`earlier/a096508.json` has the rows of its tables: a prepaid and an invoiced account with charges, a top-up,
an adjustment and refunds, each with a request in flight.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select, text

from tests.vendor_service.books import Books, opened_books
from vendor_service.clock import DAY
from vendor_service.database import schema
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError, OperatorError
from vendor_service.money import ledger
from vendor_service.money.orders import Order

EARLIER = json.loads((Path(__file__).parent / "earlier" / "a096508.json").read_text())


def hashes(books: Books) -> dict[tuple[str, int], str]:
    with books.database.read() as session:
        found = session.execute(text("SELECT account_id, seq, entry_hash FROM ledger_entries"))
        return {(row.account_id, row.seq): row.entry_hash for row in found}


def order_by(books: Books, key_id: str) -> Order:
    with books.database.read() as session:
        account_id = session.scalars(select(ApiKey.account_id).where(ApiKey.id == key_id)).one()
    return Order("", account_id, key_id, "icon-clip", "fp_2", images=1, texts=0, body_hash="b")


def put_in_place(books: Books) -> None:
    """Fill the tables as that version had them, and bring them to this version."""
    schema.downgrade(books.database, "0002")
    tables = MetaData()
    with books.database.engine.begin() as connection:
        tables.reflect(connection)
        connection.execute(tables.tables["prices"].delete())
        for name, rows in EARLIER["tables"].items():
            if rows:
                connection.execute(tables.tables[name].insert(), rows)
    schema.upgrade(books.database)


@pytest.mark.parametrize("terms", ["prepaid", "invoiced"])
def test_earlier_books_open_unchanged_and_go_on(database_url: str, terms: str) -> None:
    written: list[dict[str, Any]] = EARLIER["tables"]["ledger_entries"]
    with opened_books(database_url) as books:
        put_in_place(books)
        books.clock.now = EARLIER["now"]
        assert hashes(books) == {(row["account_id"], row["seq"]): row["entry_hash"] for row in written}
        order = order_by(books, EARLIER[terms])
        books.check(order)
        key = books.key(order)
        assert (key.project, key.requests_held, key.queries_held) == (None, 1, 2)
        with pytest.raises(OperatorError, match="refunded already"):
            _refund(books, order, 2)
        if terms == "prepaid":
            refunded = replace(order, model_fingerprint="fp_1", images=3, texts=1, idempotency_key="k")
            with pytest.raises(APIError, match="was refunded"):
                books.buy(refunded)
        search = books.open_project(order)
        books.buy(search, images=2)
        _refund(books, order, 1 if terms == "invoiced" else 3)
        books.check(search)
        assert [each.seq for each in books.entries(order)] == list(range(1, len(books.entries(order)) + 1))
        books.clock.now += 40 * DAY
        books.admission.void_abandoned()
        assert books.invoice(order, "2026-12").final
        books.check(order)


def _refund(books: Books, order: Order, seq: int) -> None:
    with books.locked(order) as (session, account):
        ledger.refund(session, account, seq, books.clock())
