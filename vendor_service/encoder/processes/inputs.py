"""The queue of inputs that wait to be decoded or tokenized: accounts take turns."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vendor_service.errors import APIError

# How many inputs that may wait are taken at a time: whoever may not wait comes behind no more than these.
_BACKGROUND_AT_ONCE = 2
# A `large` input needs more memory than every process may have at the same time, a `long` one so much time
# that a process is to be left to others. The process that is given one finds out, and hands it back.
Grade = Literal["small", "long", "large"]
# What a process made of an input: bytes of its place, or why there are none.
Outcome = NDArray[np.uint8] | APIError


@dataclass(eq=False)
class InputJob:
    """One caller's inputs, and what became of them so far; those of the `background` wait for all others."""

    account: str
    done: "asyncio.Future[list[Outcome]]"
    outcomes: list[Outcome | None]
    background: bool = False
    left: int = field(init=False)
    seconds: list[float] = field(init=False)  # of a processor, that each of them took so far

    def __post_init__(self) -> None:
        self.left = len(self.outcomes)
        self.seconds = [0.0] * self.left

    def put(self, index: int, outcome: Outcome) -> None:
        """Take what became of one input; the caller is told when it was the last."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result([each for each in self.outcomes if each is not None])


@dataclass(eq=False)
class Input:
    """One input: its bytes, or text of which the bytes are base64."""

    job: InputJob
    index: int
    content: bytes | str
    encoded: bool = False
    deaths: int = 0  # of processes that worked on it, for no reason that is known
    grade: Grade = "small"
    more_bytes: int = 0  # that a large one needs beyond what every process may have

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.done.done()

    def took(self, seconds: float) -> None:
        """Say how much processor time it took, in vain or not."""
        self.job.seconds[self.index] += seconds

    def put(self, outcome: Outcome) -> None:
        """Say what became of it."""
        self.job.put(self.index, outcome)


class InputQueue:
    """Inputs that wait. Accounts take turns; within an account it is first come, first served.

    Those of the background are taken when there are no others.
    """

    def __init__(self) -> None:
        # By whether they are of the background, and by account, in the order of their turns.
        self._queues: dict[bool, dict[str, deque[Input]]] = {False: {}, True: {}}

    @property
    def waiting(self) -> int:
        """How many inputs wait, those of the background included."""
        # Of copies, which are made at once: the thread of the metrics asks, too.
        return sum(len(queue) for queues in self._queues.values() for queue in tuple(queues.values()))

    def put(self, items: Sequence[Input]) -> None:
        """Queue inputs of one account behind its others."""
        for item in items:
            self._queue(item.job).append(item)

    def put_back(self, items: Sequence[Input]) -> None:
        """Queue inputs of one account before its others: they were taken, but not done."""
        for item in reversed(items):
            self._queue(item.job).appendleft(item)

    @property
    def urgent(self) -> int:
        """How many of them are not of the background."""
        return sum(map(len, self._queues[False].values()))

    def first(self, *, background: bool) -> Input | None:
        """The one that would be taken next."""
        queues = [*self._queues[False].values(), *(self._queues[True].values() if background else ())]
        return next((item for queue in queues for item in queue if not item.gone), None)

    def take(self, most: int, most_bytes: int, *, background: bool = True) -> list[Input]:
        """Inputs of the account whose turn it is: the first one, and as many more as fit beside it.

        They are of the `background` only if it is allowed, and there are no others.
        """
        taken = self._take(self._queues[False], most, most_bytes)
        if taken or not background:
            return taken
        return self._take(self._queues[True], min(most, _BACKGROUND_AT_ONCE), most_bytes)

    def _take(self, queues: dict[str, deque[Input]], most: int, most_bytes: int) -> list[Input]:
        taken: list[Input] = []
        size = 0
        while queues and not taken:
            account = next(iter(queues))
            queue = queues.pop(account)
            while queue:
                more = len(queue[0].content)
                if taken and not queue[0].gone and (len(taken) >= most or size + more > most_bytes):
                    break
                item = queue.popleft()
                if not item.gone:
                    taken.append(item)
                    size += more
            if queue:
                queues[account] = queue  # behind all others
        return taken

    def drop(self, job: InputJob) -> None:
        """Forget the inputs of a caller who has gone."""
        queues = self._queues[job.background]
        queue = queues.get(job.account)
        if queue is not None:
            left = deque(item for item in queue if item.job is not job)
            if left:
                queues[job.account] = left
            else:
                del queues[job.account]

    def clear(self) -> list[Input]:
        """Forget everything; what it was."""
        items = [item for queues in self._queues.values() for queue in queues.values() for item in queue]
        for queues in self._queues.values():
            queues.clear()
        return items

    def _queue(self, job: InputJob) -> deque[Input]:
        return self._queues[job.background].setdefault(job.account, deque())
