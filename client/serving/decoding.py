"""From image files that nobody vouches for to what the student sees, as `client predict` decodes them.

It happens in processes that can be killed, as at the vendor (`shared.processes`).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from client.data.images import Pixels, UnreadableImage, draft_size, formats, otherwise, squeezed, unknown
from client.data.sending import as_png
from shared.errors import APIError, ErrorCode
from shared.images.decoder import decoding
from shared.images.limits import ImageLimits, from_base64
from shared.processes.pool import Observer
from shared.processes.pools import ProcessPools
from shared.processes.worker import Outcome

# Decoded, turned, laid on white and converted, four bytes each, as measured; libraries of video formats keep
# a copy or two of their own.
_BYTES_A_PIXEL = 24
_BYTES_A_PIXEL_OF_VIDEO = 32
_VIDEO = frozenset({"AVIF", "HEIF"})
_CODES = {
    "too many pixels": ErrorCode.IMAGE_TOO_LARGE,
    "HEIC": ErrorCode.UNSUPPORTED_IMAGE_FORMAT,
}
# Of a picture that is made for a vendor; it has at most 384 pixels on its shorter side.
_MOST_SENT_BYTES = 4 << 20
_SIZE_BYTES = 8
# Decoding a large image may take seconds, and gives way to all else: a hostile one costs others no core.
_NICENESS_OF_LARGE = 19
_SEEN, _SENT = "seen", "sent"  # the two tasks


class _Formats:
    """What is alike in both `Preprocessor`s of a student: all formats that `client predict` reads."""

    @property
    def formats(self) -> tuple[str, ...]:
        """As Pillow names them."""
        return formats()

    def bytes_a_pixel(self, form: str | None) -> int:
        """The memory that decoding and converting takes for each pixel of a file of this format."""
        return _BYTES_A_PIXEL_OF_VIDEO if form in _VIDEO else _BYTES_A_PIXEL

    def unknown(self, data: bytes) -> APIError:
        """The refusal of a file that is not known as one of the formats."""
        return _refusal(unknown(data))


class Squeezing(_Formats):
    """The pixels that a student of `side` pixels sees of an image."""

    def __init__(self, side: int) -> None:
        self._side = side
        self.image_bytes = 3 * side * side

    def draft_size(self, width: int, height: int) -> tuple[int, int]:  # noqa: ARG002 - it is a square
        """The width and height at which a file may be decoded, if its decoder can choose."""
        return draft_size(self._side)

    def pixels(self, image: Image.Image) -> Pixels:
        """RGB of shape (side, side, 3).

        Raises:
            APIError: `invalid_image`: its values have 32 bits.
        """
        try:
            return squeezed(image, self._side)[0]
        except UnreadableImage as error:
            raise _refusal(error) from error


class Sending(_Formats):
    """The picture that a vendor is sent of an image: its size in bytes and its bytes, padded with zeros.

    The size is zero where the file itself is sent (`as_sent`).
    """

    image_bytes = _SIZE_BYTES + _MOST_SENT_BYTES

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        """All pixels count."""
        return width, height

    def pixels(self, image: Image.Image) -> Pixels:
        """The bytes, shape (image_bytes,).

        Raises:
            APIError: `invalid_image` or `image_too_large`.
        """
        try:
            seen = otherwise(image)
        except UnreadableImage as error:
            raise _refusal(error) from error
        picture = b"" if seen is None else as_png(seen)
        if len(picture) > _MOST_SENT_BYTES:
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, "the picture to send is too large")
        content = len(picture).to_bytes(_SIZE_BYTES, "big") + picture
        return np.frombuffer(content.ljust(self.image_bytes, b"\0"), np.uint8)


class ImageDecoder:
    """Processes that decode images into squares of `side` pixels; accounts take turns.

    Args:
        side: of what the student sees.
        limits: of the files.
        processes: how many decode; one more decodes large images.
        sends: whether another one makes what a vendor is sent.
        observer: is told of images and of processes that ended.
    """

    def __init__(
        self, side: int, limits: ImageLimits, processes: int, observer: Observer, *, sends: bool = False
    ) -> None:
        self._shape = (side, side, 3)
        self._limits = limits
        seen = decoding(Squeezing(side), limits, processes, niceness_of_heavy=_NICENESS_OF_LARGE)
        specs = {_SEEN: seen}
        if sends:
            specs[_SENT] = decoding(Sending(), limits, 1, slots=1)
        self._pools = ProcessPools(specs, observer)

    @property
    def waiting(self) -> int:
        """How many images no process works on yet."""
        return self._pools.waiting(_SEEN)

    def start(self) -> None:
        """Start the processes.

        Raises:
            CannotStart: they do not start.
        """
        self._pools.start()

    def close(self) -> None:
        """End them. What is not decoded is refused."""
        self._pools.close()

    async def decode(self, account: str, files: Sequence[bytes | str]) -> list[Pixels | APIError]:
        """RGB of shape (side, side, 3) of each file, or of its base64; or why it cannot be read."""
        outcomes: dict[int, Outcome] = {}
        sound: list[int] = []
        for index, file in enumerate(files):
            try:
                self._limits.check(file)
                sound.append(index)
            except APIError as error:
                outcomes[index] = error
        outcomes |= zip(sound, await self._do(_SEEN, account, [files[each] for each in sound]), strict=True)
        ordered = (outcomes[index] for index in range(len(files)))
        return [each if isinstance(each, APIError) else each.reshape(self._shape) for each in ordered]

    async def as_sent(self, account: str, file: bytes | str) -> bytes | None:
        """What a vendor is sent of an image that was decoded before; `None` if that cannot be made."""
        (outcome,) = await self._do(_SENT, account, [file])
        if isinstance(outcome, APIError):
            return None
        size = int.from_bytes(outcome[:_SIZE_BYTES].tobytes(), "big")
        if size:
            return outcome[_SIZE_BYTES : _SIZE_BYTES + size].tobytes()
        return file if isinstance(file, bytes) else from_base64(file.encode())

    async def _do(self, task: str, account: str, files: Sequence[bytes | str]) -> Sequence[Outcome]:
        if not files:
            return []
        job = self._pools.submit(task, account, [(file, isinstance(file, str)) for file in files])
        try:
            return await job.done
        finally:
            self._pools.drop(task, job)


def _refusal(error: UnreadableImage) -> APIError:
    return APIError(_CODES.get(error.kind, ErrorCode.INVALID_IMAGE), str(error))
