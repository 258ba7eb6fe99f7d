"""Connections handed out: one process accepts, and each goes to the one of several that has the fewest.

Processes that accept from one socket themselves share badly: whoever wakes first takes all that wait.
"""

import asyncio
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 2048
_PAUSE_SECONDS = 0.02  # where the system has no room, or nobody has
_HANDED, _CLOSED = b"+", b"-"

_log = logging.getLogger(__name__)


@dataclass
class _Server:
    """A process that serves: the connections that it has, and when it last got one."""

    connections: int = 0
    last: int = 0


class Acceptor:
    """Accepts on a bound socket for those who connect to `path`, from the first of them on, on a thread."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self._listener = listener
        self._handed = 0
        self._servers: dict[socket.socket, _Server] = {}
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen(_BACKLOG)
        self._closing, self._close = socket.socketpair()
        self._ends = False
        self._selector = selectors.DefaultSelector()
        for each in (self._door, self._closing):
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="acceptor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Close the listener once nobody serves any more; until then connections are handed out."""
        self._close.send(_CLOSED)

    def join(self) -> None:
        """Wait for that."""
        self._thread.join()
        self._close.close()

    def _run(self) -> None:
        while self._servers or not self._ends:
            for key, _ in self._selector.select():
                try:
                    self._attend(key.fileobj)
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    _log.warning("no connection can be accepted, which is tried again: %s", error)
                    time.sleep(_PAUSE_SECONDS)
        for each in (self._listener, self._door, self._closing, self._selector):
            each.close()

    def _attend(self, ready: object) -> None:
        if ready is self._door:
            self._admit()
        elif ready is self._closing:
            self._closing.recv(1)
            self._ends = True
        elif ready is self._listener:
            self._accept()
        elif isinstance(ready, socket.socket):
            self._hear(ready)

    def _admit(self) -> None:
        line, _ = self._door.accept()
        line.setblocking(False)
        self._selector.register(line, selectors.EVENT_READ)
        if not self._servers:
            self._listener.setblocking(False)
            self._listener.listen(_BACKLOG)
            self._selector.register(self._listener, selectors.EVENT_READ)
        self._servers[line] = _Server()

    def _hear(self, line: socket.socket) -> None:
        """Count the connections that a server has closed, or forget one that is gone."""
        if line not in self._servers:  # it went while others were heard
            return
        try:
            told = line.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if told:
            self._servers[line].connections -= len(told)
        else:
            self._forget(line)

    def _forget(self, line: socket.socket) -> None:
        self._selector.unregister(line)
        line.close()
        del self._servers[line]
        if not self._servers:  # who comes now waits for the next one, if there will be one
            self._selector.unregister(self._listener)

    def _accept(self) -> None:
        if not self._servers:
            return
        connection, _ = self._listener.accept()
        with connection:
            while not self._hand_on(connection) and self._servers:
                time.sleep(_PAUSE_SECONDS)

    def _hand_on(self, connection: socket.socket) -> bool:
        """Hand a connection to who has the fewest, and of several to who has waited longest."""
        order = sorted(self._servers, key=lambda each: self._rank(self._servers[each]))
        for line in order:
            try:
                socket.send_fds(line, [_HANDED], [connection.fileno()])
            except BlockingIOError:  # it is busy, and has many that it did not take yet
                continue
            except OSError:
                self._forget(line)
                continue
            self._handed += 1
            server = self._servers[line]
            server.connections, server.last = server.connections + 1, self._handed
            return True
        return False

    @staticmethod
    def _rank(server: _Server) -> tuple[int, int]:
        return server.connections, server.last


class Line:
    """The end of who serves: connections that are handed to it; like a server of asyncio's.

    Args:
        path: that of the `Acceptor`.
        make: makes the protocol of a connection, which calls `closed` when that is over.
    """

    def __init__(self, path: Path, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(path))
        self._line.setblocking(False)
        self._loop.add_reader(self._line, self._take)

    def closed(self) -> None:
        """A connection is over."""
        with suppress(OSError):
            self._line.send(_CLOSED)

    def close(self) -> None:
        """Take no more."""
        self._loop.remove_reader(self._line)
        self._line.close()

    async def wait_closed(self) -> None:
        """All that was taken is connected."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self) -> None:
        while True:
            try:
                told, descriptors, _, _ = socket.recv_fds(self._line, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                told, descriptors = b"", []
            if not told:  # who accepts is gone, and this process goes with it
                self._loop.remove_reader(self._line)
                return
            for each in descriptors:
                task = self._loop.create_task(self._connect(socket.socket(fileno=each)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:
            connection.close()
            self.closed()
