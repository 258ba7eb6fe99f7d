"""Pictures as Python programs have them: paths, Pillow's images, arrays, tensors, tables and lists.

All of them become squares of pixels by the functions that files do, in `client.data.images`.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from client.data.finder import Skipped
from client.data.images import MAX_BYTES, Pixels, decode_square, pixels_of, read_image, square_of
from client.data.pool import find_pool
from client.data.sending import as_png, as_sent
from client.data.tables import is_table
from client.errors import UsageError
from client.paths import is_file

PATH_COLUMN = "path"

# One picture, a batch (a folder, a pattern, or an array or tensor with one more axis), or a table.
# Tensors and tables are of packages that need not be installed, so no narrower type can be said.
Pictures: TypeAlias = Any
_TAKEN = (
    "Images are paths, Pillow's images, uint8 arrays of shape (height, width, 3), uint8 tensors of shape "
    "(3, height, width), batches or lists of these, and tables with a column 'path'"
)


@dataclass(frozen=True)
class Picture:
    """A picture that is not decoded yet.

    Attributes:
        name: its path, or in brackets its place among what was given.
        source: a file's path or bytes, or pixels.
    """

    name: str
    source: Path | bytes | Image.Image | Pixels

    def square(self, side: int) -> Pixels:
        """RGB of shape (side, side, 3).

        Raises:
            UnreadableImage: it cannot be read.
        """
        if isinstance(self.source, Path):
            return decode_square(read_image(self.source), side)[0]
        if isinstance(self.source, bytes):
            return decode_square(self.source, side)[0]
        return square_of(_image(self.source), side)

    def emptied(self) -> "Picture":
        """Its name alone."""
        return Picture(self.name, b"")

    def sent(self) -> bytes:
        """What a vendor is sent of one that is no file on the disk, and has been decoded.

        Raises:
            UnreadableImage: it cannot be read.
        """
        assert not isinstance(self.source, Path)
        return (
            as_sent(self.source) if isinstance(self.source, bytes) else as_png(pixels_of(_image(self.source)))
        )


def _image(source: Image.Image | Pixels) -> Image.Image:
    return source if isinstance(source, Image.Image) else Image.fromarray(np.ascontiguousarray(source))


def is_one(given: Pictures) -> bool:
    """Whether it is a single picture, and no batch of any number."""
    if isinstance(given, str | Path):
        return is_file(given) and not is_table(Path(given))
    return isinstance(given, Image.Image) or getattr(given, "ndim", 0) == 3


def pictures(given: Pictures, left_out: list[Skipped] | None = None) -> Iterable[Picture]:
    """The pictures in what was given, in order.

    What a list or a table holds is looked through before any of it is decoded; an iterator or a data loader
    is asked for one picture after the other.

    Args:
        given: `Pictures`, or an iterable of them.
        left_out: is filled with the files of folders and patterns that are left out.

    Raises:
        UsageError: something is no picture or has the wrong type, shape or range, a path does not exist, or
            a table has no column `path`.
        DataError: a folder cannot be read.
    """
    found = _found(given, [] if left_out is None else left_out)
    return found if _is_stream(given) else list(found)


def _is_stream(given: object) -> bool:
    return not (_is_leaf(given) or isinstance(given, list | tuple))


def _is_leaf(given: object) -> bool:
    return isinstance(given, str | Path | Image.Image) or hasattr(given, "columns") or _is_numeric(given)


def _found(given: Any, left_out: list[Skipped]) -> Iterator[Picture]:  # noqa: ANN401
    if _is_leaf(given):
        yield from _of(given, 0, left_out)
        return
    if isinstance(given, bytes | dict) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise _refused(given, "")
    place = 0
    for each in given:
        if not _is_leaf(each):
            raise _refused(each, f"[{place}] is ")
        for picture in _of(each, place, left_out):
            yield picture
            place += 1


def _of(given: Any, place: int, left_out: list[Skipped]) -> Iterator[Picture]:  # noqa: ANN401
    """The pictures in one of `_is_leaf`; those without a path are numbered from `place` on."""
    if isinstance(given, Image.Image):
        yield Picture(f"[{place}]", _untouched(given))
    elif isinstance(given, str | Path):
        found = find_pool(str(given))
        left_out += found.left_out
        yield from (Picture(str(path), path) for path in found.images)
    elif hasattr(given, "columns"):
        for path in _paths_in(given):
            yield from _of(path, place, left_out)
    else:
        for number, pixels in enumerate(_rgb(given)):
            yield Picture(f"[{place + number}]", pixels)


def _untouched(image: Image.Image) -> Image.Image | bytes:
    """An image that threads may look at: the file of a JPEG that is not decoded yet, another one decoded.

    From a JPEG file, as much is decoded as a square takes, which leaves its pixels a little different.
    """
    file = image.fp if isinstance(image, JpegImageFile) else None
    if file is not None and image.tile and not image.decoderconfig and not image.tell():  # type: ignore[attr-defined]
        with suppress(OSError, ValueError):  # it is no longer open, or cannot be read twice
            here = file.tell()
            file.seek(0)
            content = file.read(MAX_BYTES + 1)
            file.seek(here)
            if len(content) <= MAX_BYTES:
                return content
    with suppress(Exception):  # it is raised again where it is decoded
        image.load()
    return image


def _paths_in(table: Any) -> Sequence[str | Path]:  # noqa: ANN401
    columns = [str(name) for name in table.columns]
    if PATH_COLUMN not in columns:
        raise UsageError(
            f"The table has no column {PATH_COLUMN!r} (it has {', '.join(columns)}). Give the column that "
            "has the paths: table['filename'], say."
        )
    paths = list(table[PATH_COLUMN])
    for row, path in enumerate(paths):
        if not isinstance(path, str | Path):
            raise UsageError(f"Row {row} of the table has no path but {path!r:.40}.")
    return paths


def _is_tensor(given: object) -> bool:
    torch = sys.modules.get("torch")  # nobody has a tensor who has not imported it
    return torch is not None and isinstance(given, torch.Tensor)


def _is_numeric(given: object) -> bool:
    """Whether it is an array of numbers or a tensor, and so pixels; an array of texts is one of paths."""
    return _is_tensor(given) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OUS")


def _rgb(given: Any) -> Pixels:  # noqa: ANN401
    """RGB of shape (n, height, width, 3), of an array or a tensor of one picture or several."""
    is_tensor, shape = _is_tensor(given), tuple(given.shape)
    kind, layout = ("tensor", "(3, height, width)") if is_tensor else ("array", "(height, width, 3)")
    dtype = str(given.dtype).removeprefix("torch.")
    if dtype != "uint8":
        values = f", from {given.min():.4g} to {given.max():.4g}" if all(shape) and "float" in dtype else ""
        raise UsageError(
            f"Pixels are uint8, from 0 to 255, and this {kind} is {dtype}{values}. The student scales and "
            "normalises them itself."
        )
    if len(shape) not in (3, 4) or shape[-3 if is_tensor else -1] != 3:
        raise UsageError(
            f"An image as {kind} has the shape {layout}, or (n, {layout[1:]} of several, and this {kind} has "
            f"{shape}. What is not RGB is taken as an image of Pillow's: Image.fromarray(pixels)."
        )
    pixels: Pixels = given.detach().cpu().movedim(-3, -1).numpy() if is_tensor else given
    return pixels if len(shape) == 4 else pixels[None]


def _refused(given: object, where: str) -> UsageError:
    name = type(given).__name__
    return UsageError(f"{_TAKEN}; {where or 'this is '}{'an' if name[0] in 'aeiou' else 'a'} {name}.")
