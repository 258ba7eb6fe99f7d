"""An attacker: a process of its own that sends a vendor what was built beforehand, until it is told to stop.

What it sends is ready before it begins, and its connections wait in system calls, so that it takes next to
nothing of the processors that it shares with the vendor; `AttackResult.cores` tells how much it took.
"""

import multiprocessing
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import BinaryIO

_PATIENCE_SECONDS = 60.0  # for an answer, before it counts as none
_CHUNK = 65_536
_READY_SECONDS = 120.0
_AGAIN = 100  # new connections a second, at most, in the place of those that were answered or cut off

Deed = Callable[["Attacker"], None]


@dataclass(frozen=True)
class Keys:
    """What an attacker may have: a key without limits, one without quota, one of a suspended account."""

    good: str
    poor: str
    suspended: str


@dataclass
class AttackResult:
    """What came of it: answers by status, others by name, and the cores that the attacker took itself.

    `cut` is a connection that ended without an answer, `left` one on which the attacker hung up, `none` an
    answer that did not come in time; `megabytes` is what endless bodies got rid of.
    """

    answers: Counter[str] = field(default_factory=Counter)
    cores: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{count} x {name}" for name, count in self.answers.most_common()) or "nothing"


class Pace:
    """Turns for all threads together, so many a second; without a rate, at once."""

    def __init__(self, per_second: float | None) -> None:
        self._pause = 1 / per_second if per_second else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self, over: threading.Event) -> None:
        """Wait for one's turn, or until all is over."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._pause
        if self._pause:
            over.wait(turn - time.monotonic())


class Attacker:
    """Who attacks the vendor on `port`: a deed prepares what it sends, then calls one of the methods once."""

    def __init__(self, port: int, keys: Keys, ready: Callable[[], None], over: threading.Event) -> None:
        self.keys = keys
        self.result = AttackResult()
        self._address = ("127.0.0.1", port)
        self._ready = ready
        self._over = over
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def repeat(self, requests: Sequence[bytes], connections: int, *, per_second: float | None = None) -> None:
        """On each connection send them in turn, one after the other, and read each answer whole."""
        pace = Pace(per_second)

        def call(number: int) -> None:
            turns = self._in_turn(requests, number, pace)
            for first in turns:
                self._connected(partial(self._ask_all, first, turns))

        self._at_once(connections, call)

    def hang_up(self, requests: Sequence[bytes], connections: int, after: Sequence[float]) -> None:
        """Send a whole request, wait so many seconds, one wait after the other, and be gone."""

        def leave(request: bytes, seconds: float, connection: socket.socket) -> None:
            connection.sendall(request)
            self._over.wait(seconds)
            self._count("left")

        def call(number: int) -> None:
            waits = islice(cycle(after), number, None)
            for request, seconds in zip(self._in_turn(requests, number, Pace(None)), waits, strict=False):
                self._connected(partial(leave, request, seconds))

        self._at_once(connections, call)

    def knock(self, requests: Sequence[bytes], connections: int, *, per_second: float) -> None:
        """Make a new connection for each request, so many a second."""
        pace = Pace(per_second)

        def call(number: int) -> None:
            for request in self._in_turn(requests, number, pace):
                self._connected(partial(self._ask_all, request, iter(())))

        self._at_once(connections, call)

    def pour(self, heads: Sequence[bytes], connections: int, *, bytes_per_second: float) -> None:
        """Send a head, then zeros without end; so many bytes a second in all, and `_AGAIN` heads at most."""
        pace, again, zeros = Pace(bytes_per_second / _CHUNK), Pace(_AGAIN), bytes(_CHUNK)

        def empty(head: bytes, connection: socket.socket) -> None:
            connection.sendall(head)
            connection.settimeout(1.0)
            while not self._over.is_set() and not self._answered(connection):
                pace.wait(self._over)
                with suppress(TimeoutError):
                    self._count("bytes", connection.send(zeros))

        def call(number: int) -> None:
            for head in self._in_turn(heads, number, again):
                self._connected(partial(empty, head))

        self._at_once(connections, call)

    def besiege(
        self,
        requests: Sequence[bytes],
        sent: int,
        connections: int,
        *,
        drip: int = 0,
        sip: int | None = None,
    ) -> None:
        """Hold many connections, on each of which so many bytes of a request are `sent` at once.

        Every half second `drip` more bytes go out on each, and `sip` bytes of an answer are read, where it is
        given; else whoever is answered or cut off is done. `_AGAIN` of those a second come again.
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self._begin()
        held: dict[int, _Held] = {}
        fresh = connections
        while not self._over.wait(0.5):
            for number in range(connections):
                if self._over.is_set() or (number not in held and not fresh):
                    continue
                try:
                    if number not in held:
                        fresh -= 1
                        held[number] = self._hold(requests[number % len(requests)], sent)
                    elif held[number].poke(drip, sip, self._count):
                        held.pop(number).connection.close()
                except OSError:
                    self._count("cut")
                    if number in held:
                        held.pop(number).connection.close()
            fresh = int(_AGAIN * 0.5)
        for each in held.values():
            self._count("held")
            each.connection.close()

    def _hold(self, request: bytes, sent: int) -> "_Held":
        connection = socket.create_connection(self._address, 5.0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request[:sent])
        connection.setblocking(False)
        return _Held(connection, memoryview(request)[sent:])

    def _ask_all(self, first: bytes, more: Iterator[bytes], connection: socket.socket) -> None:
        """Ask one after the other on this connection, until the vendor closes it or there are no more."""
        with connection.makefile("rb") as answers:
            for request in chain([first], more):
                connection.sendall(request)
                status, stays = read_answer(answers)
                self._count(status)
                if not stays:
                    return

    def _answered(self, connection: socket.socket) -> bool:
        """Whether there is an answer already, which is counted."""
        readable, _, _ = select.select([connection], [], [], 0)
        if readable:
            self._count(_status(connection.recv(_CHUNK)))
        return bool(readable)

    def _in_turn(self, requests: Sequence[bytes], number: int, pace: Pace) -> Iterator[bytes]:
        """The requests over and over, from some number on, each in its turn, until all is over."""
        for request in islice(cycle(requests), number % len(requests), None):
            pace.wait(self._over)
            if self._over.is_set():
                return
            yield request

    def _connected(self, use: Callable[[socket.socket], None]) -> None:
        """Do it on a connection of its own, which is cut when all is over; a bad end is counted."""
        try:
            with socket.create_connection(self._address, _PATIENCE_SECONDS) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open.add(connection)
                try:
                    if not self._over.is_set():
                        use(connection)
                finally:
                    with self._lock:
                        self._open.discard(connection)
        except TimeoutError:
            self._count("none")
        except OSError:
            if not self._over.is_set():
                self._count("cut")
                self._over.wait(0.05)  # nobody gains by knocking at a closed door without end

    def _at_once(self, connections: int, call: Callable[[int], None]) -> None:
        self._begin()
        with ThreadPoolExecutor(connections) as pool:
            calls = [pool.submit(call, number) for number in range(connections)]
            self._over.wait()
            with self._lock:
                for each in self._open:
                    with suppress(OSError):  # it has ended by itself
                        each.shutdown(socket.SHUT_RDWR)
        for ended in calls:
            ended.result()

    def _begin(self) -> None:
        self._ready()
        self._cpu, self._began = time.process_time(), time.monotonic()

    def end(self) -> AttackResult:
        """What came of it, once the deed is done."""
        self.result.cores = (time.process_time() - self._cpu) / (time.monotonic() - self._began)
        poured = self.result.answers.pop("bytes", 0)
        if poured:
            self.result.answers["megabytes"] = poured // 10**6
        return self.result

    def _count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.result.answers[what] += times


@dataclass
class _Held:
    """A connection that is held open, and what is still to be sent on it."""

    connection: socket.socket
    rest: memoryview
    answered: bool = False

    def poke(self, drip: int, sip: int | None, count: Callable[[str], None]) -> bool:
        """Send and read a little; whether this connection is done."""
        if drip and self.rest:
            try:
                self.rest = self.rest[self.connection.send(self.rest[:drip]) :]
            except BlockingIOError:
                return False
        try:
            read = self.connection.recv(sip or _CHUNK)
        except BlockingIOError:
            return False
        if not self.answered:
            self.answered = True
            count(_status(read))
        return sip is None or not read


def read_answer(answers: BinaryIO) -> tuple[str, bool]:
    """Read a whole answer: its status, and whether the connection stays.

    Raises:
        ConnectionError: there is none, or it is cut off.
    """
    status, length, stays = answers.readline(), 0, True
    if not status:
        raise ConnectionError
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.lower().partition(b":")
        if name == b"content-length":
            length = int(value)
        elif name == b"connection":
            stays = value.strip() != b"close"
    if len(answers.read(length)) < length:
        raise ConnectionError
    return _status(status), stays


def _status(start: bytes) -> str:
    return start[9:12].decode(errors="replace") or "cut"


class AttackProcess:
    """A deed in a process of its own: it is prepared at once, and done while this is a context."""

    def __init__(self, deed: Deed, port: int, keys: Keys) -> None:
        context = multiprocessing.get_context("spawn")
        self._go, self._over = context.Event(), context.Event()
        self._told, tell = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_fight, args=(deed, port, keys, self._go, self._over, tell), daemon=True
        )
        self._process.start()
        tell.close()
        self.result = AttackResult()

    def __enter__(self) -> "AttackProcess":
        if not self._told.poll(_READY_SECONDS):
            raise RuntimeError("the attacker did not get ready")
        self._told.recv()
        self._go.set()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        try:
            if self._told.poll(_READY_SECONDS):
                self.result = self._told.recv()
        finally:
            self._process.join(10)
            self._process.kill()


def _fight(deed: Deed, port: int, keys: Keys, go: Event, over: Event, tell: Connection) -> None:
    stop = threading.Event()

    def ready() -> None:
        tell.send(None)
        go.wait()

    def listen() -> None:
        over.wait()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    attacker = Attacker(port, keys, ready, stop)
    deed(attacker)
    tell.send(attacker.end())
