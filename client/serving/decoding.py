"""From an image file that nobody vouches for to what the student sees, as `client predict` decodes it."""

from client.data.images import MAX_PIXELS, Pixels, UnreadableImage, decode_square
from shared.errors import APIError, ErrorCode
from shared.http.images import MOST_SCANS, ImageLimits, check_parts, count_scans, from_base64

# What takes a good part of a second and hundreds of megabytes is decoded one at a time.
_LARGE_PIXELS = 4_000_000
_CODES = {
    "too many pixels": ErrorCode.IMAGE_TOO_LARGE,
    "HEIC": ErrorCode.UNSUPPORTED_IMAGE_FORMAT,
}


class LargeImage(Exception):
    """The image is to be decoded where one large image is decoded at a time."""


class ImageDecoder:
    """Decodes images into squares of `side` pixels; a file may have `max_bytes`."""

    def __init__(self, side: int, max_bytes: int) -> None:
        self._side = side
        self._limits = ImageLimits(max_bytes, MAX_PIXELS)

    def decode(self, file: bytes | str, *, large: bool) -> Pixels:
        """RGB of shape (side, side, 3), of a file or of its base64.

        Args:
            file: as it was sent.
            large: whether a large image may be decoded now.

        Raises:
            APIError: `empty_input`, `invalid_image`, `image_too_large` or `unsupported_image_format`.
            LargeImage: it is large, and may not.
        """
        self._limits.check(file)
        data = file if isinstance(file, bytes) else from_base64(file.encode())
        check_parts(data)
        refusal: list[Exception] = []

        def check(pixels: int) -> None:
            try:
                self._limits.check_work(pixels, count_scans(data, MOST_SCANS))
                if pixels > _LARGE_PIXELS and not large:
                    raise LargeImage
            except (APIError, LargeImage) as error:
                refusal.append(error)
                raise

        try:
            return decode_square(data, self._side, check)[0]
        except UnreadableImage as error:
            if refusal:
                raise refusal[0] from None
            code = _CODES.get(error.kind, ErrorCode.INVALID_IMAGE)
            raise APIError(code, str(error)) from error
