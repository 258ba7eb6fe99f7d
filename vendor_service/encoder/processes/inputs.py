"""The inputs that wait for a process, and which of them one is given next."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.fairness import FairQueue
from vendor_service.errors import APIError

# A message costs little beside the work on this many bytes, and callers who come meanwhile are soon next.
_CHUNK_BYTES = 1 << 19
# No caller waits for more inputs of the background than this.
_BACKGROUND_CHUNK = 2

# The bytes that a process made of an input, or why there are none.
Outcome = NDArray[np.uint8] | APIError


@dataclass(eq=False)
class InputJob:
    """One caller's inputs, and their outcomes so far. Those of the `background` wait for all others."""

    account: str
    done: "asyncio.Future[list[Outcome]]"
    outcomes: list[Outcome | None]
    background: bool = False
    left: int = field(init=False)
    seconds: list[float] = field(init=False)  # of processor time, for each input

    def __post_init__(self) -> None:
        self.left = len(self.outcomes)
        self.seconds = [0.0] * self.left


@dataclass(eq=False)
class Input:
    """One input: its bytes, or the base64 of them (`encoded`)."""

    job: InputJob
    index: int
    content: bytes | str
    encoded: bool = False
    deaths: int = 0  # of processes that worked on it
    more_bytes: int | None = None  # needed beyond a process's share; `None` while no process has looked at it

    @property
    def is_heavy(self) -> bool:
        """Whether it needs more memory or time than its share; a process found out, and handed it back."""
        return self.more_bytes is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.done.done()

    def add_seconds(self, seconds: float) -> None:
        """Count processor time that it took, in vain or not."""
        self.job.seconds[self.index] += seconds

    def finish(self, outcome: Outcome) -> None:
        """Record its outcome; the caller has all of them once the last is here."""
        job = self.job
        if job.outcomes[self.index] is None:
            job.outcomes[self.index] = outcome
            job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result([each for each in job.outcomes if each is not None])


Chunk = list[Input]  # of one account, and either all of them of the background or none


class Backlog:
    """The inputs that wait.

    Heavy inputs and others take turns, and one process at least is left to the others. Heavy ones may take
    `spare_bytes` together beyond the shares of their processes. One that needs still more comes alone.

    Args:
        processes: the number of processes that share the work.
        spare_bytes: see above.
        max_inputs: the largest number of inputs for one process.
        max_bytes: the largest number of bytes for one process; a single input always fits.
    """

    def __init__(self, processes: int, spare_bytes: int, max_inputs: int, max_bytes: int) -> None:
        self._max_heavy = max(1, processes - 1)
        self._spare_bytes = spare_bytes
        self._max_inputs = max_inputs
        self._max_bytes = min(_CHUNK_BYTES, max_bytes)
        self._light: FairQueue[Input] = FairQueue()
        self._heavy: FairQueue[Input] = FairQueue()
        self._turns = deque([self._light, self._heavy])

    def __len__(self) -> int:
        return len(self._light) + len(self._heavy)

    def add(self, inputs: Sequence[Input]) -> None:
        """Add inputs behind those of the same account."""
        for each in inputs:
            if not each.is_abandoned:
                self._queue_of(each).put(each.job.account, [each], background=each.job.background)

    def put_back(self, inputs: Sequence[Input]) -> None:
        """Add inputs that a process was given but did not finish; each is the next of its account."""
        for each in reversed(inputs):
            if not each.is_abandoned:
                self._queue_of(each).put_back(each.job.account, [each], background=each.job.background)

    def drop(self, job: InputJob) -> None:
        """Forget the inputs of a job."""
        for queue in self._turns:
            queue.drop(job.account, lambda item: item.job is job, background=job.background)

    def clear(self) -> list[Input]:
        """Forget all inputs, and return them."""
        return self._light.clear() + self._heavy.clear()

    def next_chunk(self, busy: Sequence[Chunk], idle: int) -> Chunk:
        """Take the inputs that one of the `idle` processes is given now, while others work on `busy` chunks.

        It is empty if none may be begun.
        """
        serving = sum(not chunk[0].job.background for chunk in busy)
        with_background = serving == 0 or idle > len(busy)
        for queue in self._turns:
            first = queue.peek(background=with_background)
            if first is None or (first.is_heavy and not self._has_room(first, busy)):
                continue  # a heavy one that waits for room keeps its turn, so that it does come
            self._turns.remove(queue)
            self._turns.append(queue)
            most = self._most(first, free=idle + len(busy) - serving)
            return queue.take_run(self._within(most, first), background=with_background)
        return []

    def _has_room(self, heavy: Input, busy: Sequence[Chunk]) -> bool:
        """Whether there is a process for a heavy input, and memory."""
        at_work = [chunk[0].more_bytes for chunk in busy if chunk[0].more_bytes is not None]
        needed, taken = heavy.more_bytes or 0, sum(at_work)
        fits = taken + needed <= self._spare_bytes or not (taken and needed)
        return fits and len(at_work) < self._max_heavy

    def _most(self, first: Input, free: int) -> int:
        """How many inputs the process is given: callers' are shared out to all that are `free` for them."""
        if first.is_heavy:
            return 1
        if first.job.background:
            return _BACKGROUND_CHUNK
        share = -(-self._light.urgent // free)
        return min(share, self._max_inputs)

    def _within(self, most: int, first: Input) -> Callable[[Input], bool]:
        count, size = 1, len(first.content)

        def fits(item: Input) -> bool:
            nonlocal count, size
            count, size = count + 1, size + len(item.content)
            return count <= most and size <= self._max_bytes

        return fits

    def _queue_of(self, item: Input) -> FairQueue[Input]:
        return self._heavy if item.is_heavy else self._light
