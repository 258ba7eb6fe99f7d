"""Group commit: pieces of work that come in while a transaction runs share the next one."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vendor_service.database.session import Database
from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.errors import Refusal

Result = TypeVar("Result")

# Beyond this a transaction would hold its locks for long.
_LARGEST_BATCH = 256
# How long work waits for a PostgreSQL that restarts, and how often it looks.
_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class _Piece(Generic[Result]):
    touched: Touched
    work: Callable[[WorkingSet], Result]
    future: "Future[Result]"


class Writer:
    """One thread that works through what is submitted, all that waits in one transaction. Thread-safe.

    No outcome is told before it is committed. A piece of work may raise `Refusal`, which is its own outcome
    alone, so it must not have changed anything by then. Any other error undoes the whole transaction, and
    what shared it is done again, each piece in its own. Where a database went away, the work is done again
    once it is back: a commit may have gone through although nobody said so, and work must allow for that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Piece[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()

    def submit(self, touched: Touched, work: Callable[[WorkingSet], Result]) -> "Future[Result]":
        """Have `work` done on the rows touched; cancelling the future before it has begun takes it back."""
        piece = _Piece(touched, work, Future())
        with self._changed:
            self._waiting.append(piece)
            self._changed.notify()
        return piece.future

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            begun = [piece for piece in batch if piece.future.set_running_or_notify_cancel()]
            if begun:
                self._finish(begun)

    def _finish(self, begun: Sequence[_Piece[Any]]) -> None:
        try:
            outcomes = self._commit_patiently(begun)
        except Exception as error:
            if len(begun) > 1 and not isinstance(error, Refusal):
                for alone in begun:  # one of them is at fault, and the others need not suffer
                    self._finish([alone])
                return
            outcomes = [(None, error)] * len(begun)
        for piece, (value, failure) in zip(begun, outcomes, strict=True):
            if failure is None:
                piece.future.set_result(value)
            else:
                piece.future.set_exception(failure)

    def _commit_patiently(self, begun: Sequence[_Piece[Any]]) -> list[tuple[Any, Exception | None]]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._commit(begun)
            except Refusal:  # the database is not there; SQLite has waited for its lock already
                if self._database.embedded or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def _commit(self, begun: Sequence[_Piece[Any]]) -> list[tuple[Any, Exception | None]]:
        with self._database.write() as session:
            rows = WorkingSet(session, [piece.touched for piece in begun])
            return [_outcome(piece, rows) for piece in begun]

    def _next_batch(self) -> list[_Piece[Any]]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(_LARGEST_BATCH, len(self._waiting)))]


def _outcome(piece: _Piece[Result], rows: WorkingSet) -> tuple[Result | None, Exception | None]:
    try:
        return piece.work(rows), None
    except Refusal as refusal:
        return None, refusal
