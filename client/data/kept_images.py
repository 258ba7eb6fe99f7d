"""Images that the vendor was asked about, kept in a folder for the next student to learn from."""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from client.data.images import FORMATS
from client.errors import ClientError
from client.paths import discard

# How a kept file is named: after its content, so that it is kept once, and after its format as Pillow has it
# (so .jpeg, and never .jpg). Nothing else is ever deleted.
_NAMED = re.compile(rf"([0-9a-f]{{64}})\.({'|'.join(FORMATS).lower()})")
_DAY = 86_400.0
# How files begin that are not called .png.
_STARTS = {b"\xff\xd8\xff": ".jpeg", b"RIFF": ".webp", b"GIF8": ".gif"}


@dataclass(frozen=True)
class KeptFile:
    """A kept image: its file, the SHA-256 (hex) of its bytes, and when it was kept (seconds of the epoch)."""

    path: Path
    digest: str
    kept_at: float

    def is_intact(self) -> bool:
        """Whether the file has the bytes that it is named after: one that has others is somebody's own.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.digest
        except FileNotFoundError:
            return False


class KeptImages:
    """A folder of at most so many images; the oldest give way. Several processes may share it."""

    def __init__(self, folder: Path, *, at_most: int) -> None:
        """Take a folder, which need not exist."""
        self._folder = folder
        self._at_most = at_most

    def keep(self, contents: Iterable[bytes]) -> str:
        """Keep image files, each once; returns why not all were kept, or nothing."""
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)  # they are callers' images
            for content in contents:
                self._write(content)
            for old in list(kept_in(self._folder))[self._at_most :]:
                if old.is_intact():
                    old.path.unlink(missing_ok=True)
        except OSError as error:
            return f"{error.filename or self._folder}: {error.strerror}"
        except ValueError as error:
            return str(error)
        return ""

    def _write(self, content: bytes) -> None:
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}{_suffix_of(content)}"
        if path.exists():
            return
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            discard(part)


def is_named_as_kept(path: Path) -> bool:
    """Whether a file's name is one that a kept image has."""
    return _NAMED.fullmatch(path.name) is not None


def kept_in(folder: Path) -> Iterator[KeptFile]:
    """The kept images of a folder by their names, the latest first; other files are passed over.

    Raises:
        OSError: the folder cannot be read.
    """
    found: list[KeptFile] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            named = _NAMED.fullmatch(entry.name)
            if named and entry.is_file(follow_symlinks=False):
                found.append(KeptFile(Path(entry.path), named[1], entry.stat().st_mtime))
    yield from sorted(found, key=lambda each: (-each.kept_at, each.digest))


def kept_before(folder: Path, *, days: float = 0.0) -> list[KeptFile]:
    """The kept images of a folder, or those that were kept so many days ago; the latest first.

    Raises:
        OSError: the folder cannot be read.
    """
    before = time.time() - _DAY * days
    return [each for each in kept_in(folder) if each.kept_at <= before]


def delete(files: Iterable[KeptFile]) -> None:
    """Delete kept images; those that are gone already are passed over.

    Raises:
        ClientError: one cannot be deleted. It stays, as do those after it.
    """
    for each in files:
        try:
            each.path.unlink(missing_ok=True)
        except OSError as error:
            raise ClientError(
                f"{each.path} cannot be deleted: {error.strerror}. Change that, and give the same command "
                "again: it deletes what is left."
            ) from error


def _suffix_of(content: bytes) -> str:
    """The ending of a file with this content, as by its first bytes: nothing of it is decoded here."""
    return next((suffix for start, suffix in _STARTS.items() if content.startswith(start)), ".png")
