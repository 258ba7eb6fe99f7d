"""The signed card: which model is promised, with its answers to a few inputs that anybody may ask about."""

import asyncio
import base64
from io import BytesIO

import numpy as np
from PIL import Image

from shared.encoding import to_base64
from shared.receipts import CanaryVector, CardClaims
from vendor_service.clock import SECOND, Clock
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.errors import APIError

_ACCOUNT = "signed card"
_TEXTS = ("a photo of a cat", "a drawing of a house", "the sea at night", "42")
_SIDE = 64  # pixels


class ModelPromise:
    """The card of one model, made when it is first asked for."""

    def __init__(self, encoder: Encoder, clock: Clock) -> None:
        self._encoder = encoder
        self._clock = clock
        self._lock = asyncio.Lock()
        self._claims: CardClaims | None = None

    async def claims(self) -> CardClaims:
        """Make the claims of the card.

        Raises:
            APIError: the model does not answer.
        """
        async with self._lock:
            if self._claims is None:
                self._claims = await self._make()
        return self._claims

    async def _make(self) -> CardClaims:
        canaries = _canaries()
        prepared = await self._encoder.prepare(_ACCOUNT, canaries)
        pairs = [
            (query, each)
            for query, each in zip(canaries, prepared, strict=True)
            if not isinstance(each, APIError)  # the vendor's limits may be that narrow
        ]
        rows = (await self._encoder.encode(_ACCOUNT, [each for _, each in pairs])).rows
        model = self._encoder.facts
        return CardClaims(
            iat=self._clock() // SECOND,
            model=model.id,
            model_fingerprint=model.fingerprint,
            dimensions=model.dimensions,
            tolerance=model.tolerance,
            dtype=model.dtype,
            image_size=model.image_size,
            canaries=[
                CanaryVector(kind=query.kind, content=_content(query), embedding=to_base64(row))
                for (query, _), row in zip(pairs, rows, strict=True)
            ],
        )


def _canaries() -> list[Query]:
    ramp = np.linspace(0, 255, _SIDE, dtype=np.uint8)
    across, down = np.meshgrid(ramp, ramp)
    squares = np.where((across // 32 + down // 32) % 2, 255, 0).astype(np.uint8)
    pictures = (np.stack([across, down, 255 - across], axis=-1), np.stack([squares] * 3, axis=-1))
    return [*map(TextQuery, _TEXTS), *(ImageQuery(_png(each)) for each in pictures)]


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _content(query: Query) -> str:
    if isinstance(query, TextQuery):
        return query.text
    assert isinstance(query.file, bytes)
    return base64.b64encode(query.file).decode()
