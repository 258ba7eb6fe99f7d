"""`GET /livez` and `GET /readyz`: whether the process is up, and whether it could answer a request now."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Annotated
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Query

from shared.errors import ErrorCode
from shared.http.capacity import Capacity
from vendor_service.clock import ClockWatch
from vendor_service.database.session import Database
from vendor_service.embed.models import Models, ServedModel
from vendor_service.encoder.encoder import Encoder
from vendor_service.errors import APIError

_log = logging.getLogger(__name__)

# A canary costs a forward pass and a commit reaches the disk, so their success is believed for a while.
_BELIEVED_SECONDS = 10.0
_PATIENCE_SECONDS = 5.0
# A canary that has not come for so long is lost, whatever others get.
_OVERDUE_SECONDS = 60.0


def health_router(readiness: "Readiness") -> APIRouter:
    """The routes; they need no key."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz(
        model: Annotated[str | None, Query(description="one model, instead of all")] = None,
    ) -> dict[str, str]:
        """Every model recently encoded something, the database answers and recently took a change, and the
        clock is not known to be wrong.
        """
        await readiness.check(model)
        return {"status": "ready"}

    return router


class Readiness:
    """Asks the models, through their real queues, and the database, which must take a change; all must be
    soon.

    Nothing is believed of a model from before a worker of it died, and while one is dead the answer is no.
    Each is asked once at a time, however many want to know.
    """

    def __init__(self, models: Models, database: Database, capacity: Capacity, watch: ClockWatch) -> None:
        self._watch = watch
        self._models = models
        self._database = database
        self._capacity = capacity
        self._written_at = -_BELIEVED_SECONDS
        self._books = _OneAtATime(self._ask_books)
        self._canaries: WeakKeyDictionary[ServedModel, _Canary] = WeakKeyDictionary()
        self._troubles: dict[str | None, str] = {}

    async def check(self, name: str | None = None) -> None:
        """Return if a request could be answered, and charged, now: by the model of that name, or by all.

        Raises:
            APIError: `not_ready`, `shutting_down` or `model_not_found`.
        """
        if self._capacity.closed:
            raise APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping", retry_after=5)
        self._watch.check()
        models = list(self._models) if name is None else [self._models.find(name)]
        asks = [self._books.ask, *(self._canary(model).ask for model in models)]
        try:
            with ExitStack() as using:
                for model in models:
                    using.enter_context(model.in_hand())
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await asyncio.gather(*(ask() for ask in asks))
        except Exception as error:
            self._tell(name, repr(error))
            message = "the model or the database does not answer; the vendor's log says which"
            raise APIError(ErrorCode.NOT_READY, message, retry_after=5) from error
        self._tell(name, None)

    def _canary(self, model: ServedModel) -> "_Canary":
        if model not in self._canaries:
            self._canaries[model] = _Canary(model.encoder)
        return self._canaries[model]

    def _tell(self, name: str | None, trouble: str | None) -> None:
        """Log a change: whoever asks every second need not be told every second."""
        if trouble == self._troubles.get(name):
            return
        if trouble is None:
            del self._troubles[name]
            _log.info("ready again")
        else:
            self._troubles[name] = trouble
            _log.warning("not ready: %s", trouble)

    async def _ask_books(self) -> None:
        await asyncio.to_thread(self._database.check)
        if time.monotonic() - self._written_at > _BELIEVED_SECONDS:
            await asyncio.to_thread(self._database.check_writing)
            self._written_at = time.monotonic()


class _Canary:
    """Asks one model, whose success is believed for a while.

    Behind the full queue of a large model a canary comes later than anybody waits for it. Until it comes,
    batches that are answered speak for the model, unless a worker died or the last canary failed.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._encoded_at = -math.inf
        self._deaths = 0
        self._checking = _OneAtATime(self._check)

    async def ask(self) -> None:
        """Return if it encodes; raises whatever is wrong with it."""
        age = time.monotonic() - self._encoded_at
        lives_on = self._encoder.deaths == self._deaths
        if lives_on and age <= _BELIEVED_SECONDS:
            return
        checking = self._checking.begin()
        silent = time.monotonic() - self._encoder.answered_at
        if not (lives_on and age <= _OVERDUE_SECONDS and silent <= _BELIEVED_SECONDS):
            await asyncio.shield(checking)

    async def _check(self) -> None:
        deaths = self._encoder.deaths
        try:
            await self._encoder.check()
        except Exception as error:
            self._encoded_at = -math.inf
            raise RuntimeError(f"the model {self._encoder.facts.id!r}: {error!r}") from error
        self._encoded_at, self._deaths = time.monotonic(), deaths


class _OneAtATime:
    """A question that is asked once at a time: who asks meanwhile waits for the same answer."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[None] | None = None

    def begin(self) -> "asyncio.Future[None]":
        """The answer that is to come; whoever waits for it shields it, as others wait too."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return self._asking

    async def ask(self) -> None:
        """Wait for the answer; who no longer waits ends it for nobody else."""
        await asyncio.shield(self.begin())
