"""Group commit: pieces of work that come in while a transaction runs share the next one."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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
# How many locked accounts are waited for at once, each on a connection of its own, and for how long before
# others have a turn: that is not yet an outage of the database.
_MOST_APART = 8
_TURN_SECONDS = 0.9

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _WorkItem(Generic[Result]):
    touched: Touched
    work: Callable[[WorkingSet], Result]
    future: "Future[Result]"
    until: float  # on the monotonic clock; what fails after that is not tried again
    doubt: CommitInDoubt | None = None  # of a commit that may have done it

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

    def give_up(self, error: Exception) -> None:
        """Tell that it failed, or that nobody knows, where a commit may have done it."""
        self.future.set_exception(self.doubt or error)


class Writer:
    """Works through what is submitted, all that waits in one transaction. Thread-safe.

    No outcome is told before it is committed. A piece of work may raise `APIError`, which is its own outcome
    alone, so it must not have changed anything by then. Any other error undoes the whole transaction, and
    what shared it is done again, each piece in its own. Where a database went away, the work is done again
    once it is back: a commit may have gone through although nobody said so, and work must allow for that.

    One thread does it. It waits for no account that another transaction has locked, and for a moment only
    for any other row: work that needs such a one is done apart, when that lets go, or is refused
    (`overloaded`) ten seconds after it was submitted. What comes of its account while a thread waits for that
    shares its transaction, in the order in which it came. So processes that serve one account take turns,
    each with all that it has. No transaction holds an account while it waits for another one.
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
        self._ends = math.inf  # on the monotonic clock; nothing is tried again after that
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
        piece = _WorkItem(touched, work, Future(), until=time.monotonic() + _PATIENCE_SECONDS)
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
            self._closed, self._ends = True, time.monotonic() + _PATIENCE_SECONDS
            self._changed.notify()
        self._thread.join()
        self._apart.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            begun = [piece for piece in batch if piece.begin()]
            if here := self._to_try_here(begun):
                self._finish(here)

    def _to_try_here(self, begun: Sequence[_WorkItem[Any]]) -> list[_WorkItem[Any]]:
        """What can be tried here; work on accounts that have a thread apart is left to that."""
        here: list[_WorkItem[Any]] = []
        with self._changed:
            for piece in begun:
                account_id = piece.touched.account_id
                (self._locked[account_id] if account_id in self._was_free else here).append(piece)
        return here

    def _finish(self, begun: list[_WorkItem[Any]]) -> None:
        """Do the work and tell its outcome; what would have to wait for a lock goes apart."""
        began = time.monotonic()
        while begun:
            try:
                outcomes = self._commit(begun, _LOCK_SECONDS, wait=False)
            except RowLocked:
                self._part(begun)
                return
            except APIError as error:  # the database is not there; SQLite has waited for its lock already
                begun = self._to_try_again(begun, error)
                if time.monotonic() > began + _PATIENCE_SECONDS:
                    self._put_apart(begun)  # what is in doubt, and nobody else waits for that
                    return
                if begun:
                    time.sleep(_RETRY_SECONDS)
            except Exception as error:
                if len(begun) == 1:
                    begun[0].give_up(error)
                    return
                for alone in begun:  # one of them is at fault, and the others need not suffer
                    self._finish([alone])
                return
            else:
                self._put_apart(_told(begun, outcomes))
                return

    def _part(self, begun: list[_WorkItem[Any]]) -> None:
        """Do the work of each account by itself; that of one whose rows are locked goes apart."""
        by_account = _by_account(begun)
        if len(by_account) == 1:
            self._put_apart(begun)
            return
        for mine in by_account.values():
            self._finish(mine)

    def _put_apart(self, pieces: Iterable[_WorkItem[Any]]) -> None:
        """Have a thread wait for each account; what may be done already waits by itself, and for longer."""
        for account_id, mine in _by_account(pieces).items():
            doubtful, others = _by_doubt(mine)
            with self._changed:
                if others and account_id not in self._locked:
                    self._apart.submit(self._work_off, account_id)
                if others:
                    self._locked.setdefault(account_id, []).extend(others)
            if doubtful:
                self._apart.submit(self._ask_after, doubtful)

    def _work_off(self, account_id: str, *, waited: bool = False) -> None:
        """Wait for one account and do what waits for it; what comes later is tried again once it is free.

        Where it stays locked, others that wait for a thread have a turn before this has `waited` for more.
        """
        while True:
            with self._changed:
                mine = self._take(account_id, _LARGEST_BATCH)
                self._was_free[account_id] = False
                seconds = _TURN_SECONDS * min(1.0, _MOST_APART / len(self._locked))
            doubtful, others = _by_doubt(self._turn(mine, seconds, account_id))
            with self._changed:
                late = self._locked[account_id] = others + self._locked[account_id]
                was_free = self._was_free[account_id] and not waited
                goes_on = bool(others or (late and (self._closed or not was_free)))
                if not goes_on:
                    del self._locked[account_id], self._was_free[account_id]
                    self._waiting.extendleft(reversed(late))
                    self._changed.notify()
                if not self._closed:  # otherwise this thread may be the last one
                    if doubtful:
                        self._apart.submit(self._ask_after, doubtful)
                    if goes_on:
                        self._apart.submit(self._work_off, account_id, waited=bool(others))
                    return
            waited = bool(others)
            self._ask_after(doubtful)
            if not goes_on:
                return

    def _take(self, account_id: str, most: int) -> list[_WorkItem[Any]]:
        """The oldest work that waits for an account, and no more of it than that."""
        waiting = self._locked[account_id]
        self._locked[account_id] = waiting[most:]
        return waiting[:most]

    def _ask_after(self, pieces: list[_WorkItem[Any]]) -> None:
        """Do again what may have been committed: the work finds that it was done, or does it."""
        while pieces:
            pieces = self._turn(pieces, _LOCK_SECONDS)
            with self._changed:
                if pieces and not self._closed:
                    self._apart.submit(self._ask_after, pieces)  # after others that wait for a thread
                    return

    def _turn(
        self, pieces: list[_WorkItem[Any]], seconds: float, account_id: str | None = None
    ) -> list[_WorkItem[Any]]:
        """Do work on one account once nobody has it locked, and tell the outcome; what is to be tried again.

        Where an `account_id` is given, what waits for that too joins the work once it is locked.
        """
        seconds = min(seconds, max(piece.until for piece in pieces) - time.monotonic())
        try:
            outcomes = self._commit(pieces, seconds, wait=True, account_id=account_id)
        except APIError as error:
            again = self._to_try_again(pieces, error)
            refused = len(pieces) - len(again)
            if isinstance(error, RowLocked) and refused:
                of = pieces[0].touched.account_id
                _log.warning("%d changes to %s were refused: a row of it stays locked", refused, of)
            elif again and not isinstance(error, RowLocked):
                time.sleep(_RETRY_SECONDS)
            return again
        except Exception as error:
            if len(pieces) == 1:
                pieces[0].give_up(error)
                return []
            return [again for alone in pieces for again in self._turn([alone], seconds)]
        _told(pieces, outcomes)
        return []

    def _to_try_again(self, pieces: Iterable[_WorkItem[Any]], error: Exception) -> list[_WorkItem[Any]]:
        """Those that may be tried again; the others are told that they failed."""
        again: list[_WorkItem[Any]] = []
        now = time.monotonic()
        for piece in pieces:
            if now < min(piece.until, self._ends) and not self._database.embedded:
                again.append(piece)
            else:
                piece.give_up(error)
        return again

    def _commit(
        self, begun: list[_WorkItem[Any]], seconds: float, *, wait: bool, account_id: str | None = None
    ) -> "list[Outcome | None]":
        """The outcomes; `None` for work on an account that is locked, if it may not `wait` for that."""
        outcomes: list[Outcome | None] = []
        try:
            # Who may not wait passes over accounts that are locked.
            with self._database.write(lock_seconds=seconds) as session:
                if account_id is not None:
                    was_free = lock_account(session, account_id)
                    with self._changed:
                        self._was_free[account_id] = was_free
                        begun += self._take(account_id, _LARGEST_BATCH - len(begun))
                rows = self._working_set(session, [piece.touched for piece in begun], wait=wait)
                outcomes += (
                    None if piece.touched.account_id in rows.busy else _outcome(piece, rows)
                    for piece in begun
                )
                rows.write()
        except CommitInDoubt as doubt:
            for piece, outcome in zip(begun, outcomes, strict=True):
                if outcome is not None and piece.doubt is None:
                    piece.doubt, piece.until = doubt, time.monotonic() + _DOUBT_SECONDS
            raise
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


def _told(pieces: Sequence[_WorkItem[Any]], outcomes: "Sequence[Outcome | None]") -> list[_WorkItem[Any]]:
    """Tell each outcome that there is; the pieces that have none."""
    left: list[_WorkItem[Any]] = []
    for piece, outcome in zip(pieces, outcomes, strict=True):
        if outcome is None:
            left.append(piece)
        else:
            piece.tell(outcome)
    return left


def _by_account(pieces: Iterable[_WorkItem[Any]]) -> dict[str, list[_WorkItem[Any]]]:
    by_account: dict[str, list[_WorkItem[Any]]] = {}
    for piece in pieces:
        by_account.setdefault(piece.touched.account_id, []).append(piece)
    return by_account


def _by_doubt(pieces: Iterable[_WorkItem[Any]]) -> tuple[list[_WorkItem[Any]], list[_WorkItem[Any]]]:
    """What may have been done already, and what was not."""
    doubtful, others = list[_WorkItem[Any]](), list[_WorkItem[Any]]()
    for piece in pieces:
        (others if piece.doubt is None else doubtful).append(piece)
    return doubtful, others
