"""One image that was read whole, and how its file is read: once, and then remembered."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.data.file_memory import THUMBNAIL, FileFacts, FileMemory, read_stamped
from client.data.images import NO_MEMORY, Pixels, UnreadableImage, decode_square, glance, read_image
from client.data.members import Stamp
from client.data.sending import as_png, as_sent

UNLABELLED = -1
# So many files are read before what is known of them is stored: an interruption loses no more.
_STORED_AT_ONCE = 1000
# So many are one task of a thread: handing over single files takes as long as reading small ones.
_READ_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Example:
    """One image that was read whole and decodes.

    Attributes:
        file: the path of its file, as text, for there are very many.
        domain: that it belongs to; of an unlabelled image, the name of its pool.
        label: its class, as a position among the classes; UNLABELLED of an unlabelled image.
        digest: the SHA-256 (hex) of `content()`.
        drawing: names what it shares with variants of itself, and is the file's SHA-256 where nothing does,
            so that no split hangs on how Pillow encodes.
        side: the shorter side of the file's image in pixels.
        file_digest: the SHA-256 (hex) of the file's bytes; empty where nobody has read them.
    """

    file: str
    domain: str
    label: int
    digest: str
    drawing: str
    side: int
    file_digest: str = ""

    @classmethod
    def of(cls, path: Path, facts: FileFacts, *, domain: str, label: int, drawing: str = "") -> Self:
        """An image from the facts of its file; `drawing` is empty where its name tells none."""
        file, drawn = str(path), drawing or facts.file_digest
        return cls(file, domain, label, facts.digest, drawn, facts.side, facts.file_digest)

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.file)

    def content(self) -> bytes:
        """The bytes that are sent (see `as_sent`).

        Raises:
            UnreadableImage: the file has changed since it was read, and is no longer an image.
        """
        return sent_of(self.file, self.digest)

    def square(self, side: int) -> tuple[Pixels, float]:
        """The student's view of it, as `decode_square` gives it.

        Raises:
            UnreadableImage: the file has changed since it was read, or is no longer an image.
        """
        file = read_image(self.path)
        if self.file_digest and hashlib.sha256(file).hexdigest() != self.file_digest:
            raise UnreadableImage("its bytes are others")
        return decode_square(file, side)


def sent_of(file: str, digest: str) -> bytes:
    """The bytes that were sent of an image file, which nobody has checked to be the same still.

    Raises:
        UnreadableImage: there is no such file, or it is no longer an image.
    """
    content = read_image(Path(file))
    return content if hashlib.sha256(content).hexdigest() == digest else as_sent(content)


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
            digest=file if seen.otherwise is None else hashlib.sha256(as_png(seen.otherwise)).hexdigest(),
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
