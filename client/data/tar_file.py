"""Tar files: where the bytes of their members stand. Nothing is unpacked, and no header is believed."""

import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from client.data.finder import NO_FILE, Skipped
from client.data.members import Stamp, file_stamp
from client.data.names import is_unicode
from client.data.tables import MAX_ROWS

_MOST_HEADER_BYTES = 2**20  # of a name that takes further blocks, which tarfile reads whole
OUTSIDE = "its name leads out of the tar file"
TWICE = "its name is there already"


class Place(NamedTuple):
    """Where a member's bytes stand in its tar file."""

    start: int
    size: int


class TarFile(NamedTuple):
    """The members of a tar file that are files, by name and in its order, and what is left out."""

    members: Mapping[str, Place]
    left_out: tuple[Skipped, ...]


def open_tar(file: Path) -> TarFile:
    """The members of a tar file, whose headers are read once.

    Links, devices, names that lead elsewhere and further members of one name are left out.

    Raises:
        ValueError: it is no tar file, a packed one, cut off or damaged.
        OSError: it cannot be read.
    """
    return _opened(file, file_stamp(file))


def read_at(file: Path, place: Place, most: int) -> bytes:
    """The bytes of a member.

    Raises:
        ValueError: they are more than `most`.
        OSError: the file cannot be read.
    """
    if place.size > most:
        size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most} bytes"
        raise ValueError(f"larger than {size}")
    with file.open("rb") as opened:
        opened.seek(place.start)
        return opened.read(place.size)


@cache  # a name and two numbers an image: the list of all images takes more
def _opened(file: Path, stamp: Stamp) -> TarFile:  # noqa: ARG001 (which tells another file)
    members: dict[str, Place] = {}
    left_out: list[Skipped] = []
    with _Bounded(FileIO(file)) as opened:
        for header in _headers(opened):
            parts = PurePosixPath(header.name)
            name = str(parts)
            if parts.is_absolute() or ".." in parts.parts or not is_unicode(name):
                left_out.append(Skipped(file, OUTSIDE))
            elif header.isdir() or parts.name.startswith("."):
                continue
            elif not header.isreg() or header.issparse():
                left_out.append(Skipped(file / name, NO_FILE))
            elif name in members:
                left_out.append(Skipped(file / name, TWICE))
            else:
                members[name] = Place(header.offset_data, header.size)
            if len(members) + len(left_out) > 2 * MAX_ROWS:
                raise ValueError("it has too many members")
    return TarFile(members, tuple(left_out))


def _headers(file: "_Bounded") -> Iterator[tarfile.TarInfo]:
    """The headers of a tar file, of which no more than one is in memory."""
    last = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (header := archive.next()) is not None:
                if header.offset <= last:  # by a size below zero, which older Pythons take (CVE-2025-8194)
                    raise ValueError("it leads back to itself")
                last = header.offset
                archive.members = []  # type: ignore[attr-defined] # it would keep them all
                yield header
            file.seek(archive.offset)  # where tarfile saw the end: to it, a damaged header is one
            if any(file.read(tarfile.BLOCKSIZE)):
                raise ValueError("one of its headers is damaged")
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


class _Bounded(BufferedReader):
    """A file of which nobody reads much at once: a header may say that a name has a gigabyte."""

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes.

        Raises:
            ValueError: they are too many, or all that there are.
        """
        if size is None or not 0 <= size <= _MOST_HEADER_BYTES:
            raise ValueError(f"a header has {size} bytes")
        return super().read(size)
