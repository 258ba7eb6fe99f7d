"""The processes of one kind, and the inputs that wait for them.

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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from shared.embeddings import Kind
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.processes import worker as workers
from vendor_service.encoder.processes.arena import ArenaLayout
from vendor_service.encoder.processes.fork_server import Death, ForkServer, ProcessHandle
from vendor_service.encoder.processes.forked import Task
from vendor_service.encoder.processes.inputs import Backlog, Chunk, Input, InputJob
from vendor_service.encoder.processes.worker import CRASH, TIME, Cause, Result, Worker, believed
from vendor_service.errors import APIError

_PAUSE_SECONDS = 1.0
_LONGEST_ANSWER = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolSpec:
    """How many processes do a task, and how large its inputs and results may be.

    `spare_bytes` is the memory for all that heavy inputs need beyond what each process may have.
    """

    processes: int
    task: Task
    layout: ArenaLayout
    spare_bytes: int = 0


class Pool:
    """The processes of one kind. It belongs to one event loop, which `watch` names."""

    def __init__(self, kind: Kind, spec: PoolSpec, server: ForkServer, observer: Observer) -> None:
        self._kind = kind
        self._processes = spec.processes
        self._server = server
        self._observer = observer
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
        return len(self._backlog) + in_hand

    def start(self) -> ProcessHandle:
        """Have the processes forked; one of them."""
        for _ in range(self._processes):
            handle = self._fork()
        return handle

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the processes from now on."""
        self._loop = loop
        for worker in self._workers.values():
            loop.add_reader(worker.handle.socket, self._on_readable, worker)

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

    def close(self, error: APIError) -> None:
        """Let go of the processes, and answer everybody who waits with an error."""
        if self._refilling is not None:
            self._refilling.cancel()
        left = self._backlog.clear()
        for worker in self._workers.values():
            left += worker.chunk
            self._let_go(worker)
            worker.handle.arena.close()
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
            received = worker.handle.socket.recv(_LONGEST_ANSWER)
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
            self._loop.remove_reader(worker.handle.socket)  # it has died; the server says of what

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
                self._backlog.add([item])
            else:
                item.finish(row if result.error is None else result.error)
        self._backlog.put_back(chunk[len(results) :])
        worker.handle.arena.shrink(sum(len(item.content) for item in chunk))
        if worker.handle.number in self._workers:
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
        cause = worker.cause_of(death)
        fields = {"kind": self._kind, "reason": cause.name}
        left = worker.chunk
        was_at_work = bool(left)
        if was_at_work:
            blamed = left.pop(worker.current)
            fields["account"] = blamed.job.account
            if cause is TIME:
                _, allowed = worker.handle.arena.progress
                blamed.add_seconds(believed(allowed))
            blamed.deaths += 1
            if blamed.deaths >= cause.deaths:
                blamed.finish(APIError(*cause.errors[self._kind]))
            else:
                left.insert(0, blamed)
        _log.warning("a process that checks inputs died", extra={"fields": fields})
        self._observer.restarted(self._kind, cause.name)
        self._backlog.put_back(left)
        worker.handle.arena.close()
        if not self._server.alive:
            return
        if worker.answered or was_at_work:
            self._fork_again()
        else:
            self._refill_soon()  # one that dies at once may do so again
        self._dispatch()

    def _kill(self, worker: Worker, cause: Cause) -> None:
        worker.killed_for = cause
        self._server.kill(worker.handle)

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

    def _fork(self) -> ProcessHandle:
        handle = self._server.fork(self._kind)
        handle.socket.setblocking(False)
        worker = self._workers[handle.number] = Worker(handle)
        self._idle.append(worker)
        if self._loop is not None:
            self._loop.add_reader(handle.socket, self._on_readable, worker)
        return handle

    def _let_go(self, worker: Worker) -> None:
        if self._loop is not None:
            self._loop.remove_reader(worker.handle.socket)
        if worker.deadline is not None:
            worker.deadline.cancel()
        with suppress(ValueError):
            self._idle.remove(worker)
        worker.handle.socket.close()
