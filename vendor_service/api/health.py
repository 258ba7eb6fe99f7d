"""`GET /livez` and `GET /readyz`: whether the process is up, and whether it could answer a request now."""

import asyncio
import logging
import time

from fastapi import APIRouter

from shared.errors import ErrorCode
from shared.serving.capacity import Capacity
from vendor_service.billing.clock_watch import ClockWatch
from vendor_service.database.session import Database
from vendor_service.encoder.encoder import Encoder
from vendor_service.errors import APIError

_log = logging.getLogger(__name__)

# A canary costs a forward pass and a commit reaches the disk, so their success is believed for a while.
_BELIEVED_SECONDS = 10.0
_PATIENCE_SECONDS = 5.0


def health_router(readiness: "Readiness") -> APIRouter:
    """The routes; they need no key."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        """The model recently encoded something, the database answers and recently took a change, and the
        clock is not known to be wrong.
        """
        await readiness.check()
        return {"status": "ready"}

    return router


class Readiness:
    """Asks the model, through its real queues, and the database, which must take a change; both must be soon.

    Nothing is believed of before a worker died, and while one is dead the answer is no. Both are asked once
    at a time, however many want to know.
    """

    def __init__(self, encoder: Encoder, database: Database, capacity: Capacity, watch: ClockWatch) -> None:
        self._watch = watch
        self._encoder = encoder
        self._database = database
        self._capacity = capacity
        self._encoded_at = self._written_at = -_BELIEVED_SECONDS
        self._deaths = 0
        self._asking: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    async def check(self) -> None:
        """Return if a request could be answered, and charged, now.

        Raises:
            APIError: `not_ready` or `shutting_down`.
        """
        if self._capacity.closed:
            raise APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping", retry_after=5)
        self._watch.check()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await asyncio.shield(self._asking)
        except Exception as error:
            self._tell(repr(error))
            message = "the model or the database does not answer; the vendor's log says which"
            raise APIError(ErrorCode.NOT_READY, message, retry_after=5) from error
        self._tell(None)

    def _tell(self, trouble: str | None) -> None:
        """Log a change: whoever asks every second need not be told every second."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            _log.info("ready again")
        else:
            _log.warning("not ready: %s", trouble)

    async def _ask(self) -> None:
        deaths = self._encoder.deaths
        if deaths != self._deaths or time.monotonic() - self._encoded_at > _BELIEVED_SECONDS:
            await self._encoder.check()
            self._encoded_at, self._deaths = time.monotonic(), deaths
        await asyncio.to_thread(self._database.check)
        if time.monotonic() - self._written_at > _BELIEVED_SECONDS:
            await asyncio.to_thread(self._database.check_writing)
            self._written_at = time.monotonic()
