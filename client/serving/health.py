"""Whether a deployed student could answer a request now."""

import asyncio
import logging
import time
from io import BytesIO

from PIL import Image

from client.serving.batcher import Batcher
from shared.errors import APIError, ErrorCode
from shared.http.capacity import Capacity

_log = logging.getLogger(__name__)

_BELIEVED_SECONDS = 10.0
_PATIENCE_SECONDS = 5.0


class Readiness:
    """Asks the student about a picture, on the way that every image takes; it must answer soon.

    An answer is believed for a while, and it is asked once at a time, however many want to know.
    """

    def __init__(self, batcher: Batcher, capacity: Capacity) -> None:
        self._batcher = batcher
        self._capacity = capacity
        self._picture = _white_png()
        self._answered_at = -_BELIEVED_SECONDS
        self._asking: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Return if a request could be answered now.

        Raises:
            APIError: `not_ready` or `shutting_down`.
        """
        if self._capacity.closed:
            raise APIError(ErrorCode.SHUTTING_DOWN, "the server is stopping", retry_after=5)
        if time.monotonic() - self._answered_at < _BELIEVED_SECONDS:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await asyncio.shield(self._asking)
        except Exception as error:
            _log.warning("not ready: %r", error)
            raise APIError(ErrorCode.NOT_READY, "the student does not answer", retry_after=5) from error

    async def _ask(self) -> None:
        (row,) = await self._batcher.probabilities("readiness", [self._picture])
        if isinstance(row, APIError):
            raise row
        self._answered_at = time.monotonic()


def _white_png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (1, 1), "white").save(file, "PNG")
    return file.getvalue()
