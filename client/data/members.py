"""Images that lie in a file with others: members of a tar file, rows of an Arrow or Parquet file.

Such an image has a path all the same, that of the file with its name there behind it, as in
`shards-000.tar/cat/0001.jpg` and `train.parquet/image/17`. Reports, splits, caches and memories take it as
they take any other. Only what asks for bytes or for times of change comes here.
"""

import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

from client.paths import is_folder

# Size, mtime and ctime, in nanoseconds since 1970: what tells that a file is still the same.
Stamp = tuple[int, int, int]

# How files are named in which there are images, and which of client/data/sources/ reads them.
_SOURCES = {".tar": "webdataset", ".arrow": "hf", ".parquet": "hf", ".torchvision": "torchvision"}
_NAMED = re.compile(rf"({'|'.join(map(re.escape, _SOURCES))}){re.escape(os.sep)}", re.IGNORECASE)


class Container(Protocol):
    """A kind of file in which there are images."""

    def read(self, file: Path, name: str, most: int) -> bytes:
        """The bytes of an image in a file, by its name there.

        Raises:
            ValueError: there is no such image, or it has more than `most` bytes; the message says which.
            OSError: the file cannot be read.
        """

    def stamp(self, file: Path) -> Stamp:
        """The file's stamp.

        Raises:
            OSError: it cannot be looked at.
        """


def read_member(path: Path, most: int) -> bytes | None:
    """The bytes of an image that lies in a file with others; `None` of an image that is a file.

    Raises:
        ValueError, OSError: as `Container.read`.
    """
    found = _parted(path)
    return None if found is None else found[0].read(*found[1:], most)


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of an image's file, or of that in which it lies; `None` where there is none."""
    try:
        found = _parted(path)
        return file_stamp(path) if found is None else found[0].stamp(found[1])
    except (OSError, ValueError):
        return None


def file_stamp(file: Path) -> Stamp:
    """The stamp of a file.

    Raises:
        OSError: it cannot be looked at.
    """
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _parted(path: Path) -> tuple[Container, Path, str] | None:
    """What reads the file that an image lies in, that file, and the image's name there."""
    text = str(path)
    for found in _NAMED.finditer(text):
        file, name = text[: found.end(1)], text[found.end() :]
        if not is_folder(file):
            return _container(found[1].lower()), Path(file), name
    return None


@cache
def _container(suffix: str) -> Container:
    """What reads files with this ending. It is imported where there are any, with its library."""
    source: Container = import_module(f"client.data.sources.{_SOURCES[suffix]}").SOURCE
    return source
