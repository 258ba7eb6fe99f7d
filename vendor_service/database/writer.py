"""Group commit: pieces of work that come in while a transaction runs share the next one."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from vendor_service.database.session import Database
from vendor_service.errors import Refusal

Result = TypeVar("Result")


class Writer:
    """One thread that works through what is submitted, all that waits in one transaction. Thread-safe.

    No outcome is told before it is committed. A piece of work may raise `Refusal`, which is its own outcome
    alone, so it must not have changed anything by then. Any other error undoes the whole transaction, and
    what shared it is done again, each piece in its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[str, Future[Any], Callable[[Session], Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()

    def submit(self, account_id: str, work: Callable[[Session], Result]) -> "Future[Result]":
        """Have `work` done on an account; cancelling the future before it has begun takes it back."""
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((account_id, future, work))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            # Always in this order, so that two processes never wait for accounts that the other has locked.
            batch.sort(key=lambda each: each[0])
            self._commit(
                [(future, work) for _, future, work in batch if future.set_running_or_notify_cancel()]
            )

    def _commit(self, begun: Sequence[tuple["Future[Any]", Callable[[Session], Any]]]) -> None:
        try:
            with self._database.write() as session:
                outcomes = [(future, *_outcome(session, work)) for future, work in begun]
        except Exception as error:
            if len(begun) > 1 and not isinstance(error, Refusal):
                for alone in begun:  # one of them is at fault, and the others need not suffer
                    self._commit([alone])
                return
            outcomes = [(future, None, error) for future, _ in begun]
        for future, value, failure in outcomes:
            if failure is None:
                future.set_result(value)
            else:
                future.set_exception(failure)

    def _next_batch(self) -> list[tuple[str, "Future[Any]", Callable[[Session], Any]]]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch = list(self._waiting)
            self._waiting.clear()
            return batch


def _outcome(session: Session, work: Callable[[Session], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return work(session), None
    except Refusal as refusal:
        return None, refusal
