"""A piece of work on the books, and the queue from which a transaction takes all that waits."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.errors import CommitInDoubt

Result = TypeVar("Result")

# Beyond this a transaction would hold its locks for long.
LARGEST_BATCH = 256
# Where work comes in from several at once, a transaction waits for as much as others did of late, but at most
# so long: most of what one costs does not depend on how much it does, and whoever was answered comes back.
# While the process is busy it waits so often: others come as fast as they can be worked on, and a transaction
# beside that takes several times as long, since both want Python's lock.
_GATHER_SECONDS, _MOST_WAITS, _BUSY = 0.004, 5, 0.8


class State(StrEnum):
    """The state of a piece of work."""

    WAITING = "waiting"  # for the next shared transaction
    IN_HAND = "in hand"  # of a transaction: nobody can take it back any more
    DEFERRED = "deferred"  # until nobody else has its account locked
    IN_DOUBT = "in doubt"  # a commit may have done it
    DONE = "done"  # its outcome was told


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.IN_HAND}),
    State.IN_HAND: frozenset({State.DONE, State.DEFERRED, State.IN_DOUBT}),
    State.DEFERRED: frozenset({State.IN_HAND, State.WAITING, State.DONE}),
    State.IN_DOUBT: frozenset({State.DONE}),
    State.DONE: frozenset(),
}


@dataclass(eq=False)
class WorkItem(Generic[Result]):
    """A piece of work, which may raise `APIError`, and the future by which its outcome is told.

    What fails later than `until`, on the monotonic clock, is not tried again.
    """

    touched: Touched
    work: Callable[[WorkingSet], Result]
    until: float
    future: "Future[Result]" = field(default_factory=Future)
    state: State = State.WAITING
    doubt: CommitInDoubt | None = None

    def become(self, state: State) -> None:
        """Go on to another state."""
        assert state in TRANSITIONS[self.state], f"{self.state} -> {state}"
        self.state = state

    def begin(self) -> bool:
        """Take it in hand, unless whoever submitted it has taken it back."""
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.become(State.IN_HAND)
            return True
        return False

    def tell(self, value: Result | None, failure: Exception | None) -> None:
        """Tell the outcome."""
        self.become(State.DONE)
        if failure is None:
            self.future.set_result(value)  # type: ignore[arg-type]
        else:
            self.future.set_exception(failure)

    def fail(self, error: Exception) -> None:
        """Tell that it failed, or that nobody knows, where a commit may have done it."""
        self.tell(None, self.doubt or error)


class WorkQueue:
    """Work that waits for the next shared transaction, in the order in which it came. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[WorkItem[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._lent = 0  # to how many threads apart, which may bring work back
        self._enough = 1  # how much must wait for the taker to be woken
        # How many a transaction did: the most, less one for each since; 1 once one came alone.
        self._of_late = 1

    def put(self, item: WorkItem[Any]) -> bool:
        """Append a piece of work; False once the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._waiting.append(item)
            if len(self._waiting) >= self._enough:
                self._changed.notify()
        return True

    def put_back(self, items: Iterable[WorkItem[Any]]) -> None:
        """Put work before all that waits."""
        with self._changed:
            self._waiting.extendleft(reversed(list(items)))
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more in."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def lend(self, threads: int) -> None:
        """Count `threads` more that may bring work back, or fewer."""
        with self._changed:
            self._lent += threads
            self._changed.notify()

    def next_batch(self) -> list[WorkItem[Any]]:
        """Wait for work and take all of it, up to a bound; nothing once there will never be any."""
        with self._changed:
            self._await(1, None)
            if self._of_late > 1:
                self._gather()
            batch = [self._waiting.popleft() for _ in range(min(LARGEST_BATCH, len(self._waiting)))]
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

    def _await(self, items: int, seconds: float | None) -> None:
        """Wait until `items` wait, the seconds have passed, or no more can come."""
        self._enough = items
        self._changed.wait_for(
            lambda: len(self._waiting) >= items or (self._closed and not self._lent), seconds
        )
