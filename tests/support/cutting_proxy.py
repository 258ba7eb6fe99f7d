"""A TCP proxy that cuts connections: before the request is through, before the answer, or in its middle."""

import random
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from tests.support.tcp_proxy import TcpProxy, hang_up

UP = (0, 100, 10**9, 10**9, 10**9)
DOWN = (0, 1, 500, 3000, 20_000, 10**9)
_BLOCK = 1024


class CuttingProxy(TcpProxy):
    """Forwards to `port` and cuts most connections somewhere; `cuts` counts where.

    So many bytes of what was asked, and then of what is answered, come through before a cut: one of `up` and
    one of `down`, drawn for each connection.
    """

    def __init__(self, port: int, seed: int, up: Sequence[int] = UP, down: Sequence[int] = DOWN) -> None:
        super().__init__()
        self._target = port
        self._random = random.Random(seed)
        self._lives = (up, down)
        self.url = f"http://127.0.0.1:{self.port}"
        self.cuts = {"before the request": 0, "before the answer": 0, "in the answer": 0}

    def forward(self, caller: socket.socket) -> None:
        """Forward one connection, and cut it where that is drawn."""
        up, down = map(self._random.choice, self._lives)
        with (
            suppress(ConnectionError),
            caller,
            socket.create_connection(("127.0.0.1", self._target)) as vendor,
        ):
            request = threading.Thread(target=self._pump, args=(caller, vendor, up, "before the request"))
            request.start()
            self._pump(vendor, caller, down, "in the answer" if down else "before the answer")
            request.join()

    def _pump(self, source: socket.socket, sink: socket.socket, most: int, cut: str) -> None:
        with suppress(OSError):
            while most > 0 and (block := source.recv(min(_BLOCK, most))):
                sink.sendall(block)
                most -= len(block)
            if most == 0:
                source.recv(1)  # cut only where something would have come
                self.cuts[cut] += 1
        hang_up(source, sink)
