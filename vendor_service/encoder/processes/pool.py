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
import json
import logging
import signal
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.fairness import FairQueue
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.processes.fork_server import Death, ForkServer, ProcessHandle
from vendor_service.encoder.processes.inputs import Grade, Input, InputJob
from vendor_service.errors import APIError

# The bytes that a process is given at once: messages cost little then, and others are soon next.
_CHUNK_BYTES = 1 << 19
# Of the background so few are taken at once: whoever may not wait comes behind no more than these.
_BACKGROUND_AT_ONCE = 2
# Where processor time is not counted, and for a process that was stopped.
_WALL_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_LONGEST_ANSWER = 1 << 16

_SLOW: Mapping[Kind, tuple[ErrorCode, str]] = {
    "image": (
        ErrorCode.IMAGE_TOO_LARGE,
        "decoding takes more processor time than an image of that size may take",
    ),
    "text": (
        ErrorCode.INVALID_REQUEST,
        "tokenizing takes more processor time than a text may; send a shorter text",
    ),
}
_FATAL: Mapping[Kind, tuple[ErrorCode, str]] = {
    "image": (ErrorCode.INVALID_IMAGE, "the image file ended the process that decoded it"),
    "text": (ErrorCode.INVALID_REQUEST, "the text ended the process that tokenized it"),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Cause:
    """Why a process died: an input that it worked on is refused after so many deaths, with this error."""

    name: str
    deaths: int
    errors: Mapping[Kind, tuple[ErrorCode, str]]


_TIME = _Cause("time", 1, _SLOW)
_CRASH = _Cause("crash", 1, _FATAL)
_KILLED = _Cause("killed", 2, _FATAL)  # it may not be the input's fault


@dataclass(eq=False)
class _Worker:
    """One process, and the chunk that it works on; it is idle without one."""

    handle: ProcessHandle
    chunk: list[Input] = field(default_factory=list)
    unread: bytes = b""
    answered: bool = False  # ever
    killed_for: _Cause | None = None
    deadline: asyncio.TimerHandle | None = None

    def cause_of(self, death: Death) -> _Cause:
        """Why it died."""
        if self.killed_for is not None:
            return self.killed_for
        if death.status == -signal.SIGPROF:
            return _TIME
        return _KILLED if death.status in (None, -signal.SIGKILL) else _CRASH

    @property
    def current(self) -> int:
        """Which input of its chunk it works on, by what it says."""
        said = self.handle.arena.progress
        return said if said in range(len(self.chunk)) else 0  # a process may write there what it likes


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
        self._queues: dict[Grade, FairQueue[Input]] = {
            "small": FairQueue(),
            "long": FairQueue(),
            "large": FairQueue(),
        }
        self._turns = deque(self._queues)  # the grades take turns

    @property
    def living(self) -> int:
        """How many processes there are."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        """How many inputs nobody works on yet, those included that wait in the hands of a process."""
        in_hand = 0
        for worker in tuple(self._workers.values()):  # other threads ask, too
            in_hand += max(0, sum(not item.gone for item in worker.chunk) - 1)
        return sum(map(len, self._queues.values())) + in_hand

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
        items = [Input(job, index, *each) for index, each in enumerate(inputs)]
        self._queues["small"].put(account, items, background=background)
        self._dispatch()
        return job

    def drop(self, job: InputJob) -> None:
        """Forget the waiting inputs of a job whose caller has gone."""
        if not job.done.done() or job.done.cancelled():
            job.done.cancel()
            for queue in self._queues.values():
                queue.drop(job.account, lambda item: item.job is job, background=job.background)

    def close(self, error: APIError) -> None:
        """Let go of the processes, and answer everybody who waits with an error."""
        if self._refilling is not None:
            self._refilling.cancel()
        left = [item for queue in self._queues.values() for item in queue.clear()]
        for worker in self._workers.values():
            left += worker.chunk
            self._let_go(worker)
            worker.handle.arena.close()
        self._workers.clear()
        for item in left:
            item.put(error)

    # Which inputs a process is given next.

    def _dispatch(self) -> None:
        """Give each idle process a chunk, as long as there is one that may be begun."""
        while self._idle:
            chunk = self._next_chunk()
            if not chunk:
                return
            self._give(self._idle.popleft(), chunk)

    def _next_chunk(self) -> list[Input]:
        background = self._background_may_begin()
        for grade in tuple(self._turns):
            first = self._queues[grade].peek(background=background)
            if first is None or not self._may_begin(first):
                continue
            self._turns.remove(grade)
            self._turns.append(grade)
            return self._take_chunk(first, background=background)
        return []

    def _background_may_begin(self) -> bool:
        """Whether nobody else is served, or most processes are idle."""
        if not any(not item.job.background for worker in self._busy() for item in worker.chunk):
            return True
        return len(self._idle) > len(self._workers) / 2

    def _may_begin(self, item: Input) -> bool:
        """Whether there is a process for it, and memory; one process at least is left to small inputs.

        None passes the large one whose turn it is, so that it does come.
        """
        if item.grade == "small":
            return True
        graded = [worker.chunk[0] for worker in self._busy() if worker.chunk[0].grade != "small"]
        if len(graded) >= max(1, self._processes - 1):
            return False
        large = [each.more_bytes for each in graded if each.grade == "large"]
        fits = sum(large) + item.more_bytes <= self._spare_bytes
        return item.grade == "long" or not large or fits

    def _take_chunk(self, first: Input, *, background: bool) -> list[Input]:
        """The input whose turn it is, and as many of its account as are a fair share for one process."""
        count = self._fair_share(first) - 1
        size = min(_CHUNK_BYTES, self._idle[0].handle.arena.input_bytes) - len(first.content)

        def fits(item: Input) -> bool:
            nonlocal count, size
            count, size = count - 1, size - len(item.content)
            return count >= 0 and size >= 0

        return self._queues[first.grade].take_run(fits, background=background)

    def _fair_share(self, first: Input) -> int:
        """How many inputs one process is given, so that no other stays idle that could do some of them."""
        if first.grade != "small":
            return 1
        if first.job.background:
            return _BACKGROUND_AT_ONCE
        soon_idle = sum(worker.chunk[0].job.background for worker in self._busy())  # those are short
        sharing = len(self._idle) + soon_idle
        share = -(-self._queues["small"].urgent // sharing)
        return min(share, self._idle[0].handle.arena.slots)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.chunk]

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
        worker.deadline = self._loop.call_later(_WALL_SECONDS, self._kill, worker, _TIME)
        with suppress(OSError):  # it has died, which is seen next
            worker.handle.socket.send(json.dumps(message).encode() + b"\n")

    # What a process answers.

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
            results = _read(line, len(worker.chunk))
            if results is None:
                self._kill(worker, _CRASH)
            else:
                self._take_results(worker, results)
        elif len(worker.unread) > _LONGEST_ANSWER:
            self._kill(worker, _CRASH)
        elif not received and self._loop is not None:
            self._loop.remove_reader(worker.handle.socket)  # it has died; the server says of what

    def _take_results(self, worker: _Worker, results: Sequence["_Result"]) -> None:
        """Tell the callers, and give the process something else to do."""
        chunk, worker.chunk = worker.chunk, []
        worker.answered = True
        if worker.deadline is not None:
            worker.deadline.cancel()
        arena = worker.handle.arena
        rows = np.frombuffer(arena.output(len(chunk)), np.uint8).reshape(len(chunk), -1).copy()
        for item, row, result in zip(chunk, rows, results, strict=False):
            self._observer.decoded(self._kind, result.seconds)
            item.took(result.processor_seconds)
            if result.grade != "small" and item.grade == "small":
                item.grade, item.more_bytes = result.grade, result.more_bytes
                if not item.gone:
                    self._queues[item.grade].put(item.job.account, [item], background=item.job.background)
            else:
                item.put(row if result.error is None else result.error)
        self._wait_again(chunk[len(results) :])
        arena.shrink(sum(len(item.content) for item in chunk))
        if worker.handle.number in self._workers:
            self._idle.append(worker)
            self._dispatch()

    def _wait_again(self, items: Iterable[Input]) -> None:
        """Queue again, before all others of their account, inputs that were taken but not done."""
        for item in reversed(list(items)):
            if not item.gone:
                job = item.job
                self._queues[item.grade].put_back(job.account, [item], background=job.background)

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
            if cause is _TIME:
                blamed.took(_believed(worker.handle.arena.allowed))
            blamed.deaths += 1
            if blamed.deaths >= cause.deaths:
                blamed.put(APIError(*cause.errors[self._kind]))
            else:
                left.insert(0, blamed)
        _log.warning("a process that checks inputs died", extra={"fields": fields})
        self._observer.restarted(self._kind, cause.name)
        self._wait_again(left)
        worker.handle.arena.close()
        if not self._server.alive:
            return
        if worker.answered or was_at_work:
            self._fork_again()
        else:
            self._refill_soon()  # one that dies at once may do so again
        self._dispatch()

    def _kill(self, worker: _Worker, cause: _Cause) -> None:
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
        worker = self._workers[handle.number] = _Worker(handle)
        self._idle.append(worker)
        if self._loop is not None:
            self._loop.add_reader(handle.socket, self._on_readable, worker)
        return handle

    def _let_go(self, worker: _Worker) -> None:
        if self._loop is not None:
            self._loop.remove_reader(worker.handle.socket)
        if worker.deadline is not None:
            worker.deadline.cancel()
        with suppress(ValueError):
            self._idle.remove(worker)
        worker.handle.socket.close()


@dataclass(frozen=True)
class _Result:
    """What a process says of one input."""

    seconds: float
    processor_seconds: float
    grade: Grade
    more_bytes: int
    error: APIError | None


def _read(line: bytes, most: int) -> list[_Result] | None:
    """What a process says of its inputs, up to `most`; `None` if that cannot be right.

    A flaw of a decoder may have made the process somebody else's.
    """
    try:
        results = [_result(each) for each in json.loads(line)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return results if 0 < len(results) <= most else None


def _result(said: Mapping[str, object]) -> _Result:
    code, more_bytes = said.get("code"), said.get("more_bytes", 0)
    if not isinstance(more_bytes, int) or more_bytes < 0:
        raise ValueError("no input needs so much more")
    grade: Grade = "long" if code == "long" else "large" if code == "large" else "small"
    error = None
    if grade == "small" and code is not None:
        error = APIError(ErrorCode(str(code)), str(said["message"]))
    seconds, took = (float(str(said[name])) for name in ("seconds", "processor_seconds"))
    return _Result(seconds, _believed(took), grade, more_bytes, error)


def _believed(seconds: float) -> float:
    """The processor time that a process tells of, which may be any number and none."""
    return seconds if 0 <= seconds <= _WALL_SECONDS else _WALL_SECONDS
