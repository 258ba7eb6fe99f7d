"""A TCP listener with a thread for each connection: the base of the proxies that cut connections."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class TcpProxy:
    """Takes connections on 127.0.0.1:`port` while it is a context, and gives each to `forward`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def forward(self, caller: socket.socket) -> None:
        """Serve one connection, in a thread of its own; closing it is up to this method."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self.forward, args=(caller,), daemon=True).start()


def hang_up(*connections: socket.socket) -> None:
    """End connections for both sides; one that has ended already is left alone."""
    for each in connections:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
