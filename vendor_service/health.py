"""`GET /livez` and `GET /readyz`: whether the process is up, and whether it could answer a request now."""

import asyncio
import logging
import time

from fastapi import APIRouter
from sqlalchemy import text

from shared.errors import ErrorCode
from vendor_service.database.session import Database
from vendor_service.encoder.engine import Engine
from vendor_service.errors import Refusal

_log = logging.getLogger(__name__)

_CANARY_SECONDS = 10.0  # a canary costs a forward pass, so its success is believed for a while
_PATIENCE_SECONDS = 5.0


def health_router(engine: Engine, database: Database) -> APIRouter:
    """The routes; they need no key."""
    router = APIRouter(tags=["health"])
    readiness = Readiness(engine, database)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        """The model is loaded and recently encoded something, and the database answers."""
        await readiness.check()
        return {"status": "ready"}

    return router


class Readiness:
    """Asks the model, through its real lanes, and the database; both must answer soon."""

    def __init__(self, engine: Engine, database: Database) -> None:
        self._engine = engine
        self._database = database
        self._encoded_at = -_CANARY_SECONDS

    async def check(self) -> None:
        """Return if a request could be answered now.

        Raises:
            Refusal: `not_ready`.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                if time.monotonic() - self._encoded_at > _CANARY_SECONDS:
                    await self._engine.check()
                    self._encoded_at = time.monotonic()
                await asyncio.to_thread(self._ask_database)
        except Exception as error:
            _log.warning("not ready: %r", error)
            message = "the model or the database does not answer; the vendor's log says which"
            raise Refusal(ErrorCode.NOT_READY, message, retry_after=5) from error

    def _ask_database(self) -> None:
        with self._database.read() as session:
            session.execute(text("SELECT 1"))
