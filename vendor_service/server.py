"""Serving: uvicorn with the ready line and the exits that the command line promises."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from vendor_service.errors import OperatorError

_DRAIN_SECONDS = 30
# The thread of the books gives the interpreter away at each statement; at Python's own 5 ms it would wait
# ten times as long for it as it works.
_SWITCH_SECONDS = 0.0005


class _Server(uvicorn.Server):
    """A server that reports when it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def bind(host: str, port: int) -> socket.socket:
    """Take an address, a free port for 0. Connections are refused until `serve` listens.

    Raises:
        OperatorError: the address cannot be used.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OperatorError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """The URL of what is served there."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, bound: socket.socket, on_ready: Callable[[], None]) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; whether it was SIGINT.

    `on_ready` is called once connections are accepted.

    Raises:
        OperatorError: the application does not start.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_DRAIN_SECONDS
    )
    with bound, _noted_signals() as received:
        try:
            _Server(config, on_ready).run([bound])
        except SystemExit as error:
            raise OperatorError("the server did not start; its log says why") from error
    return signal.SIGINT in received


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
