"""Connections: what one may cost that asks nothing, asks slowly, or does not read what it is answered."""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_PATIENCE_SECONDS = 20.0
_LARGEST_HEAD = 65_536  # bytes of a request line and headers, which uvicorn would keep without a bound


class Config(uvicorn.Config):
    """A configuration of uvicorn under which connections are bounded.

    There are at most `most` of them. One more makes the one give way that has waited longest for a request to
    come, so that many idle ones keep nobody out who asks something. A request's head has `patience` seconds
    to arrive, and of an answer something must be read in that time, until it is read whole. What still comes
    of a body that was answered before its end is dropped for so long, since a connection that is closed while
    the other side sends often takes the answer with it.
    """

    def __init__(self, app: FastAPI, most: int, patience: float = _PATIENCE_SECONDS, **rest: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(app, http=BoundedHttp, ws="none", **rest)
        self.most = most
        self.patience = patience
        self.waiting: dict[BoundedHttp, None] = {}  # without a request; those that wait longest come first


class BoundedHttp(HttpToolsProtocol):
    """HTTP on one connection."""

    config: Config

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, in the place of another if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.config.most:
            next(iter(self.config.waiting))._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._wait_no_more()

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is an endless head."""
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD:
                self._in_head = False
                self.send_400_response("Request headers are too large.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0

    def on_headers_complete(self) -> None:
        """A head is whole: how long the rest may take is for the application to say."""
        self._in_head = False
        self._wait_no_more()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """See that the answer is read, and wait for the next request."""
        unread = self.transport.get_write_buffer_size()
        if unread:
            self.loop.call_later(self.config.patience, self._check_reading, unread)
        pipelined = bool(self.pipeline)
        super().on_response_complete()
        if not pipelined and not self.transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._wait_no_more()
        self.config.waiting[self] = None
        self._timer = self.loop.call_later(self.config.patience, self._give_up)

    def _wait_no_more(self) -> None:
        self.config.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._wait_no_more()
        self.transport.close()

    def _check_reading(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread == unread_before:
            self.transport.abort()
        elif unread:
            self.loop.call_later(self.config.patience, self._check_reading, unread)
