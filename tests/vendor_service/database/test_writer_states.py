"""Whatever befalls its transactions, each piece of work goes by the table and is told the truth, once."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import APIError, ErrorCode
from vendor_service.database import work, writer
from vendor_service.database.work import TRANSITIONS, State, WorkItem
from vendor_service.database.working_set import Touched
from vendor_service.database.writer import Writer
from vendor_service.errors import CommitInDoubt, RowLocked

ACCOUNTS = "abc"
AWAY, ROW_LOCKED, NOT_COMMITTED, COMMITTED = "away", "row locked", "cut before", "cut after"
FAULTS = (AWAY, ROW_LOCKED, NOT_COMMITTED, COMMITTED)


@dataclass
class Server:
    """A database that does to its transactions what it is told, one fault each."""

    embedded: bool = False
    faults: deque[str] = field(default_factory=deque)
    locked: set[str] = field(default_factory=set)  # accounts, by somebody else
    committed: Counter[int] = field(default_factory=Counter)
    changed: Condition = field(default_factory=Condition)

    @contextmanager
    def write(self, lock_seconds: float) -> Iterator["Transaction"]:
        fault = self.faults.popleft() if self.faults else None
        if fault == AWAY:
            raise APIError(ErrorCode.OVERLOADED, "the database is away")
        transaction = Transaction(self, lock_seconds)
        yield transaction
        if fault == ROW_LOCKED:
            raise RowLocked(ErrorCode.OVERLOADED, "a row is locked")
        if fault != NOT_COMMITTED:
            self.committed.update(transaction.done)
        if fault in (NOT_COMMITTED, COMMITTED):
            raise CommitInDoubt.unkeyed()

    def hold(self, account: str, *, locked: bool) -> None:
        with self.changed:
            (self.locked.add if locked else self.locked.discard)(account)
            self.changed.notify_all()


@dataclass
class Transaction:
    server: Server
    lock_seconds: float
    done: list[int] = field(default_factory=list)

    def lock(self, account: str) -> bool:
        """Wait for an account; whether it was free."""
        with self.server.changed:
            was_free = account not in self.server.locked
            if not self.server.changed.wait_for(lambda: account not in self.server.locked, self.lock_seconds):
                raise RowLocked(ErrorCode.OVERLOADED, "the account is locked")
        return was_free


class Rows:
    """Stands in for the working set of a transaction."""

    def __init__(self, transaction: Transaction, touched: Sequence[Touched], *, wait: bool) -> None:
        self.transaction = transaction
        accounts = {each.account_id for each in touched}
        self.busy = set() if wait else accounts & transaction.server.locked
        for account in sorted(accounts) if wait else ():
            transaction.lock(account)

    def write(self) -> None:
        """All is written at the commit."""


def work_of(number: int, kind: str) -> Callable[[Any], int]:
    """Work that allows for being done twice: it finds what it did."""

    def do(rows: Rows) -> int:
        if kind == "refuses":
            raise APIError(ErrorCode.QUOTA_EXHAUSTED, "no")
        if kind == "breaks":
            raise ZeroDivisionError
        if not rows.transaction.server.committed[number]:
            rows.transaction.done.append(number)
        return number

    return do


ACTS = st.one_of(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(["does", "does", "does", "refuses", "breaks"])),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
    st.tuples(st.sampled_from(["lock", "unlock"]), st.sampled_from(ACCOUNTS)),
    st.tuples(st.just("pause"), st.sampled_from([0.001, 0.01])),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("LOCK", 0.002),
        ("PATIENCE", 0.05),
        ("RETRY", 0.001),
        ("DOUBT", 5),
        ("TURN", 0.01),
    ):
        monkeypatch.setattr(writer, f"_{name}_SECONDS", seconds)
    monkeypatch.setattr(writer, "WorkingSet", Rows)
    monkeypatch.setattr(writer, "lock_account", Transaction.lock)


@given(acts=st.lists(ACTS, max_size=40), patient=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_piece_of_work_is_told_the_truth_once(acts: list[tuple[str, Any]], patient: bool) -> None:
    server, told, went = Server(), [], list[tuple[State, State]]()
    become = WorkItem.become

    def noted(item: WorkItem[Any], state: State) -> None:
        went.append((item.state, state))
        become(item, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkItem, "become", noted)
        if patient:
            patch.setattr(writer, "_PATIENCE_SECONDS", 5)
        with closing(Writer(server)) as opened:  # type: ignore[arg-type]
            for number, (act, value) in enumerate(acts):
                if act in ACCOUNTS:
                    told.append((number, value, opened.submit(Touched(act), work_of(number, value))))
                elif act == "fault":
                    server.faults.append(value)
                elif act == "pause":
                    time.sleep(value)
                else:
                    server.hold(value, locked=act == "lock")
            for account in ACCOUNTS:
                server.hold(account, locked=False)
        late = opened.submit(Touched("a"), lambda _: None)
    assert isinstance(late.exception(0), APIError)
    for number, kind, future in told:
        assert future.done()
        failure = future.exception()
        times = server.committed[number]
        if failure is None:
            assert (kind, future.result(), times) == ("does", number, 1)
        elif isinstance(failure, ZeroDivisionError):
            assert (kind, times) == ("breaks", 0)
        elif isinstance(failure, CommitInDoubt):
            assert times <= 1
        else:
            assert isinstance(failure, APIError)
            assert times == 0
            assert (kind == "refuses") or failure.code == ErrorCode.OVERLOADED
        if patient and kind == "does":
            assert failure is None
    assert all(after in TRANSITIONS[before] for before, after in went)
    assert Counter(after for _, after in went)[State.DONE] == len(told)
    assert work.TRANSITIONS[State.DONE] == set()
