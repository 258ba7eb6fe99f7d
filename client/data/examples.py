"""One image that was read whole, and how its file is read: once, and then remembered."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.data.file_memory import THUMBNAIL, FileFacts, FileMemory, Stamp, read_stamped
from client.data.images import NO_MEMORY, Pixels, UnreadableImage, decode_square, glance, read_image
from client.data.views import ORIGINAL, View, encoded
from client.paths import is_file

UNLABELLED = -1
# So many files are read before what is known of them is stored: an interruption loses no more.
_STORED_AT_ONCE = 1000
# So many are one task of a thread: handing over single files takes as long as reading small ones.
_READ_AT_ONCE = 8
# What the query of a further view is called (see `Example.name`).
_FURTHER_VIEW = re.compile(r"(.+) \(view ([1-9][0-9]*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """One image that was read whole and decodes, or a further view of one.

    Attributes:
        file: the path of its file, as text, for there are very many.
        domain: that it belongs to; of an unlabelled image, the name of its pool.
        label: its class, as a position among the classes; UNLABELLED of an unlabelled image.
        digest: the SHA-256 (hex) of `content()`.
        drawing: names what it shares with variants of itself, and is the file's SHA-256 where nothing does,
            so that no split hangs on how Pillow encodes.
        side: the shorter side of the file's image in pixels.
        view: which view of the file it is.
        file_digest: the SHA-256 (hex) of the file's bytes; empty where nobody has read them.
    """

    file: str
    domain: str
    label: int
    digest: str
    drawing: str
    side: int
    view: View = ORIGINAL
    file_digest: str = ""

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.file)

    @property
    def name(self) -> str:
        """What its query is called: the file, and which of its further views. `sent_of` takes it apart."""
        return f"{self.file} (view {self.view.index})" if self.view.index else self.file

    def content(self) -> bytes:
        """What is sent: the bytes of the file, or what else the view makes of it (see `View.encode`).

        Raises:
            UnreadableImage: the file has changed since it was read, and is no longer an image.
        """
        file = read_image(self.path)
        return file if hashlib.sha256(file).hexdigest() == self.digest else self.view.encode(file)

    def square(self, side: int) -> tuple[Pixels, float]:
        """What the student sees of it, as `decode_square` gives it.

        Raises:
            UnreadableImage: the file has changed since it was read, or is no longer an image.
        """
        file = read_image(self.path)
        if self.file_digest and hashlib.sha256(file).hexdigest() != self.file_digest:
            raise UnreadableImage("its bytes are others")
        return decode_square(self.view.encode(file) if self.view.index else file, side)

    def seen_as(self, view: View) -> "Example":
        """A further view of this image, with a digest of its own."""
        digest = hashlib.sha256(view.encode(read_image(self.path))).hexdigest()
        return replace(self, digest=digest, view=view)


def sent_of(name: str, digest: str) -> bytes:
    """What was sent for an image, read or made again: what `Example.content` gave then.

    Nobody has checked that the file is the same still (`Query.content` does).

    Args:
        name: what its query is called (see `Example.name`).
        digest: the SHA-256 (hex) of what was sent.

    Raises:
        UnreadableImage: there is no such file, or it is no longer an image.
    """
    further = None if is_file(name) else _FURTHER_VIEW.fullmatch(name)
    file = read_image(Path(further[1] if further else name))
    if hashlib.sha256(file).hexdigest() == digest:
        return file
    original = ORIGINAL.encode(file)
    if further is None:
        return original
    return View.of(hashlib.sha256(original).hexdigest(), int(further[2])).encode(file)


def read_files(
    paths: Sequence[Path], memory: FileMemory, on_read: Callable[[int], None] = lambda _: None
) -> Iterator[FileFacts]:
    """Read, hash and decode files, in order; those that the memory knows unchanged are not opened.

    They are read as they are taken, some at a time. `on_read` is called with the number of files done.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _STORED_AT_ONCE):
            chunk = paths[start : start + _STORED_AT_ONCE]
            known = memory.recall(chunk)
            missing = [path for path, facts in zip(chunk, known, strict=True) if facts is None]
            read: dict[Path, tuple[FileFacts, Stamp | None]] = {}
            lots = [missing[first : first + _READ_AT_ONCE] for first in range(0, len(missing), _READ_AT_ONCE)]
            for lot, told in zip(lots, pool.map(_read_lot, lots), strict=True):
                read.update(zip(lot, told, strict=True))
                on_read(start + len(chunk) - len(missing) + len(read))
            memory.remember(read)
            on_read(start + len(chunk))
            yield from (facts or read[path][0] for path, facts in zip(chunk, known, strict=True))


def _read_lot(paths: Sequence[Path]) -> list[tuple[FileFacts, Stamp | None]]:
    return [read_stamped(path, _read_file) for path in paths]


def _read_file(path: Path) -> FileFacts:
    try:
        content = read_image(path)
        seen = glance(content, 4 * THUMBNAIL)
        file = hashlib.sha256(content).hexdigest()
        return FileFacts(
            digest=file if seen.otherwise is None else hashlib.sha256(encoded(seen.otherwise)).hexdigest(),
            file_digest=file,
            side=seen.side,
            thumbnail=_thumbnail(seen.small),
        )
    except UnreadableImage as error:
        return FileFacts(reason=str(error), kind=error.kind, may_pass=error.may_pass)
    except MemoryError:
        return FileFacts(reason=NO_MEMORY, may_pass=True)


def _thumbnail(image: Image.Image) -> bytes:
    """The image at `THUMBNAIL` x `THUMBNAIL` pixels, RGB, each the mean of what it covers."""
    size = (THUMBNAIL, THUMBNAIL)
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0).tobytes()


def thumbnails(facts: Sequence[FileFacts]) -> NDArray[np.uint8]:
    """The thumbnails of readable files, shape (n, THUMBNAIL, THUMBNAIL, 3)."""
    joined = np.frombuffer(b"".join(each.thumbnail for each in facts), np.uint8)
    return joined.reshape(len(facts), THUMBNAIL, THUMBNAIL, 3)
