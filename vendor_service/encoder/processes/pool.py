"""Processes of one kind, and the inputs that wait for them."""

import asyncio
import json
import logging
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.processes.fork_server import Death, ForkServer, ProcessHandle
from vendor_service.encoder.processes.inputs import Grade, Input, InputJob, InputQueue
from vendor_service.errors import APIError

# What a process is given at once: enough that messages cost little, so little that others are soon next.
_CHUNK_BYTES = 1 << 19
# Where processor time is not counted, and for a process that was stopped.
_WALL_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
# A process that something else ended, like the kernel for want of memory, may not be the input's fault.
_TRIES = 2
_LONGEST_ANSWER = 1 << 16

_SLOW: dict[Kind, APIError] = {
    "image": APIError(
        ErrorCode.IMAGE_TOO_LARGE, "decoding takes more processor time than an image of that size may take"
    ),
    "text": APIError(
        ErrorCode.INVALID_REQUEST, "tokenizing takes more processor time than a text may; send a shorter text"
    ),
}
_FATAL: dict[Kind, APIError] = {
    "image": APIError(ErrorCode.INVALID_IMAGE, "the image file ended the process that decoded it"),
    "text": APIError(ErrorCode.INVALID_REQUEST, "the text ended the process that tokenized it"),
}


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """What a process says of one input."""

    seconds: float
    processor_seconds: float
    grade: Grade
    more_bytes: int
    error: APIError | None


def _read(line: bytes, most: int) -> list[_Result]:
    """What a process says of its inputs, of which there are `most`; raises whatever is wrong with that."""
    outcomes = json.loads(line)
    if not 0 < len(outcomes) <= most:
        raise ValueError("it speaks of other inputs than it was given")
    results = []
    for each in outcomes:
        code = each.get("code")
        grade: Grade = code if code in ("long", "large") else "small"
        refused = code is not None and grade == "small"
        error = APIError(ErrorCode(code), str(each["message"])) if refused else None
        more_bytes = each.get("more_bytes", 0)
        if not isinstance(more_bytes, int) or more_bytes < 0:
            raise ValueError("no input needs so much more")
        took = _believed(float(each["processor_seconds"]))
        results.append(_Result(float(each["seconds"]), took, grade, more_bytes, error))
    return results


def _believed(seconds: float) -> float:
    """The processor time that a process tells of, which may be any number and none."""
    return seconds if 0 <= seconds <= _WALL_SECONDS else _WALL_SECONDS


@dataclass(eq=False)
class _Worker:
    """One process, and the inputs that are in its hands."""

    handle: ProcessHandle
    chunk: list[Input] = field(default_factory=list)
    unread: bytes = b""
    answered: bool = False  # ever
    killed_for: str | None = None
    deadline: asyncio.TimerHandle | None = None


class Pool:
    """So many processes of one kind. It belongs to one event loop, which `watch` names.

    Its `large` inputs may take `spare_bytes` together beyond what each process may have, or one of them more.
    """

    def __init__(
        self, kind: Kind, processes: int, server: ForkServer, observer: Observer, spare_bytes: int
    ) -> None:
        self._kind = kind
        self._processes = processes
        self._server = server
        self._observer = observer
        self._spare_bytes = spare_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refilling: asyncio.TimerHandle | None = None
        self._workers: dict[int, _Worker] = {}
        self._idle: deque[_Worker] = deque()
        self._queues: dict[Grade, InputQueue] = {
            "small": InputQueue(),
            "long": InputQueue(),
            "large": InputQueue(),
        }
        self._round_robin = deque(self._queues)

    @property
    def living(self) -> int:
        """How many processes there are."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        """How many inputs nobody works on yet, of those included that are in the hands of a process."""
        in_hand = 0
        for worker in tuple(self._workers.values()):  # other threads ask, too
            left = sum(not item.gone for item in worker.chunk)
            in_hand += max(0, left - 1)
        return sum(queue.waiting for queue in self._queues.values()) + in_hand

    def start(self) -> ProcessHandle:
        """Have the processes forked; one of them."""
        for _ in range(self._processes):
            handle = self._fork()
        return handle

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the processes from now on."""
        self._loop = loop
        for worker in self._workers.values():
            self._listen(worker)

    def submit(
        self, account: str, inputs: Sequence[tuple[bytes | str, bool]], *, background: bool = False
    ) -> InputJob:
        """Queue one caller's inputs, each with whether it is base64; those of the background wait."""
        assert self._loop is not None
        job = InputJob(account, self._loop.create_future(), [None] * len(inputs), background)
        self._queues["small"].put([Input(job, index, *each) for index, each in enumerate(inputs)])
        self._dispatch()
        return job

    def drop(self, job: InputJob) -> None:
        """Forget what waits of a job whose caller has gone."""
        if not job.done.done() or job.done.cancelled():
            job.done.cancel()
            for queue in self._queues.values():
                queue.drop(job)

    def mark_dead(self, death: Death) -> None:
        """Say what became of the inputs that a process died of, and have another one forked."""
        worker = self._workers.pop(death.number, None)
        if worker is None:
            return
        self._on_readable(worker)  # it may have answered before
        self._let_go(worker)
        reason = self._reason(worker, death)
        at = worker.handle.arena.progress
        at = at if at in range(len(worker.chunk)) else 0  # a process may write there what it likes
        fields = {"kind": self._kind, "reason": reason}
        if worker.chunk:
            fields["account"] = worker.chunk[at].job.account
        _log.warning("a process that checks inputs died", extra={"fields": fields})
        self._observer.restarted(self._kind, reason)
        if worker.chunk and reason == "time":
            worker.chunk[at].took(_believed(worker.handle.arena.allowed))
        self._put_back(worker.chunk, blame=reason, at=at)
        worker.handle.arena.close()
        if not self._server.alive:
            return
        if worker.answered or worker.chunk:
            self._fork_again()
        else:
            self._refill_soon()
        self._dispatch()

    def close(self, error: APIError) -> None:
        """Let go of the processes, and tell who waits why there is no answer."""
        if self._refilling is not None:
            self._refilling.cancel()
        for item in [item for queue in self._queues.values() for item in queue.clear()]:
            item.put(error)
        for worker in list(self._workers.values()):
            for item in worker.chunk:
                item.put(error)
            self._let_go(worker)
            worker.handle.arena.close()
        self._workers.clear()

    def refill(self) -> None:
        """Have as many processes forked as are missing."""
        self._refilling = None
        if self._server.alive:
            while self.living < self._processes and self._fork_again():
                pass
            self._dispatch()

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
        worker = self._workers[handle.number] = _Worker(handle)
        self._idle.append(worker)
        if self._loop is not None:
            self._listen(worker)
        return handle

    def _listen(self, worker: _Worker) -> None:
        assert self._loop is not None
        self._loop.add_reader(worker.handle.socket, self._on_readable, worker)

    def _let_go(self, worker: _Worker) -> None:
        if self._loop is not None:
            self._loop.remove_reader(worker.handle.socket)
        if worker.deadline is not None:
            worker.deadline.cancel()
        with suppress(ValueError):
            self._idle.remove(worker)
        worker.handle.socket.close()

    def _dispatch(self) -> None:
        while self._idle:
            chunk = self._next()
            if not chunk:
                return
            self._give(self._idle.popleft(), chunk)

    def _next(self) -> list[Input]:
        """The next inputs: the grades take turns; of large and long ones a process has one at a time."""
        for grade in tuple(self._round_robin):
            queue = self._queues[grade]
            if not self._has_room(grade):
                continue
            arena = self._idle[0].handle.arena
            # All that are idle have something to do, and those that soon are: the background is short.
            soon = sum(each.chunk[0].job.background for each in self._workers.values() if each.chunk)
            most = -(-queue.urgent // (len(self._idle) + soon)) or arena.slots
            most = min(most, arena.slots) if grade == "small" else 1
            most_bytes = min(_CHUNK_BYTES, arena.input_bytes)
            chunk = queue.take(most, most_bytes, background=self._may_wait)
            if chunk:
                self._round_robin.remove(grade)
                self._round_robin.append(grade)
                return chunk
        return []

    @property
    def _may_wait(self) -> bool:
        """Whether one of the background may be begun: nobody else is served, or most processes are idle."""
        others = any(not item.job.background for each in self._workers.values() for item in each.chunk)
        return not others or 2 * len(self._idle) > len(self._workers)

    def _has_room(self, grade: Grade) -> bool:
        """Whether a process may begin with such an input: one at least is left to the small ones."""
        if grade == "small":
            return True
        chunks = [each.chunk for each in self._workers.values() if each.chunk]
        busy = [chunk[0] for chunk in chunks if chunk[0].grade != "small"]
        if grade == "large" and not self._has_memory([each for each in busy if each.grade == "large"]):
            return False
        return len(busy) < max(1, self._processes - 1)

    def _has_memory(self, large: Sequence[Input]) -> bool:
        """Whether the one whose turn it is has room beside those; none passes it, so that it does come."""
        following = self._queues["large"].first(background=self._may_wait)
        if following is None or not large:
            return True
        return sum(each.more_bytes for each in (*large, following)) <= self._spare_bytes

    def _give(self, worker: _Worker, chunk: list[Input]) -> None:
        assert self._loop is not None
        at, message = 0, []
        for item in chunk:
            content = item.content.encode() if isinstance(item.content, str) else item.content
            worker.handle.arena.write(at, content)
            at += len(content)
            message.append((len(content), item.encoded, item.grade != "small"))
        worker.chunk = chunk
        worker.handle.arena.progress = 0
        worker.deadline = self._loop.call_later(_WALL_SECONDS, self._kill, worker, "time")
        with suppress(OSError):  # it has died, which is seen next
            worker.handle.socket.send(json.dumps(message).encode() + b"\n")

    def _kill(self, worker: _Worker, reason: str) -> None:
        worker.killed_for = reason
        self._server.kill(worker.handle)

    def _on_readable(self, worker: _Worker) -> None:
        try:
            received = worker.handle.socket.recv(_LONGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        worker.unread += received
        if worker.unread.endswith(b"\n"):
            line, worker.unread = worker.unread, b""
            try:
                outcomes = _read(line, len(worker.chunk))
            except (
                AttributeError,
                KeyError,
                TypeError,
                ValueError,
            ):  # a flaw of a decoder may have made it somebody else's
                self._kill(worker, "crash")
            else:
                self._answered(worker, outcomes)
        elif len(worker.unread) > _LONGEST_ANSWER:
            self._kill(worker, "crash")
        elif not received and self._loop is not None:
            self._loop.remove_reader(worker.handle.socket)  # it has died; the server says of what

    def _answered(self, worker: _Worker, outcomes: Sequence[_Result]) -> None:
        chunk, worker.chunk = worker.chunk, []
        worker.answered = True
        if worker.deadline is not None:
            worker.deadline.cancel()
        arena = worker.handle.arena
        rows = np.frombuffer(arena.output(len(chunk)), np.uint8).reshape(len(chunk), -1).copy()
        for item, row, result in zip(chunk, rows, outcomes, strict=False):
            self._observer.decoded(self._kind, result.seconds)
            item.took(result.processor_seconds)
            if result.grade != "small" and item.grade == "small":
                item.grade, item.more_bytes = result.grade, result.more_bytes
                self._queues[item.grade].put([item])
            else:
                item.put(row if result.error is None else result.error)
        self._put_back(chunk[len(outcomes) :])
        arena.shrink(sum(len(item.content) for item in chunk))
        if worker.handle.number in self._workers:
            self._idle.append(worker)
            self._dispatch()

    def _reason(self, worker: _Worker, death: Death) -> str:
        if worker.killed_for is not None:
            return worker.killed_for
        if death.status == -signal.SIGPROF:
            return "time"
        return "killed" if death.status in (None, -signal.SIGKILL) else "crash"

    def _put_back(self, items: Sequence[Input], *, blame: str = "", at: int = 0) -> None:
        """Queue again what was taken but not done, but for the one that a process died of."""
        left = list(items)
        if blame and at < len(left):
            left[at].deaths += blame == "killed"
            if blame != "killed" or left[at].deaths >= _TRIES:
                error = (_SLOW if blame == "time" else _FATAL)[self._kind]
                left.pop(at).put(APIError(error.code, error.message))
        for grade, queue in self._queues.items():
            queue.put_back([item for item in left if item.grade == grade])
