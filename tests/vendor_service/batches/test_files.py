"""Files on the books of both databases: the room that they take while they come."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.batches import BatchObject
from shared.errors import ErrorCode
from tests.vendor_service.batches.bulk_books import LIMITS, BulkProcess
from tests.vendor_service.books import Books, on_postgres, on_sqlite
from tests.vendor_service.database.test_writer import locked
from vendor_service.batches import book, files
from vendor_service.batches.intake import Fault, Intake, Piece, Taken
from vendor_service.batches.lines import LineReader
from vendor_service.database.session import Database
from vendor_service.database.tables import BatchJob, FilePiece, StoredFile
from vendor_service.database.view import View
from vendor_service.errors import APIError

ROOM = LIMITS.account_bytes


def process(books: Books) -> BulkProcess:
    return BulkProcess(books.database, books.clock, books.admission)


def test_files_that_come_without_their_size_take_room_as_they_come(books: Books) -> None:
    files, account_id = process(books).files, books.open().account_id
    first, second = files.begin(account_id, "", 0), files.begin(account_id, "", 0)
    assert 0 < files.grow(account_id, first, 1) - 1 < ROOM // 2  # and for some more
    assert files.grow(account_id, second, ROOM // 2) > ROOM // 2
    assert files.grow(account_id, first, ROOM // 4) > ROOM // 4
    with pytest.raises(APIError, match="delete some"):
        files.grow(account_id, first, ROOM // 2 + 1)
    files.finish(
        account_id,
        second,
        "in",
        Taken("", 7, "/embed", "icon-clip", [Piece(0, 0, 7, 1, counts=Counter({"text": 1}))]),
    )
    assert files.get(View.whole(account_id), second).bytes == 7
    assert files.grow(account_id, first, ROOM - 10) == ROOM - 7  # up to what is left
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, "", 1)
    files.give_up(first)
    with pytest.raises(APIError, match="too long to come"):
        files.grow(account_id, first, 1)
    assert files.begin(account_id, "", ROOM - 7)


@on_sqlite
def test_as_many_files_as_a_project_may_have_can_come_and_one_more_is_refused_at_its_beginning(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.batches.files._MOST_FILES", 2)
    files, account_id = process(books).files, books.open().account_id
    both = [files.begin(account_id, "", 0) for _ in range(2)]
    with pytest.raises(APIError, match="may have 2 files"):
        files.begin(account_id, "", 0)
    for each in both:
        files.grow(account_id, each, 7)
        taken = Taken("", 7, "/embed", "icon-clip", [Piece(0, 0, 7, 1, counts=Counter({"text": 1}))])
        files.finish(account_id, each, "in", taken)
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, "", 0)
    files.begin(account_id, "of another project", 0)


def many_pieces() -> Taken:
    """A file of 2,500 lines, each a piece of its own, of which the last cannot be asked."""
    pieces = [
        Piece(number, number, 1, 1, counts=Counter({"image": number % 2, "text": 3}))
        for number in range(2499)
    ]
    faulty = Piece(2499, 2499, 1, 1, faults={0: Fault("mine", "invalid_request", "the method is POST")})
    return Taken("", 2500, "/embed", "icon-clip", [*pieces, faulty])


def pieces_of(books: Books, file_id: str) -> list[FilePiece]:
    with books.database.read() as session:
        mine = select(FilePiece).where(FilePiece.file_id == file_id)
        return list(session.scalars(mine.order_by(FilePiece.number)))


def before_write(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Have something happen before the write of that number, from 1 on."""
    left, write = number, Database.write

    def counted(database: Database, *rest: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            act()
        return write(database, *rest)

    monkeypatch.setattr(Database, "write", counted)


def test_a_file_of_many_pieces_is_written_in_slices_and_listed_once_it_is_whole(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, account_id = process(books).files, books.open().account_id
    file_id = files.begin(account_id, "", 0)
    seen: list[tuple[int, int]] = []

    def look() -> None:
        listed, _ = files.page(View.whole(account_id), None, None, 10, newest_first=True)
        seen.append((len(pieces_of(books, file_id)), len(listed)))

    for number in (1, 2, 3):
        before_write(monkeypatch, number, look)
    files.finish(account_id, file_id, "in", many_pieces())
    look()
    assert seen == [(0, 0), (1000, 0), (2000, 0), (2500, 1)]
    file, pieces = files.get(View.whole(account_id), file_id), pieces_of(books, file_id)
    assert (file.lines, file.counts) == (2500, {"image": 1249, "text": 7497})
    assert [each.number for each in pieces] == [each.first_line for each in pieces] == list(range(2500))
    assert pieces[0].faults is None
    assert "the method is POST" in (pieces[-1].faults or "")


def faulty_pieces(count: int, message: str) -> Taken:
    """A file of so many pieces, in each of which one of two lines cannot be asked, for the same reason."""
    fault = Fault(None, "invalid_request", message)
    pieces = [
        Piece(2 * at, 2 * at, 2, 2, counts=Counter({"text": 1}), faults={1: fault}) for at in range(count)
    ]
    return Taken("", 2 * count, "/embed", "icon-clip", pieces)


@on_sqlite
def test_what_is_kept_of_faults_takes_room_of_its_account(books: Books) -> None:
    files, account_id = process(books).files, books.open().account_id
    file_id = files.begin(account_id, "", 0)
    files.finish(account_id, file_id, "in", faulty_pieces(10, "ж" * 100))
    kept = sum(len((each.faults or "").encode()) for each in pieces_of(books, file_id))
    assert 10 * 200 < kept < 10 * 300  # as UTF-8
    assert files.get(View.whole(account_id), file_id).bytes == 20
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, "", ROOM - 20 - kept + 1)
    another = files.begin(account_id, "", 2)
    files.begin(account_id, "", ROOM - 20 - kept - 2)
    with pytest.raises(APIError, match="delete some"):
        files.finish(account_id, another, "in", faulty_pieces(1, "x"))
    assert pieces_of(books, another) == []
    files.let_go(View.whole(account_id), file_id)
    files.remove(file_id)
    files.finish(account_id, another, "in", faulty_pieces(1, "x"))


@on_sqlite
def test_error_files_take_room_of_their_account_from_the_beginning_of_the_job_on(books: Books) -> None:
    """One file of a few bytes may serve many jobs, and its refused lines cost nothing."""
    bulk, order = process(books), books.open()
    files, account_id = bulk.files, order.account_id
    faulty, another = files.begin(account_id, "", 0), bulk.send(order, (0, 1))
    files.finish(account_id, faulty, "in", faulty_pieces(10, "x" * 100))
    file = files.get(View.whole(account_id), faulty)
    errors = 4 * file.fault_bytes
    rest = ROOM - file.bytes - file.fault_bytes - another.bytes
    filling = files.begin(account_id, "", rest - errors + 1)
    with pytest.raises(APIError, match="delete some"):
        bulk.begin_with(order, file)
    bulk.begin_with(order, another)  # which has no faults
    files.give_up(filling)
    job = bulk.begin_with(order, file)
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, "", rest - errors + 1)
    filling = files.begin(account_id, "", rest - errors)
    while (claim := bulk.claim()) is not None:
        bulk.settle(claim, texts=0 if claim.job.id == job.id else 1)
    error_file = bulk.jobs.get(View.whole(account_id), job.id).error_file_id or ""
    left = rest - files.get(View.whole(account_id), error_file).bytes
    files.give_up(filling)
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, "", left + 1)
    files.give_up(files.begin(account_id, "", left))  # what is answered takes none
    files.let_go(View.whole(account_id), error_file)
    files.remove(error_file)
    assert files.begin(account_id, "", rest)
    books.check(order)


@on_sqlite
def test_the_room_that_a_file_had_while_it_came_has_room_for_its_faults(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.batches.files._PIECES_AT_ONCE", 4)
    files, account_id = process(books).files, books.open().account_id
    files.begin(account_id, "", ROOM - 10_000)
    file_id = files.begin(account_id, "", 0)
    assert files.grow(account_id, file_id, 20) == 10_000
    files.finish(account_id, file_id, "in", faulty_pieces(10, "x" * 500))
    file = files.get(View.whole(account_id), file_id)
    assert file.bytes == 20
    assert 5_000 < file.fault_bytes < 9_980


def test_pieces_are_written_and_deleted_in_slices_of_few_bytes(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.batches.files._FAULT_BYTES_AT_ONCE", 10_000)
    monkeypatch.setattr("vendor_service.batches.files._PIECES_AT_ONCE", 50)
    files, account_id = process(books).files, books.open().account_id
    file_id = files.begin(account_id, "", 0)
    seen, write = [0], Database.write

    def watched(database: Database, *rest: Any) -> Any:
        seen.append(len(pieces_of(books, file_id)))
        return write(database, *rest)

    monkeypatch.setattr(Database, "write", watched)
    files.finish(account_id, file_id, "in", faulty_pieces(120, "x" * 350))  # each of some 400 bytes
    assert [each.number for each in pieces_of(books, file_id)] == list(range(120))
    assert 5 <= len(seen) - 1 <= 6
    assert all(0 < after - before <= 25 for before, after in pairwise([*seen[1:], 120]))
    written = seen[1:]
    files.let_go(View.whole(account_id), file_id)
    seen.clear()
    files.remove(file_id)
    assert seen == [120 - each for each in [*written, 120]]


def test_of_a_file_whose_pieces_were_being_written_when_a_vendor_died_nothing_is_left(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, account_id = process(books).files, books.open().account_id
    file_id = files.begin(account_id, "", 0)

    def die() -> None:
        raise ZeroDivisionError

    before_write(monkeypatch, 3, die)
    with pytest.raises(ZeroDivisionError):
        files.finish(account_id, file_id, "in", many_pieces())
    assert len(pieces_of(books, file_id)) == 2000
    with pytest.raises(APIError, match="has no file"):
        files.get(View.whole(account_id), file_id)
    books.clock.advance(2 * 3600)
    assert files.expired() == [file_id]
    files.remove(file_id)
    with books.database.read() as session:
        assert session.scalars(select(StoredFile)).all() == []
    assert pieces_of(books, file_id) == []


def test_a_file_that_is_given_up_while_its_pieces_are_written_is_not_finished(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, account_id = process(books).files, books.open().account_id
    file_id = files.begin(account_id, "", 0)
    before_write(monkeypatch, 2, lambda: files.give_up(file_id))
    with pytest.raises(APIError, match="too long to come"):
        files.finish(account_id, file_id, "in", many_pieces())
    assert pieces_of(books, file_id) == []


@on_sqlite
def test_a_file_that_cannot_be_removed_keeps_no_other_from_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, order = process(books), books.open()
    for _ in range(3):
        bulk.send(order, (1, 0))
    remove, tried = bulk.files.store.remove, list[str]()

    def remove_but_one(name: str) -> None:
        tried.append(name)
        if len(tried) == 1:
            raise APIError(ErrorCode.OVERLOADED, "the vendor's store of files is full or away; try again")
        remove(name)

    def left() -> int:
        with books.database.read() as session:
            return len(session.scalars(select(StoredFile)).all())

    books.clock.advance(LIMITS.keep_days * 24 * 3600)
    monkeypatch.setattr(bulk.files.store, "remove", remove_but_one)
    with pytest.raises(APIError, match="store of files"):
        bulk.files.remove_expired()
    assert left() == 1
    bulk.files.remove_expired()
    assert left() == 0


@on_sqlite
def test_more_files_than_are_deleted_at_once_that_stay_do_not_keep_the_others(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_EXPIRED_AT_ONCE", 2)
    bulk, order = process(books), books.open()
    for _ in range(6):
        bulk.send(order, (1, 0))
    books.clock.advance(LIMITS.keep_days * 24 * 3600)
    stay, removed = set[str](), list[str]()
    remove = bulk.files.store.remove

    def remove_but_three(name: str) -> None:
        if len(stay | {name}) <= 3:
            stay.add(name)
        if name in stay:
            raise APIError(ErrorCode.OVERLOADED, "the vendor's store of files is full or away; try again")
        remove(name)
        removed.append(name)

    monkeypatch.setattr(bulk.files.store, "remove", remove_but_three)
    for _ in range(300):  # each finds one of the others with a chance of a half or more
        if len(removed) == 3:
            break
        with suppress(APIError):
            bulk.files.remove_expired()
    with books.database.read() as session:
        left = {files.input_name(each.id) for each in session.scalars(select(StoredFile))}
    assert left == stay
    assert len(stay) == 3


@on_postgres
def test_a_file_that_expires_while_a_job_begins_on_it_stays_until_the_job_has_ended(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, order = process(books), books.open()
    file = bulk.send(order, (1, 0))
    books.clock.advance(LIMITS.keep_days * 24 * 3600)
    public, expired = book.public, list[list[str]]()

    def written(session: Session, job: BatchJob) -> BatchObject:
        expired.append(bulk.files.expired())  # the job is not committed yet
        return public(session, job)

    with monkeypatch.context() as patch:
        patch.setattr(book, "public", written)
        job = bulk.begin_with(order, file)
    assert expired == [[]]
    assert bulk.files.expired() == []
    assert bulk.files.get(View.whole(order.account_id), file.id).state == "ready"
    bulk.jobs.cancel(View.whole(order.account_id), job.id, "os:test")
    assert bulk.files.expired() == [file.id]
    with pytest.raises(APIError, match="has no file"):
        bulk.begin_with(order, file)
    books.check(order)


@on_postgres
def test_a_job_begins_on_no_file_that_leaves_at_this_moment(books: Books) -> None:
    with ThreadPoolExecutor(1) as pool:
        bulk, order = process(books), books.open()
        file = bulk.send(order, (1, 0))
        with locked(books.url, "UPDATE files SET state = 'leaving' WHERE id = %s", file.id):
            beginning = pool.submit(bulk.begin_with, order, file)
            books.buy(books.open())
            assert not beginning.done()
        with pytest.raises(APIError, match="has no file"):
            beginning.result(20)
        assert books.account(order).queries_held == 0
        books.check(order)


def text_line(custom_id: str, model: str) -> bytes:
    body = {"model": model, "input": "a cat"}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
    return f"{json.dumps(line)}\n".encode()


@pytest.mark.parametrize("model", ["x" * 256, "icon\0clip"], ids=["long", "NUL"])
@on_sqlite
def test_a_line_whose_model_the_books_cannot_name_is_no_first_line(books: Books, model: str) -> None:
    files, account_id = process(books).files, books.open().account_id
    intake = Intake(LineReader(64, 100), LIMITS)
    intake.feed(text_line("a", model) + text_line("b", "m" * 255))
    taken = intake.finish()
    file_id = files.begin(account_id, "", 0)
    files.finish(account_id, file_id, "in", taken)
    file, (piece,) = files.get(View.whole(account_id), file_id), pieces_of(books, file_id)
    assert (file.model, file.lines, file.counts) == ("m" * 255, 2, {"text": 1})
    fault = json.loads(piece.faults or "")["0"]
    assert fault["custom_id"] == "a"
    assert fault["message"].startswith("body.model: the name of a model")
