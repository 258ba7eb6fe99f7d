"""The vendors whose rates are compared answer, and charge where they say so."""

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks.money import BooksKept, images, served, text, throughput
from vendor_service.database.session import Database
from vendor_service.database.tables import LedgerEntry


@pytest.mark.parametrize(("books", "charges"), [("off", False), ("signed", True)])
def test_texts_and_images_are_answered(books: BooksKept, charges: bool, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    with served(url, books) as vendor:
        assert throughput(vendor, text(), 1, 0.2) > 0
        assert throughput(vendor, images(2), 1, 0.2) > 0
    with closing(Database(url)) as database, database.read() as session:
        charged = select(func.count()).where(LedgerEntry.kind == "charge")
        assert bool(session.scalar(charged)) == charges
