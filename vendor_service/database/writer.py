"""Group commit: pieces of work that come in while a transaction runs share the next one.

A piece of work is `waiting` until the writer's thread takes it `in hand`, with all that waits. From there
it is `done`, once the transaction is committed and its outcome told, or goes one of two ways:

- `deferred`, where another transaction has its account locked. A thread apart waits for that account, takes
  what is deferred for it in hand by itself, and defers it again if the account stays locked.
- `in doubt`, where the database went away in the middle of a commit that may have done it. It is done again
  until that is confirmed: the work finds that it was done, or does it.

`work.TRANSITIONS` is the table of that.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.database.session import Database
from vendor_service.database.work import LARGEST_BATCH, Result, State, WorkItem, WorkQueue
from vendor_service.database.working_set import ChargeRow, Touched, WorkingSet, lock_account
from vendor_service.errors import APIError, CommitInDoubt, RowLocked

# How long the transactions of all accounts wait for a row that another one has locked.
_LOCK_SECONDS = 0.1
# How long work waits for a PostgreSQL that restarts or an account that is locked, and how often it looks.
_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.2
# How long it is tried to confirm a commit.
_DOUBT_SECONDS = 90.0
# How many locked accounts are waited for at once, each on a connection of its own, and for how long before
# others have a turn: that is not yet an outage of the database.
_MOST_APART = 8
_TURN_SECONDS = 0.9

_log = logging.getLogger(__name__)

Outcome = tuple[Any, Exception | None]
_Items = list[WorkItem[Any]]


@dataclass
class _Deferred:
    """Deferred work of one account, in the order in which it came."""

    items: _Items = field(default_factory=list)
    has_turn: bool = False  # a thread waits for the account, or works on it
    contended: bool = False  # somebody else had it when its turn began, or has it still

    def take(self, most: int) -> _Items:
        """The oldest items, and no more of them than that."""
        taken, self.items = self.items[:most], self.items[most:]
        return taken


class Writer:
    """Works through what is submitted, all that waits in one transaction. Thread-safe.

    No outcome is told before it is committed. A piece of work may raise `APIError`, which is its own outcome
    alone, so it must not have changed anything by then. Any other error undoes the whole transaction, and
    what shared it is done again, each piece in its own. Where a database went away, the work is done again
    once it is back: a commit may have gone through although nobody said so, and work must allow for that.

    One thread does it. It waits for no account that another transaction has locked, and for a moment only
    for any other row: work that needs such a one is deferred, or refused (`overloaded`) ten seconds after it
    was submitted. What comes of its account while a thread waits for that shares its transaction, in the
    order in which it came. So processes that serve one account take turns, each with all that it has. No
    transaction holds an account while it waits for another one.
    """

    def __init__(
        self, database: Database, write_charges: Callable[[Session, Sequence[ChargeRow]], None] | None = None
    ) -> None:
        """Begin; `write_charges` writes what pieces of work append to the ledger."""
        self._database = database
        self._working_set = (
            WorkingSet if write_charges is None else partial(WorkingSet, write_charges=write_charges)
        )
        self._queue = WorkQueue()
        self._ends = math.inf  # on the monotonic clock; nothing is tried again after that
        self._lock = threading.Lock()
        self._deferred: dict[str, _Deferred] = {}  # by account
        self._apart = ThreadPoolExecutor(_MOST_APART, "books-apart")
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)
        self._thread.start()

    def submit(self, touched: Touched, work: Callable[[WorkingSet], Result]) -> "Future[Result]":
        """Have `work` done on the rows touched; cancelling the future before it has begun takes it back.

        Once this is closed, the future raises `APIError` (`shutting_down`).
        """
        item = WorkItem(touched, work, until=time.monotonic() + _PATIENCE_SECONDS)
        if not self._queue.put(item):
            item.future.set_exception(APIError(ErrorCode.SHUTTING_DOWN, "the vendor stops", retry_after=1))
        return item.future

    def close(self) -> None:
        """Finish what was submitted, then end the threads."""
        self._ends = time.monotonic() + _PATIENCE_SECONDS
        self._queue.close()
        self._thread.join()
        self._apart.shutdown()

    # The writer's thread.

    def _run(self) -> None:
        while batch := self._queue.next_batch():
            self._commit_together(self._begun(batch))

    def _begun(self, batch: Sequence[WorkItem[Any]]) -> _Items:
        """Take the batch in hand; work of an account that has its turn apart joins that turn."""
        here: _Items = []
        with self._lock:
            for item in batch:
                if not item.begin():
                    continue
                deferred = self._deferred.get(item.touched.account_id)
                if deferred is None or not deferred.has_turn:
                    here.append(item)
                else:
                    item.become(State.DEFERRED)
                    deferred.items.append(item)
        return here

    def _commit_together(self, items: _Items) -> None:
        """Do work of several accounts in one transaction, and tell its outcomes; defer what is locked."""
        patience_ends = time.monotonic() + _PATIENCE_SECONDS
        while items:
            try:
                outcomes = self._commit(items, _LOCK_SECONDS, wait=False)
            except RowLocked:
                self._commit_by_account(items)
                return
            except APIError as error:  # the database is not there; SQLite has waited for its lock already
                items = self._to_try_again(items, error)
                if time.monotonic() > patience_ends:  # nothing else waits for what is in doubt
                    self._confirm_apart(items)
                    return
                time.sleep(_RETRY_SECONDS if items else 0)
            except Exception as error:
                if len(items) == 1:
                    items[0].fail(error)
                    return
                for item in items:  # one of them is at fault, and the others need not suffer
                    self._commit_together([item])
                return
            else:
                self._defer(_told(items, outcomes))
                return

    def _commit_by_account(self, items: _Items) -> None:
        """Do the work of each account by itself; defer the one whose rows are locked."""
        by_account = _by_account(items)
        if len(by_account) == 1:
            self._defer(items)
            return
        for mine in by_account.values():
            self._commit_together(mine)

    # Threads apart: what is deferred, and what is in doubt.

    def _defer(self, items: _Items) -> None:
        """Have a thread wait for the account of each; what is in doubt waits by itself, and for longer."""
        self._confirm_apart([item for item in items if item.state is State.IN_DOUBT])
        with self._lock:
            for item in items:
                if item.state is State.IN_HAND:
                    item.become(State.DEFERRED)
                    account_id = item.touched.account_id
                    if account_id not in self._deferred:
                        self._deferred[account_id] = _Deferred()
                        self._run_apart(self._take_turn, account_id)
                    self._deferred[account_id].items.append(item)

    def _take_turn(self, account_id: str) -> None:
        """Wait for one account, and do what is deferred for it.

        Where it stays locked, others that wait for a thread have a turn before it has another.
        """
        with self._lock:
            deferred = self._deferred[account_id]
            deferred.has_turn = True
            items = deferred.take(LARGEST_BATCH)
            seconds = _TURN_SECONDS * min(1.0, _MOST_APART / len(self._deferred))
        for item in items:
            item.begin()
        left = self._try(items, seconds, deferred)
        self._confirm_apart([item for item in left if item.state is State.IN_DOUBT])
        self._end_turn(account_id, [item for item in left if item.state is State.IN_HAND])

    def _end_turn(self, account_id: str, undone: _Items) -> None:
        """Give the account another turn, or its late work back to the shared transactions.

        It has another where something is not done yet, and where it was not free at once: whoever had it
        will want it again.
        """
        with self._lock:
            deferred = self._deferred[account_id]
            for item in undone:
                item.become(State.DEFERRED)
            deferred.items = undone + deferred.items
            if undone or (deferred.items and deferred.contended):
                deferred.contended = bool(undone)
                self._run_apart(self._take_turn, account_id)
                return
            del self._deferred[account_id]
            for item in deferred.items:
                item.become(State.WAITING)
            self._queue.put_back(deferred.items)

    def _confirm_apart(self, items: _Items) -> None:
        for mine in _by_account(items).values():
            self._run_apart(self._confirm_commit, mine)

    def _confirm_commit(self, items: _Items) -> None:
        """Do again what a commit may have done: the work finds that it was done, or does it."""
        self._confirm_apart(self._try(items, _LOCK_SECONDS))

    def _try(self, items: _Items, seconds: float, deferred: _Deferred | None = None) -> _Items:
        """Do work on one account once nobody has it locked, and tell the outcome; what is to be tried again.

        What is `deferred` for the account by then joins it.
        """
        seconds = min(seconds, max(item.until for item in items) - time.monotonic())
        try:
            outcomes = self._commit(items, seconds, wait=True, deferred=deferred)
        except RowLocked as error:
            again = self._to_try_again(items, error)
            if refused := len(items) - len(again):
                of = items[0].touched.account_id
                _log.warning("%d changes to %s were refused: a row of it stays locked", refused, of)
            return again
        except APIError as error:  # the database is not there
            again = self._to_try_again(items, error)
            time.sleep(_RETRY_SECONDS if again else 0)
            return again
        except Exception as error:
            if len(items) > 1:  # one of them is at fault
                return [again for item in items for again in self._try([item], seconds)]
            items[0].fail(error)
            return []
        _told(items, outcomes)
        return []

    def _run_apart(self, task: Callable[..., None], *arguments: object) -> None:
        """Run it in a thread apart; the writer's own goes on meanwhile, for the work that is brought back."""

        def run() -> None:
            try:
                task(*arguments)
            finally:
                self._queue.lend(-1)

        self._queue.lend(1)
        self._apart.submit(run)

    # Both.

    def _commit(
        self, items: _Items, lock_seconds: float, *, wait: bool, deferred: _Deferred | None = None
    ) -> list[Outcome | None]:
        """The outcomes; `None` for work on an account that is locked, if it may not `wait` for that."""
        outcomes: list[Outcome | None] = []
        try:
            # Who may not wait passes over accounts that are locked.
            with self._database.write(lock_seconds=lock_seconds) as session:
                if deferred is not None:
                    self._join(session, deferred, items)
                rows = self._working_set(session, [item.touched for item in items], wait=wait)
                outcomes += (
                    None if item.touched.account_id in rows.busy else _outcome(item, rows) for item in items
                )
                rows.write()
        except CommitInDoubt as doubt:
            for item, outcome in zip(items, outcomes, strict=True):
                if outcome is not None and item.doubt is None:
                    item.become(State.IN_DOUBT)
                    item.doubt, item.until = doubt, time.monotonic() + _DOUBT_SECONDS
            raise
        return outcomes

    def _join(self, session: Session, deferred: _Deferred, items: _Items) -> None:
        """Lock the account, and take in hand what came for it meanwhile."""
        was_free = lock_account(session, items[0].touched.account_id)
        with self._lock:
            deferred.contended = deferred.contended or not was_free
            late = deferred.take(LARGEST_BATCH - len(items))
        for item in late:
            item.begin()
        items += late

    def _to_try_again(self, items: Iterable[WorkItem[Any]], error: Exception) -> _Items:
        """Fail the items whose time is over; return the others, which are tried again."""
        again: _Items = []
        now = time.monotonic()
        for item in items:
            if now < min(item.until, self._ends) and not self._database.embedded:
                again.append(item)
            else:
                item.fail(error)
        return again


def _outcome(item: WorkItem[Result], rows: WorkingSet) -> Outcome:
    try:
        return item.work(rows), None
    except APIError as error:
        return None, error


def _told(items: Sequence[WorkItem[Any]], outcomes: "Sequence[Outcome | None]") -> _Items:
    """Tell each outcome that there is; the items that have none."""
    left: _Items = []
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome is None:
            left.append(item)
        else:
            item.tell(*outcome)
    return left


def _by_account(items: Iterable[WorkItem[Any]]) -> dict[str, _Items]:
    by_account: dict[str, _Items] = {}
    for item in items:
        by_account.setdefault(item.touched.account_id, []).append(item)
    return by_account
