"""The recorder: what several processes wrote is what one would have written, and nothing is lost."""

import stat
import time
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from tests.support.postgres import Postgres
from tests.vendor_service.books import Books, on_sqlite, opened_books, renewed
from tests.vendor_service.database.test_writer import ACCOUNT, locked
from tests.vendor_service.extraction.test_sketch import KEY, digests, unit_rows
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, Coverage, SketchRow
from vendor_service.errors import APIError, OperatorError
from vendor_service.extraction.key import read_or_make_key
from vendor_service.extraction.recorder import Answered, Recorder
from vendor_service.extraction.sketch import Sketch
from vendor_service.money import coverage
from vendor_service.money.orders import Order


def answered(order: Order, first: int, last: int) -> Answered:
    rows = unit_rows(last - first, seed=first)
    buckets = [number % 100 for number in range(first, last)]
    return Answered(order.account_id, order.model_fingerprint, digests(first, last), rows, buckets)


def known(books: Books, order: Order) -> tuple[int, int, float]:
    """Distinct inputs, buckets and effective rank as the books have them."""
    with books.database.read() as session:
        row = session.scalars(select(SketchRow).where(SketchRow.account_id == order.account_id)).one()
        covered = session.scalars(select(Coverage).where(Coverage.account_id == order.account_id)).one()
        buckets = coverage.bits_of(covered).bit_count()
    sketch = Sketch.of_stored(row.inputs, row.moment)
    return sketch.distinct_inputs, buckets, sketch.effective_rank


def test_what_several_processes_write_is_what_one_would_have_written(books: Books) -> None:
    one, several = books.open(), books.open()
    alone = Recorder(books.database, books.clock, KEY)
    processes = [Recorder(books.database, books.clock, KEY) for _ in range(3)]
    for number, start in enumerate(range(0, 300, 50)):
        alone.note(answered(one, start, start + 70))
        processes[number % 3].note(answered(several, start, start + 70))
        processes[number % 3].write()
    alone.write()
    assert known(books, one)[:2] == (320, 100)
    assert known(books, several) == pytest.approx(known(books, one), rel=1e-3)
    for order in (one, several):
        assert books.account(order).buckets_covered == 100
        books.check(order)


def test_what_could_not_be_written_is_written_the_next_time(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = books.open()
    recorder = Recorder(books.database, books.clock, KEY)
    recorder.note(answered(order, 0, 30))

    def away(*_: object) -> None:
        raise APIError(ErrorCode.OVERLOADED, "the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "_merge", away)
        with pytest.raises(APIError):
            recorder.write()
    recorder.note(answered(order, 20, 50))
    recorder.write()
    recorder.write()
    assert known(books, order)[:2] == (50, 50)


def test_one_account_that_fails_keeps_no_other_from_being_written(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.extraction.recorder._AT_ONCE", 1)
    orders = sorted((books.open() for _ in range(3)), key=lambda each: each.account_id)
    recorder = Recorder(books.database, books.clock, KEY)
    for each in orders:
        recorder.note(answered(each, 0, 30))
    add = coverage.add

    def broken(session: Session, account: Account, fingerprint: str, more: int) -> None:
        if account.id == orders[0].account_id:
            raise ValueError("its row is broken")
        add(session, account, fingerprint, more)

    with monkeypatch.context() as patched:
        patched.setattr(coverage, "add", broken)
        with pytest.raises(ValueError, match="broken"):
            recorder.write()
    assert [books.account(each).buckets_covered for each in orders] == [0, 30, 30]
    recorder.write()
    assert [books.account(each).buckets_covered for each in orders] == [30, 30, 30]


def test_a_locked_account_is_not_waited_for_and_is_written_the_next_time(postgres: Postgres) -> None:
    url = renewed(postgres)
    with opened_books(url) as books:
        orders = sorted((books.open() for _ in range(3)), key=lambda each: each.account_id)
        recorder = Recorder(books.database, books.clock, KEY)
        for each in orders:
            recorder.note(answered(each, 0, 30))
        with locked(url, ACCOUNT, orders[1].account_id):
            began = time.monotonic()
            recorder.write()
            assert time.monotonic() - began < 10
        assert [books.account(each).buckets_covered for each in orders] == [30, 0, 30]
        recorder.write()
        for each in orders:
            assert known(books, each)[:2] == (30, 30)
            books.check(each)


@on_sqlite
def test_without_a_key_inputs_are_not_counted_but_coverage_is(books: Books) -> None:
    order = books.open()
    recorder = Recorder(books.database, books.clock, None)
    recorder.note(answered(order, 0, 30))
    recorder.write()
    assert known(books, order)[:2] == (0, 30)


def test_the_key_is_made_once_for_its_owner_alone_and_is_not_in_the_books(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'books.db'}")
    key = read_or_make_key(database, None)
    file = tmp_path / "books.sketch-key"
    assert key == file.read_bytes() == read_or_make_key(database, None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["books.sketch-key"]
    assert read_or_make_key(database, tmp_path / "named") != key
    file.write_bytes(b"no key")
    with pytest.raises(OperatorError, match="no key of 32 bytes"):
        read_or_make_key(database, None)


def test_a_key_that_cannot_be_kept_is_told_and_not_made_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    database = Database(f"sqlite:///{tmp_path / 'books.db'}")
    assert read_or_make_key(database, tmp_path / "file") is None
    assert "VENDOR_KEYS_IN" in caplog.text
