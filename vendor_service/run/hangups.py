"""SIGHUP, by which an operator has the file of models read again."""

import asyncio
import signal


class Hangups:
    """Notes each SIGHUP from now on, which otherwise would end the process. Made on the main thread."""

    def __init__(self) -> None:
        self._noted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        signal.signal(signal.SIGHUP, self._note)

    async def next(self) -> None:
        """Wait for one, or return at once where one came since the last call."""
        self._loop = asyncio.get_running_loop()
        await self._noted.wait()
        self._noted.clear()

    def _note(self, *_: object) -> None:
        if self._loop is None:
            self._noted.set()
        else:
            self._loop.call_soon_threadsafe(self._noted.set)
