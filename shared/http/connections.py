"""Connections: what one may cost that asks nothing, sends slowly, or does not read what it is answered."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from shared.hosts import name_in

_PATIENCE_SECONDS = 20.0
# Bytes of a request line, headers and trailers, which uvicorn and its parser would keep without a bound.
_LARGEST_HEAD = 65_536
# A header counts as so many bytes more, since that is what it takes of memory and time, however short it is.
_HEADER_BYTES = 256
_MOST_PIPELINED = 16  # requests that are sent before the answer to the one before them has come
# Whoever sends a body, or reads an answer, gets somewhere when so many bytes more have passed.
_STEP_BYTES = 16_384
# A body comes in pieces, by its chunks or as the network brings it, each of which takes as long as a thousand
# bytes. So where they are more than so many, they have at least so many bytes on average.
_MOST_SMALL_PIECES, _SMALL_PIECE = 4096, 64
# What is dropped is taken no faster than this, since taking it costs as much as if it were wanted.
_DROPPED_BYTES, _DROPPED_SECONDS = 1024 * 1024, 0.05


class _NoMore(Exception):
    """Nothing more of what came is to be read: it ends the parser, which would read on to the end."""


class Config(uvicorn.Config):
    """A configuration of uvicorn under which connections are bounded.

    There are at most `most` of them. One more makes another give way: the one that has got nowhere longest,
    of those that wait for a request to come, whose body is not all there, or who do not read their answer.
    One whose request is being served never does. A request's head has `patience` seconds to arrive, and of an
    answer some thousand bytes must be read in that time, until it is read whole. What still comes of a body
    that was answered before its end is dropped for so long, since a connection that is closed while the other
    side sends often takes the answer with it.
    """

    def __init__(self, app: ASGIApp, most: int, patience: float = _PATIENCE_SECONDS, **rest: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(app, http=BoundedHttp, ws="none", **rest)
        self.most = most
        self.patience = patience
        self.on_closed: Callable[[], None] = lambda: None
        self.waiting: dict[
            BoundedHttp, None
        ] = {}  # for the other side; who has got nowhere longest comes first

    def make_room(self) -> None:
        """Make one connection give way."""
        held_up = []
        for each in self.waiting:
            if not each.held_up:
                each.give_way()
                break
            held_up.append(each)
        for each in held_up:
            each.get_somewhere()


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
        self._timer: asyncio.TimerHandle | None = None  # while a request is waited for
        self._reading_timer: asyncio.TimerHandle | None = None  # while an answer is to be read
        self._served: RequestResponseCycle | None = None  # the request; `cycle` is the last that came
        self._in_head = self._in_body = False
        self._head_size = self._unparsed_size = self._step_size = self._dropped = 0
        self._body_size = self._pieces = 0

    @property
    def held_up(self) -> bool:
        """Whether it is here, and not on the other side, that nothing more of a body is taken."""
        return self._in_body and self.flow.read_paused and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, in the place of another connection if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.config.most:
            self.config.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell the request that is served; uvicorn tells the last that came."""
        super().connection_lost(exc)
        if self._served is not None and not self._served.response_complete:
            self._served.disconnected = True
            self._served.message_event.set()
        self._wait_no_more()
        self._stop_timing_reader()
        self.config.on_closed()

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is a header or a trailer without an end."""
        self._unparsed_size += len(data)
        super().data_received(data)
        if (self._in_head or self._in_body) and self._unparsed_size > _LARGEST_HEAD:
            self._refuse_head()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: nobody is offered another protocol, and a stranger's wish for one is no news."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, unless the connection is being closed."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """A head begins."""
        if self.transport.is_closing():
            raise _NoMore
        super().on_message_begin()
        self._in_head, self._head_size = True, 0

    def on_url(self, url: bytes) -> None:
        """A part of the request line came."""
        super().on_url(url)
        self._keep(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came, or a trailer behind a body.

        A trailer is counted and dropped (RFC 9110, 6.5.1): proxies that set a header pass trailers of its
        name on.
        """
        if self.transport.is_closing():
            return
        if not self._in_body:
            super().on_header(name, value)
        self._keep(len(name) + len(value) + _HEADER_BYTES)

    def on_headers_complete(self) -> None:
        """A head is whole: how long the rest may take is for the application to say."""
        self._in_head, self._in_body = False, True
        self._step_size = self._dropped = self._body_size = self._pieces = 0
        if self.transport.is_closing():
            return
        self._wait_no_more()
        self.get_somewhere()
        if not self._names_one_host():
            self.send_400_response("Send one Host header, with a name or an address.")
            return
        super().on_headers_complete()
        if not self.pipeline:
            self._served = self.cycle
        if len(self.pipeline) > _MOST_PIPELINED:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """More of a body came: if it was answered already, drop it."""
        self._unparsed_size = 0
        if self.transport.is_closing():
            raise _NoMore
        self._body_size += len(body)
        self._pieces += 1
        if self._pieces > _MOST_SMALL_PIECES and self._body_size < _SMALL_PIECE * self._pieces:
            self.transport.abort()
            raise _NoMore
        super().on_body(body)
        if self.cycle.response_complete:
            self._drop(len(body))
            return
        self._step_size += len(body)
        if self._step_size >= _STEP_BYTES:
            self._step_size = 0
            self.get_somewhere()

    def on_message_complete(self) -> None:
        """A request is whole, and is served unless it was answered before."""
        self._in_body = False
        if self.transport.is_closing():
            return
        super().on_message_complete()
        if not self.cycle.response_complete:
            self.config.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """See that the answer is read, and wait for the next request."""
        if self.cycle.response_complete:
            self.cycle.body = bytearray()  # what nobody asked for
        if self.transport.get_write_buffer_size():
            self._time_reader()
        pipelined = bool(self.pipeline)
        if pipelined:
            self._served, _ = self.pipeline[-1]  # which uvicorn takes up now
        super().on_response_complete()
        if self.transport.is_closing():
            self.get_somewhere()  # what is unread of the answer keeps it open
        elif not pipelined:
            self._wait()

    def pause_writing(self) -> None:
        """The answer is to be read before more of it is sent."""
        super().pause_writing()
        self.get_somewhere()
        self._time_reader()

    def resume_writing(self) -> None:
        """The answer is being read."""
        super().resume_writing()
        self.get_somewhere()
        self._stop_timing_reader()
        if self.transport.get_write_buffer_size() and self.cycle.response_complete:
            self._time_reader()
        elif not self._in_body and not self.cycle.response_complete:
            self.config.waiting.pop(self, None)

    def get_somewhere(self) -> None:
        """Give way after all others, from now on."""
        self.config.waiting.pop(self, None)
        self.config.waiting[self] = None

    def give_way(self) -> None:
        """Close the connection, whatever it waits for."""
        self._wait_no_more()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing it would wait until all that is read
        else:
            self.transport.close()

    def _keep(self, count: int) -> None:
        self._unparsed_size = 0
        self._head_size += count
        if self._head_size > _LARGEST_HEAD:
            self._refuse_head()

    def _names_one_host(self) -> bool:
        """As RFC 9112, section 3.2, has it; HTTP/1.0 knew no `Host`."""
        named = [value.decode("latin-1") for name, value in self.headers if name == b"host"]
        if not named:
            return self.parser.get_http_version() == "1.0"
        return len(named) == 1 and name_in(named[0]) is not None

    def _refuse_head(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self.send_400_response("Request headers are too large.")
        else:  # the request is being served, or was answered
            self.transport.abort()

    def _wait(self) -> None:
        self._wait_no_more()
        self.get_somewhere()
        self._timer = self.loop.call_later(self.config.patience, self._give_up)

    def _wait_no_more(self) -> None:
        self.config.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.transport.get_write_buffer_size():  # how long that may take is another timer's to say
            self._timer = self.loop.call_later(self.config.patience, self._give_up)
        else:
            self.give_way()

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._dropped > _DROPPED_BYTES and not self.transport.is_closing():
            self._dropped = 0
            self.transport.pause_reading()
            self.loop.call_later(_DROPPED_SECONDS, self._drop_more)

    def _drop_more(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _time_reader(self) -> None:
        self._stop_timing_reader()
        unread = self.transport.get_write_buffer_size()
        self._reading_timer = self.loop.call_later(self.config.patience, self._check_reader, unread)

    def _stop_timing_reader(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _check_reader(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread > max(0, unread_before - _STEP_BYTES):
            self.transport.abort()
        elif unread:
            self._time_reader()
