"""Upkeep: ends jobs whose time is over, and deletes files that were kept for long enough."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from vendor_service.batches.files import Files
from vendor_service.batches.jobs import Jobs
from vendor_service.errors import APIError
from vendor_service.money.clock_watch import ClockWatch

_log = logging.getLogger(__name__)


class Upkeep:
    """Does what is due, now and then. Several processes may do it at once."""

    def __init__(self, jobs: Jobs, files: Files, watch: ClockWatch) -> None:
        self._jobs = jobs
        self._files = files
        self._watch = watch

    async def repeat(self, every_seconds: float) -> None:
        """Do it again and again, until cancelled. A store that hangs keeps no job from being ended."""

        async def repeat(chore: Callable[[], Awaitable[None]]) -> None:
            while True:
                await asyncio.sleep(every_seconds)
                await chore()

        ending = partial(asyncio.to_thread, self.end_jobs)
        removing = partial(self._files.store.do, self.remove_files)
        await asyncio.gather(repeat(ending), repeat(removing))

    def end_jobs(self) -> None:
        """End what is due now; a failure is logged, for the next time may succeed."""
        self._try(self._end_jobs)

    def remove_files(self) -> None:
        """Delete what is due now; as `end_jobs`."""
        self._try(self._remove_files)

    def _try(self, chore: Callable[[], None]) -> None:
        if self._watch.fault is not None:
            return  # a wrong clock would end and delete what is to stay
        try:
            chore()
        except APIError as error:
            _log.warning("the upkeep of bulk jobs was put off: %s", error)
        except Exception:
            _log.exception("the upkeep of bulk jobs failed; it will be tried again")

    def _end_jobs(self) -> None:
        ended = self._jobs.end_overdue()
        if ended:
            _log.info("ended %d bulk jobs that had expired, or whose key was revoked", ended)

    def _remove_files(self) -> None:
        failed: Exception | None = None
        for each in self._files.expired():
            try:
                self._files.remove(each)
            except Exception as error:
                failed = error  # the others may go all the same
        if failed is not None:
            raise failed
