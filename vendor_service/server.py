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


def serve(app: FastAPI, host: str, port: int, on_ready: Callable[[str], None]) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; whether it was SIGINT.

    `on_ready` is given the URL once connections are accepted; port 0 takes a free one.

    Raises:
        OperatorError: the address cannot be used, or the application does not start.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    sys.setswitchinterval(_SWITCH_SECONDS)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_DRAIN_SECONDS
    )
    with listener, _noted_signals() as received:
        try:
            _Server(config, lambda: on_ready(url)).run([listener])
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
