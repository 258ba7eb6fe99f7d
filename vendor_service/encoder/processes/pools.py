"""The process pools, one for each kind of input: started, watched and ended together."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.processes.fork_server import ForkServer
from vendor_service.encoder.processes.inputs import InputJob
from vendor_service.encoder.processes.pool import Pool, PoolSpec
from vendor_service.errors import APIError

_PAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class ProcessPools:
    """A pool for each kind of input; accounts take turns.

    It may be started and closed on any thread; all else is for the event loop that asks first.
    """

    def __init__(self, specs: Mapping[Kind, PoolSpec], observer: Observer) -> None:
        self._server = ForkServer({kind: (spec.task, spec.layout) for kind, spec in specs.items()})
        self._pools = {kind: Pool(kind, spec, self._server, observer) for kind, spec in specs.items()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closed = False
        self._starting: asyncio.Task[None] | None = None  # another server, after one that died

    def start(self) -> None:
        """Start them, and wait for the first of each kind; the others come as soon as they can.

        Raises:
            OperatorError: it does not start.
        """
        self._server.start()
        for first in [pool.start() for pool in self._pools.values()]:
            self._server.wait_for(first)

    def close(self) -> None:
        """End them. Inputs that are not done are refused."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._thread == threading.get_ident():
            self._end()
        else:
            ended: Future[None] = Future()
            loop.call_soon_threadsafe(self._end, ended)
            ended.result()
        self._server.close()

    def living(self, kind: Kind) -> int:
        """How many processes of this kind there are."""
        return self._pools[kind].living

    def waiting(self, kind: Kind) -> int:
        """How many inputs of this kind nobody works on yet."""
        return self._pools[kind].waiting

    def submit(
        self,
        kind: Kind,
        account: str,
        inputs: Sequence[tuple[bytes | str, bool]],
        *,
        background: bool = False,
    ) -> InputJob:
        """Queue one caller's inputs, each with whether it is base64; those of the background wait.

        Raises:
            APIError: `shutting_down`.
        """
        if self._closed:
            raise _stopping()
        if self._loop is None:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
            self._loop.add_reader(self._server.control, self._on_readable)
            for pool in self._pools.values():
                pool.watch(self._loop)
        return self._pools[kind].submit(account, inputs, background=background)

    def drop(self, kind: Kind, job: InputJob) -> None:
        """Forget the waiting inputs of a job whose caller has gone."""
        self._pools[kind].drop(job)

    def _on_readable(self) -> None:
        assert self._loop is not None
        control = self._server.control
        deaths = self._server.poll()
        if not self._server.alive:
            self._loop.remove_reader(control)
            self._starting = self._loop.create_task(self._start_anew())
        for death in deaths:
            for pool in self._pools.values():
                pool.mark_dead(death)

    async def _start_anew(self) -> None:
        while not self._server.alive:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await self._server.start_anew()
            except OSError as error:
                _log.error("the server that forks cannot be started, which is tried again: %s", error)
        assert self._loop is not None
        self._loop.add_reader(self._server.control, self._on_readable)
        for pool in self._pools.values():
            pool.refill()

    def _end(self, ended: Future[None] | None = None) -> None:
        self._closed = True
        if self._starting is not None and self._loop is not None and not self._loop.is_closed():
            self._starting.cancel()
        if self._loop is not None and self._server.alive:
            self._loop.remove_reader(self._server.control)
        for pool in self._pools.values():
            pool.close(_stopping())
        if ended is not None and self._loop is not None:
            self._loop.call_soon(ended.set_result, None)  # once the socket of what was cancelled is let go


def _stopping() -> APIError:
    return APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)
