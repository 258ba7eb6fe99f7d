"""The processes of all tasks of one server, and the server of forks that they come from."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from shared.errors import APIError, ErrorCode
from shared.processes.fork_server import ForkServer
from shared.processes.pool import Observer, Pool, PoolSpec
from shared.processes.worker import InputJob

_PAUSE_SECONDS = 1.0  # until a server that died is started again

_log = logging.getLogger(__name__)


class ProcessPools:
    """A pool for each task, by its name; accounts take turns.

    It may be started and closed on any thread; all else is for the event loop that asks first.
    """

    def __init__(self, specs: Mapping[str, PoolSpec], observer: Observer) -> None:
        every = dict(specs) | {
            _heavy(name): spec.of_heavy for name, spec in specs.items() if spec.of_heavy is not None
        }
        self._server = ForkServer(
            {name: (spec.task, spec.layout, spec.niceness) for name, spec in every.items()}
        )
        self._pools = {name: Pool(name, spec, self._server, observer) for name, spec in every.items()}
        for name in specs:
            self._pools[name].heavy = self._pools.get(_heavy(name), self._pools[name])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closed = False
        self._starting: asyncio.Task[None] | None = None  # another server, after one that died

    def start(self) -> None:
        """Start them, and wait for the first of each task; the others come as soon as they can.

        Raises:
            CannotStart: it does not start.
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

    def living(self, name: str) -> int:
        """How many processes of this task there are."""
        return self._pools[name].living

    def waiting(self, name: str) -> int:
        """How many inputs of this task nobody works on yet."""
        return self._pools[name].waiting

    def submit(
        self,
        name: str,
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
        return self._pools[name].submit(account, inputs, background=background)

    def drop(self, name: str, job: InputJob) -> None:
        """Forget the waiting inputs of a job whose caller has gone."""
        self._pools[name].drop(job)

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


def _heavy(name: str) -> str:
    return f"{name}, heavy"


def _stopping() -> APIError:
    return APIError(ErrorCode.SHUTTING_DOWN, "the server is stopping; try again", retry_after=1)
