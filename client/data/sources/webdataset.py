"""WebDataset: tar files, in which files that share a name but for its ending are one sample.

As https://github.com/webdataset/webdataset lays them out (README, read 2026-12-02): the name of a file up to
the first dot in its last part is the sample's, and the rest says what it is: `jpg` and its like the image,
`cls` a number, `txt` a text, `json` an object. The files of a sample stand together.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from glob import escape, glob
from itertools import groupby
from pathlib import Path

from client.data.finder import UNNAMED, Skipped, why_left_out
from client.data.images import suffixes
from client.data.sources.source import Row, Source, part_below
from client.data.tables import MAX_ROWS, Columns
from client.data.tar_file import TarFile, open_tar, read_at
from client.errors import DataError
from client.paths import is_file, is_folder

_LABELS = ("label", "cls", "txt")  # what tells the label, the first that there is: words before numbers
_TOLD = (".cls", ".txt", ".json")
_MOST_TOLD_BYTES = 2**16
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class WebDataset(Source):
    """`webdataset:SHARDS`: tar files by a pattern with `*`, `{000..003}` or `{a,b}`, or a folder of them."""

    def rows(self, where: str, columns: Columns, *, labelled: bool) -> Iterator[Row | Skipped]:
        """As `Source.rows`."""
        folder = self.folder(where)
        for shard in _shards(where):
            opened = _opened(shard)
            yield from opened.left_out
            for key, names in groupby(opened.members, _sample_of):
                files = {_ending(name): name for name in names}
                told = _told(shard, opened, files) if labelled else {}
                part = part_below(folder, shard.parent)
                yield from _sample(shard, key, files, told, columns, part)

    def read(self, file: Path, name: str, most: int) -> bytes:
        """As `Source.read`."""
        members = open_tar(file).members
        if name not in members:
            raise ValueError("it is not in the tar file")
        return read_at(file, members[name], most)

    def folder(self, where: str) -> Path:
        """As `Source.folder`."""
        return Path(os.path.commonpath([shard.parent for shard in _shards(where)]))

    def name(self, where: str) -> str:
        """As `Source.name`."""
        return self.folder(self.rooted(where)).name


SOURCE = WebDataset()


def _opened(shard: Path) -> TarFile:
    try:
        return open_tar(shard)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{shard} cannot be read as a tar file: {error}. Fetch it anew. A packed one (.tar.gz) has to "
            "be unpacked with gunzip first, because its images are read one by one."
        ) from error


def _sample(
    shard: Path, key: str, files: Mapping[str, str], told: Mapping[str, str], columns: Columns, part: str
) -> Iterator[Row | Skipped]:
    """The image of a sample, or what is left out where there is none.

    Args:
        shard: the tar file.
        key: the sample's name.
        files: the names of its files, by their endings.
        told: as `_told`.
        columns: which ending or field tells what.
        part: the part of the data set that the tar file belongs to.
    """
    wanted = columns.named.get("path")
    images = [each for each in files if f".{each.rpartition('.')[2]}" in suffixes()]
    if wanted:
        images = [wanted.lstrip(".")] if wanted.lstrip(".") in files else []
    if len(images) > 1:
        raise DataError(
            f"{shard}: the sample {key} has several images. Say which with --columns path={images[0]} (or "
            f"{', '.join(images[1:])})."
        )
    if not images:
        reasons = (why_left_out(str(shard / name), known=True) for name in files.values())
        yield from (each for each in reasons if each is not None and each.reason != UNNAMED)
        return
    asked = columns.named.get("label")
    labels = (told.get(each, "") for each in ((asked.lstrip("."),) if asked else _LABELS))
    yield Row(
        shard / files[images[0]],
        label=next(filter(None, labels), ""),
        domain=told.get(columns["domain"], ""),
        part=told.get(columns["split"], part),
    )


def _told(shard: Path, opened: TarFile, files: Mapping[str, str]) -> dict[str, str]:
    """What the small files of a sample say, by their endings; of an object, by the names of its fields."""
    told: dict[str, str] = {}
    for ending, name in files.items():
        if not f".{ending}".endswith(_TOLD):
            continue
        try:
            text = read_at(shard, opened.members[name], _MOST_TOLD_BYTES).decode().strip()
            fields = json.loads(text) if ending.endswith("json") else {}
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{shard / name} cannot be read: {error}.") from error
        if not isinstance(fields, dict):
            raise DataError(f"{shard / name} is not a JSON object with the label in a field.")
        told[ending] = text
        told |= {key.lower(): str(value).strip() for key, value in fields.items() if _is_plain(value)}
    return told


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int)


def _sample_of(name: str) -> str:
    folder, last = os.path.split(name)
    return f"{folder}/{last.partition('.')[0]}".lstrip("/")


def _ending(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _shards(where: str) -> list[Path]:
    """The tar files that a pattern means, in its order; a folder stands for all that are below it."""
    if is_folder(where):
        found = sorted(Path(where).rglob("*.tar"))
        if not found:
            raise DataError(f"webdataset:{where} has no tar file (*.tar).")
        return found
    return list(dict.fromkeys(shard for pattern in _expanded(where) for shard in _matches(pattern)))


def _matches(pattern: str) -> list[Path]:
    if is_file(pattern):
        return [Path(pattern)]
    folder, name = os.path.split(pattern)
    if is_folder(folder):  # whose own name is no pattern
        pattern = os.path.join(escape(folder), name)  # noqa: PTH118 (absolute)
    found = sorted(map(Path, glob(pattern)))  # noqa: PTH207 (absolute)
    if not found:
        raise DataError(
            f"webdataset: there is no {pattern}. Fetch it, or name the tar files that are there: a folder, "
            "or a pattern such as 'shards-{000..003}.tar' in quotes."
        )
    return found


def _expanded(pattern: str) -> Iterator[str]:
    """The patterns that braces stand for, as a shell reads them."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    words = found[1].split(",")
    if numbers := _RANGE.fullmatch(found[1]):
        first, last = map(int, numbers.groups())
        if last - first > MAX_ROWS:
            raise DataError(f"webdataset:{pattern} stands for more than {MAX_ROWS} tar files.")
        words = [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)]
    for word in words:
        yield from _expanded(pattern[: found.start()] + word + pattern[found.end() :])
