"""Rereading: SIGHUP has a vendor take up what its file of models has become, while it serves."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

from vendor_service.metrics import Metrics
from vendor_service.run.model_loader import ModelLoader
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.settings import Settings

_log = logging.getLogger(__name__)


class Hangups:
    """Notes each SIGHUP from now on, which otherwise would end the process. Made on the main thread."""

    def __init__(self) -> None:
        self._noted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        signal.signal(signal.SIGHUP, self._note)

    async def next(self) -> None:
        """Wait until there was one, be it before this is called."""
        self._loop = asyncio.get_running_loop()
        await self._noted.wait()
        self._noted.clear()

    def _note(self, *_: object) -> None:
        if self._loop is None:
            self._noted.set()
        else:
            self._loop.call_soon_threadsafe(self._noted.set)


class Reread:
    """Exchanges the models for those of the file, as it is then; where it is wrong, all stays as it was.

    `publish` gives the models their first prices.
    """

    def __init__(
        self,
        settings: Settings,
        loader: ModelLoader,
        publish: Callable[[Sequence[ModelSpec]], None],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._loader = loader
        self._publish = publish
        self._faulty = metrics.gauge(
            "models_file_faulty", "Whether the file of models could not be taken up when it was last read."
        )

    async def repeat(self, hangups: Hangups) -> None:
        """Do it at every one of the `hangups`, until cancelled."""
        while True:
            await hangups.next()
            await self.once()

    async def once(self) -> None:
        """Read the file and take it up; the log says what became of it."""
        try:
            specs = await asyncio.to_thread(find_specs, self._settings)
            await self._loader.exchange(specs, lambda: self._publish(specs))
        except Exception as error:  # whatever a model may raise that does not fit here
            self._faulty.set(1)
            _log.error("the file of models is not taken up, and all models stay as they were: %s", error)
        else:
            self._faulty.set(0)
