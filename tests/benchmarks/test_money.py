"""The vendors whose rates are compared answer, and charge where they say so."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from benchmarks import money
from benchmarks.money import BooksKept, images, served, text, throughput
from shared.processes import fork_server
from tests.support.forking import CONTEXT, Nursery
from vendor_service.database.session import Database
from vendor_service.database.tables import LedgerEntry


def _serve(*arguments: Any) -> None:
    """What a vendor's process runs; those that it starts are forked, too."""
    fork_server.launch = Nursery().launch_decoding
    money._serve(*arguments)


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have vendors start in a second, as those of other tests."""
    monkeypatch.setattr(money, "PROCESSES", CONTEXT)
    monkeypatch.setattr(money, "_serve", _serve)


@pytest.mark.parametrize(("books", "charges"), [("off", False), ("signed", True)])
def test_texts_and_images_are_answered(books: BooksKept, charges: bool, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    with served(url, books) as vendor:
        assert throughput(vendor, text(), 1, 0.2) > 0
        assert throughput(vendor, images(2), 1, 0.2) > 0
    with closing(Database(url)) as database, database.read() as session:
        charged = select(func.count()).where(LedgerEntry.kind == "charge")
        assert bool(session.scalar(charged)) == charges
