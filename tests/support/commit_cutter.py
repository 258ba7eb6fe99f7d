"""A TCP proxy in front of a real PostgreSQL that cuts connections before a COMMIT, or before its answer."""

import random
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.support.tcp_proxy import TcpProxy, hang_up

Cut = Literal["before the commit", "before its answer"]
CUTS: tuple[Cut, ...] = ("before the commit", "before its answer")
_BLOCK = 65_536


class CommitCutter(TcpProxy):
    """Stands before the PostgreSQL of `url`, which listens on a socket in a folder; `url` is its own.

    `cut_next` cuts at the next COMMIT. A `share` of all others is cut, too; `cuts` counts.
    While it is `deaf` it takes no connection; with `deafen` it is so from the first cut on.
    """

    def __init__(self, url: str, share: float = 0.0, *, deafen: bool = False) -> None:
        super().__init__()
        parsed = urlsplit(url)
        self._socket = f"{parse_qs(parsed.query)['host'][0]}/.s.PGSQL.{parsed.port or 5432}"
        # No encryption is asked for: the proxy reads what is said.
        self.url = f"postgresql://{parsed.username}@127.0.0.1:{self.port}{parsed.path}?sslmode=disable"
        self.share = share
        self._deafen = deafen
        self._random = random.Random(0)
        self._next: list[Cut] = []
        self._lock = threading.Lock()
        self.deaf = False
        self.cuts = dict.fromkeys(CUTS, 0)

    def cut_next(self, *cuts: Cut) -> None:
        """Cut at the next COMMIT, and at those that come next."""
        with self._lock:
            self._next += cuts

    def forward(self, caller: socket.socket) -> None:
        """Forward one connection, and cut it where that is drawn."""
        with caller, socket.socket(socket.AF_UNIX) as server:
            if self.deaf:
                return
            server.connect(self._socket)
            link = _Link(caller, server)
            asking = threading.Thread(target=self._ask, args=(link,))
            asking.start()
            with suppress(OSError):
                while (block := server.recv(_BLOCK)) and not link.doomed.is_set():
                    caller.sendall(block)
            link.close()
            asking.join()

    def _ask(self, link: "_Link") -> None:
        with suppress(OSError):
            while block := link.caller.recv(_BLOCK):
                cut = self._draw() if b"COMMIT\0" in block else None
                if cut == "before the commit":
                    break
                if cut == "before its answer":
                    link.doomed.set()  # it is committed once the server answers, which the other thread drops
                link.server.sendall(block)
        if not link.doomed.is_set():
            link.close()

    def _draw(self) -> Cut | None:
        with self._lock:
            cut: Cut | None = self._next.pop(0) if self._next else None
            if cut is None and self._random.random() < self.share:
                cut = self._random.choice(CUTS)
            if cut is not None:
                self.cuts[cut] += 1
                self.deaf = self.deaf or self._deafen
            return cut


@dataclass
class _Link:
    caller: socket.socket
    server: socket.socket
    doomed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        hang_up(self.caller, self.server)
