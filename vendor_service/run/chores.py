"""Chores: work that is repeated beside the requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vendor_service.errors import APIError, OperatorError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chore:
    """Work that is repeated on a thread, with a pause before each time.

    Args:
        name: what the log calls it.
        work: does it once.
        every_seconds: the pause before each time.
        may_run: asked before each time.
        at_end: whether it is done a last time when the vendor stops.
        call: runs the work on a thread, by default on one of the event loop's own.
    """

    name: str
    work: Callable[[], object]
    every_seconds: float
    may_run: Callable[[], bool] = lambda: True
    at_end: bool = False
    call: Callable[[Callable[[], object]], Awaitable[object]] = asyncio.to_thread

    async def repeat(self) -> None:
        """Do it after each pause, until cancelled."""
        while True:
            await asyncio.sleep(self.every_seconds)
            await self.call(self.attempt)

    def attempt(self) -> None:
        """Do it once; a failure is logged, for the next time may succeed."""
        try:
            if self.may_run():
                self.work()
        except (APIError, OperatorError) as error:
            _log.warning("%s was put off: %s", self.name, error)
        except Exception:
            _log.exception("%s failed; it will be tried again", self.name)
