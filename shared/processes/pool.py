"""The processes of one task, and the inputs that wait for them.

A process is idle, or works on a chunk of inputs of one account. It answers for as many of them as it did in
its slice of time, and the rest waits again. A process that dies is replaced, and the input that it worked on
is treated by the cause:

    cause     how it shows                                        the input
    time      it took more processor time than it was allowed,    is refused; the time counts
              or did not answer for a minute
    crash     it ended otherwise, or answered nonsense            is refused
    killed    by the kernel, an operator, or with its server      is tried once more, then refused

The rest of its chunk waits again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from shared.errors import APIError
from shared.fairness import FairQueue
from shared.kinds import Kind
from shared.processes import worker as workers
from shared.processes.fork_server import Death, ForkServer
from shared.processes.forked import Task
from shared.processes.worker import (
    CRASH,
    TIME,
    ArenaLayout,
    Cause,
    Chunk,
    Input,
    InputJob,
    Result,
    Worker,
    believed,
)

_PAUSE_SECONDS = 1.0
_LONGEST_ANSWER = 1 << 16
# A message costs little beside the work on this many bytes, and callers who come meanwhile are soon next.
_CHUNK_BYTES = 1 << 19
# No caller waits for more inputs of the background than this.
_BACKGROUND_CHUNK = 2

_log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told of each input and each end of a process."""

    def decoded(self, kind: Kind, seconds: float) -> None:
        """An input was checked and prepared, or found to be bad."""

    def restarted(self, kind: Kind, reason: str) -> None:
        """A process that prepares inputs ended, and another takes its place.

        `time`: an input took more processor time than it may; `killed`: by the system or an operator;
        `crash`: of its own fault, or the input's.
        """


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


@dataclass(frozen=True)
class PoolSpec:
    """How many processes do a task, how large its inputs and results may be, and of which kind inputs are.

    `spare_bytes` is the memory for all that heavy inputs need beyond what each process may have. Where there
    is a pool `of_heavy` inputs, they are worked on there alone.
    """

    processes: int
    task: Task
    layout: ArenaLayout
    spare_bytes: int = 0
    kind: Kind = "image"
    niceness: int = 0
    of_heavy: "PoolSpec | None" = None


class Pool:
    """The processes of one task. It belongs to one event loop, which `watch` names."""

    def __init__(self, name: str, spec: PoolSpec, server: ForkServer, observer: Observer) -> None:
        self._name = name
        self._kind = spec.kind
        self._processes = spec.processes
        self._server = server
        self._observer = observer
        self.heavy: Pool = self  # whose processes work on heavy inputs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refilling: asyncio.TimerHandle | None = None
        self._workers: dict[int, Worker] = {}
        self._idle: deque[Worker] = deque()
        layout = spec.layout
        self._backlog = Backlog(spec.processes, spec.spare_bytes, layout.slots, layout.input_bytes)

    @property
    def living(self) -> int:
        """How many processes there are."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        """How many inputs nobody works on yet, those included that wait in the hands of a process."""
        in_hand = 0
        for worker in tuple(self._workers.values()):  # other threads ask, too
            in_hand += max(0, sum(not item.is_abandoned for item in worker.chunk) - 1)
        return len(self._backlog) + in_hand + (0 if self.heavy is self else self.heavy.waiting)

    def start(self) -> Worker:
        """Have the processes forked; one of them."""
        for _ in range(self._processes):
            worker = self._fork()
        return worker

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the processes from now on."""
        self._loop = loop
        for worker in self._workers.values():
            loop.add_reader(worker.socket, self._on_readable, worker)

    def submit(
        self, account: str, inputs: Sequence[tuple[bytes | str, bool]], *, background: bool = False
    ) -> InputJob:
        """Queue one caller's inputs, each with whether it is base64; those of the background wait."""
        assert self._loop is not None
        job = InputJob(account, self._loop.create_future(), [None] * len(inputs), background)
        self._backlog.add([Input(job, index, *each) for index, each in enumerate(inputs)])
        self._dispatch()
        return job

    def drop(self, job: InputJob) -> None:
        """Forget the waiting inputs of a job whose caller has gone."""
        if not job.done.done() or job.done.cancelled():
            job.done.cancel()
            self._backlog.drop(job)
            self.heavy._backlog.drop(job)

    def close(self, error: APIError) -> None:
        """Let go of the processes, and answer everybody who waits with an error."""
        if self._refilling is not None:
            self._refilling.cancel()
        left = self._backlog.clear()
        for worker in self._workers.values():
            left += worker.chunk
            self._let_go(worker)
            worker.arena.close()
        self._workers.clear()
        for item in left:
            item.finish(error)

    def _dispatch(self) -> None:
        """Give each idle process a chunk, as long as there is one that may be begun."""
        while self._idle:
            busy = [worker.chunk for worker in self._workers.values() if worker.chunk]
            chunk = self._backlog.next_chunk(busy, len(self._idle))
            if not chunk:
                return
            self._give(self._idle.popleft(), chunk)

    def _give(self, worker: Worker, chunk: Chunk) -> None:
        assert self._loop is not None
        worker.deadline = self._loop.call_later(workers.WALL_SECONDS, self._kill, worker, TIME)
        with suppress(OSError):  # it has died, which is seen next
            worker.give(chunk)

    # What a process answers.

    def _on_readable(self, worker: Worker) -> None:
        try:
            received = worker.socket.recv(_LONGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        worker.unread += received
        if worker.unread.endswith(b"\n"):
            line, worker.unread = worker.unread, b""
            results = worker.read(line)
            if results is None:
                self._kill(worker, CRASH)
            else:
                self._take_results(worker, results)
        elif len(worker.unread) > _LONGEST_ANSWER:
            self._kill(worker, CRASH)
        elif not received and self._loop is not None:
            self._loop.remove_reader(worker.socket)  # it has died; the server says of what

    def _take_results(self, worker: Worker, results: Sequence[Result]) -> None:
        """Tell the callers, and give the process something else to do."""
        rows = worker.rows()
        chunk, worker.chunk = worker.chunk, []
        worker.answered = True
        if worker.deadline is not None:
            worker.deadline.cancel()
        for item, row, result in zip(chunk, rows, results, strict=False):
            self._observer.decoded(self._kind, result.seconds)
            item.add_seconds(result.processor_seconds)
            if result.more_bytes is not None and not item.is_heavy:
                item.more_bytes = result.more_bytes
                self.heavy._backlog.add([item])
                self.heavy._dispatch()
            else:
                item.finish(row if result.error is None else result.error)
        self._backlog.put_back(chunk[len(results) :])
        worker.arena.shrink(sum(len(item.content) for item in chunk))
        if worker.number in self._workers:
            self._idle.append(worker)
            self._dispatch()

    # How processes begin and end.

    def refill(self) -> None:
        """Have as many processes forked as are missing."""
        self._refilling = None
        if self._server.alive:
            while self.living < self._processes and self._fork_again():
                pass
            self._dispatch()

    def mark_dead(self, death: Death) -> None:
        """Treat the inputs of a process that died by the cause of its death, and have another one forked."""
        worker = self._workers.pop(death.number, None)
        if worker is None:
            return
        self._on_readable(worker)  # it may have answered before
        self._let_go(worker)
        cause = worker.cause_of_death(death.status)
        fields = {"kind": self._kind, "reason": cause.name}
        left = worker.chunk
        was_at_work = bool(left)
        if was_at_work:
            blamed = left.pop(worker.current)
            fields["account"] = blamed.job.account
            if cause is TIME:
                _, allowed = worker.arena.progress
                blamed.add_seconds(believed(allowed))
            blamed.deaths += 1
            if blamed.deaths >= cause.deaths:
                blamed.finish(APIError(*cause.errors[self._kind]))
            else:
                left.insert(0, blamed)
        _log.warning("a process that checks inputs died", extra={"fields": fields})
        self._observer.restarted(self._kind, cause.name)
        self._backlog.put_back(left)
        worker.arena.close()
        if not self._server.alive:
            return
        if worker.answered or was_at_work:
            self._fork_again()
        else:
            self._refill_soon()  # one that dies at once may do so again
        self._dispatch()

    def _kill(self, worker: Worker, cause: Cause) -> None:
        worker.killed_for = cause
        self._server.kill(worker)

    def _refill_soon(self) -> None:
        assert self._loop is not None
        if self._refilling is None:
            self._refilling = self._loop.call_later(_PAUSE_SECONDS, self.refill)

    def _fork_again(self) -> bool:
        """Have one forked that is missing; whether the system had room for it. If not, it is tried again."""
        try:
            self._fork()
        except OSError as error:
            _log.error("no process that checks inputs can be forked, which is tried again: %s", error)
            self._refill_soon()
            return False
        return True

    def _fork(self) -> Worker:
        worker = self._server.fork(self._name)
        worker.socket.setblocking(False)
        self._workers[worker.number] = worker
        self._idle.append(worker)
        if self._loop is not None:
            self._loop.add_reader(worker.socket, self._on_readable, worker)
        return worker

    def _let_go(self, worker: Worker) -> None:
        if self._loop is not None:
            self._loop.remove_reader(worker.socket)
        if worker.deadline is not None:
            worker.deadline.cancel()
        with suppress(ValueError):
            self._idle.remove(worker)
        worker.socket.close()
