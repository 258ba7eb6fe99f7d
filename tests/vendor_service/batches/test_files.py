"""Files on the books of both databases: the room that they take while they come."""

import pytest

from tests.vendor_service.batches.bulk_books import LIMITS, BulkProcess
from tests.vendor_service.books import Books
from vendor_service.batches.intake import Piece, Taken
from vendor_service.errors import APIError

ROOM = LIMITS.account_bytes


def process(books: Books) -> BulkProcess:
    return BulkProcess(books.database, books.clock, books.admission)


def test_files_that_come_without_their_size_take_room_as_they_come(books: Books) -> None:
    files, account_id = process(books).files, books.open().account_id
    first, second = files.begin(account_id, 0), files.begin(account_id, 0)
    assert 0 < files.grow(account_id, first, 1) - 1 < ROOM // 2  # and for some more
    assert files.grow(account_id, second, ROOM // 2) > ROOM // 2
    assert files.grow(account_id, first, ROOM // 4) > ROOM // 4
    with pytest.raises(APIError, match="delete some"):
        files.grow(account_id, first, ROOM // 2 + 1)
    files.finish(account_id, second, "in", Taken("", 7, "/embed", "icon-clip", [Piece(0, 0, 7, 1, texts=1)]))
    assert files.get(account_id, second).bytes == 7
    assert files.grow(account_id, first, ROOM - 10) == ROOM - 7  # up to what is left
    with pytest.raises(APIError, match="delete some"):
        files.begin(account_id, 1)
    files.give_up(first)
    with pytest.raises(APIError, match="too long to come"):
        files.grow(account_id, first, 1)
    assert files.begin(account_id, ROOM - 7)
