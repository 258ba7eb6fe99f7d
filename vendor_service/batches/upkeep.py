"""Upkeep: ends jobs whose time is over, and deletes files that were kept for long enough."""

import asyncio
import logging

from vendor_service.batches.files import Files
from vendor_service.batches.jobs import Jobs
from vendor_service.billing.clock_watch import ClockWatch
from vendor_service.errors import APIError

_log = logging.getLogger(__name__)


class Upkeep:
    """Does what is due, now and then. Several processes may do it at once."""

    def __init__(self, jobs: Jobs, files: Files, watch: ClockWatch) -> None:
        self._jobs = jobs
        self._files = files
        self._watch = watch

    async def repeat(self, every_seconds: float) -> None:
        """Do it again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            await self._files.store.do(self.once)

    def once(self) -> None:
        """Do it now; a failure is logged, for the next time may succeed."""
        if self._watch.fault is not None:
            return  # a wrong clock would end and delete what is to stay
        try:
            ended = self._jobs.end_overdue()
            if ended:
                _log.info("ended %d bulk jobs that had expired, or whose key was revoked", ended)
            for each in self._files.expired():
                self._files.remove(each)
        except APIError as error:
            _log.warning("the upkeep of bulk jobs was put off: %s", error)
        except Exception:
            _log.exception("the upkeep of bulk jobs failed; it will be tried again")
