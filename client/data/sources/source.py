"""A source: a way of keeping labelled images that is named by a prefix, as in `hf:FOLDER`."""

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from client.data.finder import OF_TEST, Skipped, counted, described
from client.data.members import Stamp, file_stamp
from client.data.names import shown
from client.data.sources import source_names
from client.data.splits import Split
from client.data.tables import MAX_ROWS, Columns, TableRow
from client.errors import DataError
from client.paths import is_file, is_there, rooted

NO_LABEL = "without a label"
# The words for the parts of a data set, as Hugging Face's `datasets` knows them, by the side of a split.
_TRAIN = frozenset({"train", "training", "trainval"})
_HOLDOUT = frozenset({"validation", "valid", "val", "dev"})
_TEST = frozenset({"test", "testing", "eval", "evaluation"})
SPLIT_WORDS = _TRAIN | _HOLDOUT | _TEST
_MOST_JSON_BYTES = 2**28


class Row(NamedTuple):
    """An image of a source: its path, and what is told of it, empty where nothing is.

    `part` is the part of the data set that it belongs to: "train", or a domain's name.
    """

    path: Path
    label: str = ""
    domain: str = ""
    part: str = ""


class Source(ABC):
    """A way of keeping labelled images. A module of this folder has one, as `SOURCE`."""

    @abstractmethod
    def rows(self, where: str, columns: Columns, *, labelled: bool) -> Iterator[Row | Skipped]:
        """The images there, in a fixed order, and what is left out; no image is read.

        Raises:
            DataError: there is no such place, it is damaged, or does not tell the label (if `labelled`).
            UsageError: a library is missing.
        """

    def read(self, file: Path, name: str, most: int) -> bytes:  # noqa: ARG002 (for those whose images are files)
        """As `members.Container.read`."""
        raise ValueError(f"{file.name} holds no images")

    def stamp(self, file: Path) -> Stamp:
        """As `members.Container.stamp`."""
        return file_stamp(file)

    def rooted(self, where: str) -> str:
        """The place, wherever a command is run from."""
        return os.path.abspath(where)  # noqa: PTH100 (a pattern is no path)

    def folder(self, where: str) -> Path:
        """The folder that paths are shown relative to."""
        return Path(where) if Path(where).is_dir() else Path(where).parent

    def name(self, where: str) -> str:
        """What a person calls it."""
        path = Path(self.rooted(where))
        return path.stem if is_file(path) else path.name


@dataclass(frozen=True)
class Kept:
    """Images that somebody keeps in a way that has a prefix."""

    prefix: str
    where: str

    @classmethod
    def of(cls, data: str | Path) -> "Kept | None":
        """What is named by a prefix; `None` where there is none, or a file or folder of just this name."""
        prefix, colon, where = str(data).partition(":")
        if not colon or prefix not in source_names() or is_there(data):
            return None
        if not where:
            raise DataError(f"{data} names no place: {prefix}: is followed by one.")
        return cls(prefix, where)

    def __str__(self) -> str:
        return f"{self.prefix}:{self.where}"

    @property
    def rooted(self) -> str:
        """The same from the root of all folders."""
        return f"{self.prefix}:{self._source.rooted(self.where)}"

    @property
    def folder(self) -> Path:
        """The folder that paths are shown relative to."""
        return self._source.folder(self.where)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._source.name(self.where)

    @property
    def _source(self) -> Source:
        found: Source = import_module(f"client.data.sources.{self.prefix}").SOURCE
        return found

    def images(self, columns: Columns, *, labelled: bool) -> tuple[list[TableRow], list[Skipped]]:
        """Its images, and what is left out.

        Where images have labels, the parts of the data set are sides of the split if all are called as such
        (`SPLIT_WORDS`); a test split is left out then. Otherwise they are domains, as they are with
        `--columns domain=split`.

        Raises:
            DataError: as `Source.rows`; or there is no image.
            UsageError: a library is missing.
        """
        rows: list[Row] = []
        left_out: list[Skipped] = []
        for found in self._source.rows(self.where, columns, labelled=labelled):
            if isinstance(found, Skipped):
                left_out.append(found)
                continue
            _require_text(found)
            if labelled and not found.label:
                left_out.append(Skipped(found.path, NO_LABEL, domain=found.domain or None))
            else:
                rows.append(found)
            if len(rows) > MAX_ROWS:
                raise DataError(f"{self} has more than {MAX_ROWS} images.")
        if not rows:
            why = f" Left out: {described(counted(left_out))}." if left_out else ""
            raise DataError(f"{self} holds no {'labelled ' if labelled else ''}image.{why}")
        if not labelled:
            return [TableRow(row.path) for row in rows], left_out
        return _settled(rows, left_out, as_domains=columns["domain"] == "split")


def _require_text(row: Row) -> None:
    """JSON may hold half a character, which no path and no file of a run can have."""
    try:
        os.fsencode(row.path)
        f"{row.label}{row.domain}{row.part}".encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{shown(row.path)}: its name or what is told of it is not UTF-8.") from error


def data_name(data: Path) -> str:
    """What a person calls the labelled images: the folder's or the table's name, or what a source says."""
    kept = Kept.of(data)
    return data.name if kept is None else kept.name


def data_folder(data: Path) -> Path:
    """The folder that the paths of labelled images are shown relative to."""
    kept = Kept.of(data)
    if kept is not None:
        return kept.folder
    return data.parent if is_file(data) else data


def rooted_data(data: Path) -> Path:
    """Labelled images, wherever a command is run from; links to folders are followed."""
    kept = Kept.of(data)
    return rooted(data) if kept is None else Path(kept.rooted)


def part_below(folder: Path, place: Path) -> str:
    """The part of a data set by the folders below its own: a usual name of one, or else the first of them."""
    names = place.relative_to(folder).parts
    return usual_part(names) or next(iter(names), "")


def usual_part(words: Iterable[str]) -> str:
    """The first of some words that is a usual name of a part of a data set; empty where none is."""
    return next((word.lower() for word in words if word.lower() in SPLIT_WORDS), "")


def read_json(file: Path) -> dict[str, Any]:
    """An object that stands in a JSON file.

    Raises:
        DataError: it cannot be read, or is none.
    """
    try:
        if file.stat().st_size > _MOST_JSON_BYTES:
            raise DataError(f"{file} is larger than {_MOST_JSON_BYTES // 2**20} MiB.")
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} is not a JSON object.")
    return found


def _settled(
    rows: Sequence[Row], left_out: list[Skipped], *, as_domains: bool
) -> tuple[list[TableRow], list[Skipped]]:
    """Images with their domains and the sides of the split that are told, and what is left out."""
    parts = {row.part for row in rows}
    are_sides = not as_domains and parts <= SPLIT_WORDS | {""}
    has_holdout, has_others = bool(parts & _HOLDOUT), bool(parts - _TEST)
    settled = []
    for row in rows:
        own = row.domain if are_sides or (row.domain and not as_domains) else row.part
        if are_sides and has_others and row.part in _TEST:
            left_out.append(Skipped(row.path, OF_TEST, domain=own or None))
            continue
        side: Split = "holdout" if row.part in _HOLDOUT else "train"
        is_told = are_sides and has_others and has_holdout
        settled.append(TableRow(row.path, sys.intern(row.label), sys.intern(own), side if is_told else ""))
    return settled, left_out
