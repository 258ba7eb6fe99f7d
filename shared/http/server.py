"""Serving: uvicorn with the ready line and the exits that the command line promises."""

import asyncio
import errno
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from starlette.applications import Starlette

from shared.http import connections
from shared.http.capacity import Capacity
from shared.http.handing import Line
from shared.memory import keep_all

_DRAIN_SECONDS = 28
_END_SECONDS = 2  # for what is in hand after that, which is then broken off and not charged
# Each connection takes a descriptor and some kilobytes; what the server opens for itself comes on top. A
# process beside it has two, and there may be one for each core and model.
_MOST_DESCRIPTORS = 16_384
_OWN_DESCRIPTORS = 200
_LEAST_SHARE = 4  # one in so many of all descriptors is for connections in any case
# A thread beside the event loop that gives the interpreter away often, as that of the vendor's books does at
# each statement, would at Python's own 5 ms wait ten times as long for it as it works.
_SWITCH_SECONDS = 0.0005


# Whether another port would help; all else that can be wrong with an address is its host.
_PORT_TAKEN = {errno.EADDRINUSE: "choose another --port", errno.EACCES: "choose a --port from 1024 on"}

_log = logging.getLogger(__name__)


class CannotServe(Exception):
    """The server does not start; the message says what to do."""


class _Server(uvicorn.Server):
    """A server that reports when it accepts connections, and drains before it stops.

    At the first signal it goes on listening, so that whoever still comes is told to go elsewhere rather than
    met by a closed port, until no request is in hand. A second SIGINT does not wait for that.
    """

    def __init__(
        self,
        config: connections.Config,
        capacity: Capacity,
        descriptors: int,
        on_ready: Callable[[], None],
        handed: Path | None,
    ) -> None:
        super().__init__(config)
        self._handed = handed
        self._connections = config
        self._capacity = capacity
        self._descriptors = descriptors
        self._on_ready = on_ready
        self._stop_by: float | None = None
        self._interrupts = 0
        self._told = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._handed is not None:
            line = Line(self._handed, self._make_protocol)
            self._connections.on_closed = line.closed
            self.servers.append(cast(asyncio.base_events.Server, line))  # closed as the others are
        self._bound_connections()
        # Libraries and model are 440,000 objects. To go through them takes the collector a quarter of a
        # second, in which nobody is answered.
        keep_all()
        self._on_ready()

    def _make_protocol(self) -> connections.BoundedHttp:
        return connections.BoundedHttp(self._connections, self.server_state, self.lifespan.state)

    def _bound_connections(self) -> None:
        """Leave the descriptors that are open now, as many again, and some more to all else.

        Models that are loaded later open as many as those whose places they take.
        """
        own = _OWN_DESCRIPTORS + 2 * _count_descriptors()
        most = max(self._descriptors - own, self._descriptors // _LEAST_SHARE)
        self._connections.most = most
        # Bodies that do not come leave room for those that do.
        self._capacity.bound_requests(most // 2)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._interrupts += sig == signal.SIGINT
        if self._interrupts < 2:
            self.should_exit = False
            self._capacity.close()
            self._stop_by = self._stop_by or time.monotonic() + _DRAIN_SECONDS

    async def on_tick(self, counter: int) -> bool:
        if self._stop_by is not None and not self._told:
            self._told = True  # not by `handle_exit`, which may interrupt whoever is writing a line
            _log.info("stopping: what is in hand is finished, what is new is sent away")
        if self._stop_by is not None and (self._idle or time.monotonic() > self._stop_by):
            self.should_exit = True
        return await super().on_tick(counter)

    @property
    def _idle(self) -> bool:
        """Whether no request is in hand, also of those that take no room in the capacity."""
        return self._capacity.idle and not self.server_state.tasks


def bind(host: str, port: int) -> socket.socket:
    """Take an address, a free port for 0. Connections are refused until `serve` listens.

    Raises:
        CannotServe: the address cannot be used.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        advice = _PORT_TAKEN.get(
            error.errno or 0, "choose another --host: an address of this machine, or 0.0.0.0"
        )
        raise CannotServe(f"cannot listen on {host}:{port}: {error.strerror}; {advice}") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """The URL of what is served there."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, bound: socket.socket | Path, on_ready: Callable[[], None]) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; whether it was SIGINT.

    `bound` is an address of its own, or the path at which an `Acceptor` hands connections out.
    `app.state.capacity` is its `Capacity`. `on_ready` is called once connections are accepted.

    Raises:
        CannotServe: the application does not start.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    descriptors = _raise_descriptors()
    config = connections.Config(
        app,
        most=descriptors,  # until it is known how many the application takes
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    own, handed = ([], bound) if isinstance(bound, Path) else ([bound], None)
    with ExitStack() as stack, _noted_signals() as received:
        for each in own:
            stack.enter_context(each)
        try:
            _Server(config, app.state.capacity, descriptors, on_ready, handed).run(own)
        except SystemExit as error:
            raise CannotServe("the server did not start; its log says why") from error
    _log.info("stopped")
    return signal.SIGINT in received


def _raise_descriptors() -> int:
    """Take as many descriptors as the system gives, within reason; how many there are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _count_descriptors() -> int:
    """How many are open, where the system tells."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return 0


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    # uvicorn raises the signal that stopped it once more when it is done, which would end the process by
    # that signal rather than with an exit code; here it is only noted.
    received: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _frame: received.append(number)) for each in stops]
    try:
        yield received
    finally:
        for each, handler in zip(stops, before, strict=True):
            signal.signal(each, handler)
