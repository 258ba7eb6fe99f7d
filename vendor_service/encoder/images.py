"""From untrusted bytes to pixels: whatever is wrong with an image is found here, before any charge."""

import base64
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from shared.errors import ErrorCode
from vendor_service.errors import Refusal

_FORMATS = ("PNG", "JPEG", "WEBP")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: bytes of its file, and pixels (width x height)."""

    max_bytes: int
    max_pixels: int


def decode_image(file: bytes | str, limits: ImageLimits) -> Image.Image:
    """Decode a PNG, JPEG or WebP file, or the base64 of one, to RGB: of an animation the first frame.

    As open_clip's own pipeline does, transparency is dropped rather than blended and EXIF orientation
    is not applied.

    Raises:
        Refusal: `invalid_image`, `image_too_large` or `unsupported_image_format`.
    """
    # Four characters of base64 hold three bytes: the size is known before anything is decoded.
    size = len(file) if isinstance(file, bytes) else len(file) // 4 * 3 - file[-2:].count("=")
    if size > limits.max_bytes:
        message = f"the image file is larger than {limits.max_bytes} bytes"
        raise Refusal(ErrorCode.IMAGE_TOO_LARGE, message)
    data = file if isinstance(file, bytes) else _from_base64(file)
    if not data:
        raise Refusal(ErrorCode.EMPTY_INPUT, "the image file is empty")
    return _to_rgb(data, limits.max_pixels)


def _from_base64(encoded: str) -> bytes:
    try:
        if len(encoded) % 4:
            raise ValueError("padding is missing")
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise Refusal(ErrorCode.INVALID_IMAGE, "the image is not valid base64") from error


def _to_rgb(data: bytes, max_pixels: int) -> Image.Image:
    too_large = Refusal(ErrorCode.IMAGE_TOO_LARGE, f"the image has more than {max_pixels} pixels")
    try:
        # The header alone is read here, so a small file that declares a huge image costs nothing.
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise too_large
            image.load()
            if image.mode == "P" and "transparency" in image.info:
                # The same pixels as by the direct way, which warns about transparency.
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except Refusal:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large from error
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES):
            raise Refusal(ErrorCode.INVALID_IMAGE, "the image file is damaged") from error
        message = "the file is not a PNG, JPEG or WebP image"
        raise Refusal(ErrorCode.UNSUPPORTED_IMAGE_FORMAT, message) from error
    except Exception as error:
        # Decoders answer damaged files with almost any exception; each of them means the same here.
        raise Refusal(ErrorCode.INVALID_IMAGE, "the image file is damaged or cut off") from error
