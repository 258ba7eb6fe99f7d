"""Images as an API takes them: in a format that it knows, and no larger than its price is stated for."""

from io import BytesIO

from PIL import Image

from client.errors import InputRefused
from client.vendors.declaration import Declaration
from shared.images.colours import loaded_rgb

# Nobody is asked about an image of more pixels: to reduce it would fill the memory.
_MOST_PIXELS = 200_000_000
_QUALITY = 95


def as_taken(content: bytes, declares: Declaration) -> bytes:
    """The bytes of an image file as an API takes them; its own where it does.

    Raises:
        InputRefused: they are no image.
    """
    if (
        declares.most_pixels is None
        and media_type(content).removeprefix("image/").upper() in declares.formats
    ):
        return content  # if it is damaged, the vendor says so
    try:
        with Image.open(BytesIO(content)) as image:
            form, (width, height) = image.format or "", image.size
            excess = width * height / (declares.most_pixels or width * height)
            if form in declares.formats and excess <= 1:
                return content
            if width * height > _MOST_PIXELS:
                raise InputRefused(f"An image of {width} x {height} pixels is too large to be reduced.")
            return _written(image, max(1.0, excess) ** 0.5, "JPEG" if form == "JPEG" else "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputRefused(f"An image cannot be read: {error}.") from error


def media_type(content: bytes) -> str:
    """The media type of an image file, by its first bytes."""
    if content.startswith(b"\x89PNG"):
        return "image/png"
    if content.startswith(b"GIF8"):
        return "image/gif"
    return "image/webp" if content[8:12] == b"WEBP" else "image/jpeg"


def _written(image: Image.Image, by: float, form: str) -> bytes:
    """The image with each side divided, as a file of a format."""
    size = (max(1, int(image.width / by)), max(1, int(image.height / by)))
    if form == "JPEG":
        image.draft("RGB", (2 * size[0], 2 * size[1]))
    file = BytesIO()
    loaded_rgb(image).resize(size, Image.Resampling.BICUBIC).save(
        file, form, **({"quality": _QUALITY, "subsampling": 0} if form == "JPEG" else {"compress_level": 6})
    )
    return file.getvalue()
