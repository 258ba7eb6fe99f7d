"""Group commit: pieces of work that come in while a transaction runs share the next one."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.database.rows import ChargeRow
from vendor_service.database.session import Database
from vendor_service.database.working_set import Touched, WorkingSet, lock_account
from vendor_service.errors import APIError, CommitInDoubt, RowLocked

Result = TypeVar("Result")
Outcome = tuple[Any, Exception | None]

# Beyond this a transaction would hold its locks for long.
_LARGEST_BATCH = 256
# Where work comes in from several at once, a transaction waits for as much as others did of late, but at most
# so long: most of what one costs does not depend on how much it does, and whoever was answered comes back.
# While the process is busy it waits so often: others come as fast as they can be worked on, and a transaction
# beside that takes several times as long, since both want Python's lock.
_GATHER_SECONDS, _MOST_WAITS, _BUSY = 0.004, 5, 0.8
# How long the transactions of all accounts wait for a row that another one has locked.
_LOCK_SECONDS = 0.1
# How long work waits for a PostgreSQL that restarts or an account that is locked, and how often it looks.
_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.2
# How long one asks after work of which nobody knows whether it was committed.
_DOUBT_SECONDS = 90.0
# How many locked accounts are waited for at once, each on a connection of its own.
_MOST_APART = 8


@dataclass(frozen=True)
class _WorkItem(Generic[Result]):
    touched: Touched
    work: Callable[[WorkingSet], Result]
    future: "Future[Result]"

    def begin(self) -> bool:
        """Whether it is to be done: from now on nobody can take it back."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def tell(self, outcome: Outcome) -> None:
        """Tell whoever submitted it."""
        value, failure = outcome
        if failure is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(failure)


class Writer:
    """Works through what is submitted, all that waits in one transaction. Thread-safe.

    No outcome is told before it is committed. A piece of work may raise `APIError`, which is its own outcome
    alone, so it must not have changed anything by then. Any other error undoes the whole transaction, and
    what shared it is done again, each piece in its own. Where a database went away, the work is done again
    once it is back: a commit may have gone through although nobody said so, and work must allow for that.

    One thread does it. It waits for no account that another transaction has locked, and for a moment only
    for any other row: work that needs such a one is done apart, when that lets go, or is refused
    (`overloaded`). What comes of its account until then shares its transaction, in the order in which it
    came. So processes that serve one account take turns, each with all that it has.
    """

    def __init__(
        self, database: Database, write_charges: Callable[[Session, Sequence[ChargeRow]], None] | None = None
    ) -> None:
        """Begin; `write_charges` writes what pieces of work append to the ledger."""
        self._database = database
        self._working_set = (
            WorkingSet if write_charges is None else partial(WorkingSet, write_charges=write_charges)
        )
        self._waiting: deque[_WorkItem[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._enough = 1  # how many pieces of work must wait for the thread to be woken
        # How many a transaction did: the most, less one for each since; 1 once one came alone.
        self._of_late = 1
        self._apart = ThreadPoolExecutor(_MOST_APART, "books-apart")
        self._locked: dict[str, list[_WorkItem[Any]]] = {}  # by account, what waits for its lock
        # By account among them that has a thread: whether it was free when that wanted it.
        self._was_free: dict[str, bool] = {}
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()

    def submit(self, touched: Touched, work: Callable[[WorkingSet], Result]) -> "Future[Result]":
        """Have `work` done on the rows touched; cancelling the future before it has begun takes it back.

        Once this is closed, the future raises `APIError` (`shutting_down`).
        """
        piece = _WorkItem(touched, work, Future())
        with self._changed:
            if self._closed:
                piece.future.set_exception(
                    APIError(ErrorCode.SHUTTING_DOWN, "the vendor stops", retry_after=1)
                )
                return piece.future
            self._waiting.append(piece)
            if len(self._waiting) >= self._enough:
                self._changed.notify()
        return piece.future

    def close(self) -> None:
        """Finish what was submitted, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._apart.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            begun = [piece for piece in batch if piece.begin()]
            if here := self._to_try_here(begun):
                self._finish(here, wait=False)

    def _to_try_here(self, begun: Sequence[_WorkItem[Any]]) -> list[_WorkItem[Any]]:
        """What can be tried here; work on accounts that have a thread apart is left to that."""
        here: list[_WorkItem[Any]] = []
        with self._changed:
            for piece in begun:
                account_id = piece.touched.account_id
                (self._locked[account_id] if account_id in self._was_free else here).append(piece)
        return here

    def _finish(self, begun: list[_WorkItem[Any]], *, wait: bool, account_id: str | None = None) -> None:
        """Do the work and tell its outcome; what would have to `wait` for a lock, and may not, goes apart.

        Where it waits for an `account_id`, what waits for that too joins it once it is locked.
        """
        try:
            outcomes = self._commit_patiently(begun, _PATIENCE_SECONDS, wait=wait, account_id=account_id)
        except CommitInDoubt as doubt:
            with self._changed:
                if apart := not (wait and self._closed):  # a thread apart may be the last one, once it closes
                    self._apart.submit(self._ask_after, begun, doubt)
            if not apart:
                self._ask_after(begun, doubt)
            return
        except Exception as error:
            if isinstance(error, RowLocked) and not wait:
                self._part(begun)
                return
            if len(begun) > 1 and not isinstance(error, APIError):
                for alone in begun:  # one of them is at fault, and the others need not suffer
                    self._finish([alone], wait=wait)
                return
            outcomes = [(None, error)] * len(begun)
        for piece, outcome in zip(begun, outcomes, strict=True):
            if outcome is None:
                self._put_apart(piece)
            else:
                piece.tell(outcome)

    def _part(self, begun: Sequence[_WorkItem[Any]]) -> None:
        """Do the work of each account by itself; that of one whose rows are locked goes apart."""
        by_account: dict[str, list[_WorkItem[Any]]] = {}
        for piece in begun:
            by_account.setdefault(piece.touched.account_id, []).append(piece)
        for mine in by_account.values():
            if len(by_account) > 1:
                self._finish(mine, wait=False)
            else:
                for piece in mine:
                    self._put_apart(piece)

    def _put_apart(self, piece: _WorkItem[Any]) -> None:
        account_id = piece.touched.account_id
        with self._changed:
            is_new = account_id not in self._locked
            self._locked.setdefault(account_id, []).append(piece)
        if is_new:
            self._apart.submit(self._work_off, account_id)

    def _work_off(self, account_id: str) -> None:
        """Wait for one account and do what waits for it; what comes later is tried again once it is free."""
        while True:
            with self._changed:
                batch = self._take(account_id, _LARGEST_BATCH)
                self._was_free[account_id] = False
            self._finish(batch, wait=True, account_id=account_id)
            with self._changed:
                late = self._locked[account_id]
                if late and self._closed:
                    continue  # nobody may be left to try it again
                if late and not self._was_free[account_id]:
                    self._apart.submit(self._work_off, account_id)  # after others that wait for a thread
                else:
                    del self._locked[account_id], self._was_free[account_id]
                    self._waiting.extendleft(reversed(late))
                    self._changed.notify()
                return

    def _take(self, account_id: str, most: int) -> list[_WorkItem[Any]]:
        """The oldest work that waits for an account, and no more of it than that."""
        waiting = self._locked[account_id]
        self._locked[account_id] = waiting[most:]
        return waiting[:most]

    def _ask_after(self, pieces: list[_WorkItem[Any]], doubt: CommitInDoubt) -> None:
        """Do again, for long, what may have been committed: the work finds that it was done, or does it."""
        try:
            outcomes = self._commit_patiently(pieces, _DOUBT_SECONDS, wait=True, doubt=doubt)
        except Exception as error:
            outcomes = [(None, error)] * len(pieces)
        for piece, outcome in zip(pieces, outcomes, strict=True):
            assert outcome is not None  # it has waited
            piece.tell(outcome)

    def _commit_patiently(
        self,
        begun: list[_WorkItem[Any]],
        seconds: float,
        *,
        wait: bool,
        account_id: str | None = None,
        doubt: CommitInDoubt | None = None,
    ) -> "list[Outcome | None]":
        """Commit, and again for so many `seconds` where that fails; `doubt` is that of an earlier try."""
        began = time.monotonic()
        while True:
            left = began + (min(seconds, _PATIENCE_SECONDS) if self._closed else seconds) - time.monotonic()
            try:
                return self._commit(begun, left, wait=wait, account_id=account_id)
            except APIError as error:  # it is not there, or locked; SQLite has waited for its lock already
                doubt = error if isinstance(error, CommitInDoubt) else doubt
                others_wait = isinstance(error, RowLocked) and not wait
                if self._database.embedded or left <= 0 or others_wait:
                    raise doubt or error from error.__cause__
                time.sleep(_RETRY_SECONDS)

    def _commit(
        self, begun: list[_WorkItem[Any]], seconds: float, *, wait: bool, account_id: str | None
    ) -> "list[Outcome | None]":
        """The outcomes; `None` for work on an account that is locked, if it may not `wait` for that."""
        # Who may not wait passes over accounts that are locked.
        with self._database.write(lock_seconds=seconds if wait else _LOCK_SECONDS) as session:
            if account_id is not None:
                was_free = lock_account(session, account_id)
                with self._changed:
                    self._was_free[account_id] = was_free
                    begun += self._take(account_id, _LARGEST_BATCH - len(begun))
            rows = self._working_set(session, [piece.touched for piece in begun], wait=wait)
            outcomes = [
                None if piece.touched.account_id in rows.busy else _outcome(piece, rows) for piece in begun
            ]
            rows.write()
            return outcomes

    def _next_batch(self) -> list[_WorkItem[Any]]:
        with self._changed:
            self._await(1, None)
            if self._of_late > 1:
                self._gather()
            batch = [self._waiting.popleft() for _ in range(min(_LARGEST_BATCH, len(self._waiting)))]
            self._of_late = max(len(batch), self._of_late - 1) if len(batch) > 1 else 1
        return batch

    def _gather(self) -> None:
        """Wait for as much work as transactions did of late, for longer while the process is busy."""
        for _ in range(_MOST_WAITS):
            used, began = time.process_time(), time.monotonic()
            self._await(self._of_late, _GATHER_SECONDS)
            if len(self._waiting) >= self._of_late or self._closed:
                return
            if time.process_time() - used < _BUSY * (time.monotonic() - began):
                return

    def _await(self, pieces: int, seconds: float | None) -> None:
        """Wait until so many pieces of work wait, so many seconds have gone, or nothing more is taken."""
        self._enough = pieces
        self._changed.wait_for(lambda: self._closed or len(self._waiting) >= pieces, seconds)


def _outcome(piece: _WorkItem[Result], rows: WorkingSet) -> Outcome:
    try:
        return piece.work(rows), None
    except APIError as error:
        return None, error
