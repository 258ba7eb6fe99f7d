"""Files of rows with images in them, Arrow and Parquet: one image at a time, whatever the file's size."""

import json
import struct
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, repeat
from pathlib import Path
from struct import unpack_from
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from client.data.members import Stamp, file_stamp
from client.parquet import ForeignParquet, column_values, readable, require_pyarrow

if TYPE_CHECKING:
    import pyarrow

ARROW, PARQUET = ".arrow", ".parquet"
_GROUP_BYTES = 2**28  # of the images of a group of Parquet's rows, of which two are kept
_BATCH_ROWS = 2**14
_BYTES, _PATH = "bytes", "path"


class RowsFile(ABC):
    """A file of rows.

    Attributes:
        types: of the columns, by name.
        features: the features of the columns, as `datasets` describes them.
    """

    types: Mapping[str, "pyarrow.DataType"]
    features: Mapping[str, Any]

    @abstractmethod
    def cells(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The values of these columns, row by row.

        Raises:
            ValueError: they are neither texts nor numbers, or damaged.
        """

    @abstractmethod
    def paths(self, column: str) -> Iterator[str | None]:
        """The paths of the images of a column that lie elsewhere; `None` of those that are in the file."""

    @abstractmethod
    def image(self, column: str, row: int, most: int) -> bytes:
        """An image.

        Raises:
            ValueError: there is none, it has more than `most` bytes, or the file is damaged.
        """

    def named(self, column: str) -> str | None:
        """A column, whose name may be written in capitals; `None` where there is none."""
        return next((name for name in self.types if name.strip().lower() == column), None)

    def of_feature(self, kind: str) -> list[str]:
        """The columns of a feature."""
        return [name for name in self.types if self._feature(name).get("_type") == kind]

    def images(self) -> list[str]:
        """The columns of images: by their feature, or as structures of bytes and a path."""
        if found := self.of_feature("Image"):
            return found
        structures = {name: kind for name, kind in self.types.items() if str(kind).startswith("struct<")}
        return [name for name, kind in structures.items() if {_BYTES, _PATH} <= {f.name for f in kind}]

    def class_names(self, column: str | None) -> tuple[str, ...]:
        """The names of classes that are numbers in a column; none where they are not."""
        names = {} if column is None else self._feature(column).get("names")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def _feature(self, column: str) -> Mapping[str, Any]:
        found = self.features.get(column)
        return found if isinstance(found, dict) else {}


def open_rows(file: Path) -> RowsFile:
    """A file of rows.

    Raises:
        ValueError: it is none, or damaged.
        OSError: it cannot be read.
        UsageError: pyarrow is not installed.
    """
    return _opened(file, file_stamp(file))


@lru_cache(maxsize=64)
def _opened(file: Path, stamp: Stamp) -> RowsFile:  # noqa: ARG001 (which tells another file)
    return _ParquetRows(file) if file.suffix.lower() == PARQUET else _ArrowRows(file)


class _ArrowRows(RowsFile):
    """A stream of Arrow's batches, which stays on the disk: what is asked for is mapped into memory."""

    def __init__(self, file: Path) -> None:
        arrow, _ = require_pyarrow()
        with readable(arrow), arrow.memory_map(str(file)) as mapped:
            _require_unpacked(arrow, mapped)
            mapped.seek(0)
            self._table = arrow.ipc.open_stream(mapped).read_all()
            self._table.validate(full=True)
        self.types = {field.name: field.type for field in self._table.schema}
        self.features = _features(self._table.schema.metadata or {})

    def cells(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """As `RowsFile.cells`."""
        if not columns:
            yield from repeat({}, self._table.num_rows)
            return
        for batch in self._table.select(list(columns)).to_batches(max_chunksize=_BATCH_ROWS):
            yield from batch.to_pylist()

    def paths(self, column: str) -> Iterator[str | None]:
        """As `RowsFile.paths`."""
        for chunk in self._table.column(column).chunks:
            yield from _paths(chunk)

    def image(self, column: str, row: int, most: int) -> bytes:
        """As `RowsFile.image`."""
        if column not in self.types or not 0 <= row < self._table.num_rows:
            raise ValueError("there is no such row")
        return _image(self._table.column(column).slice(row, 1).chunk(0), 0, most)


class _ParquetRows(RowsFile):
    """A Parquet file, of which a group of rows is read at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._checked: set[str] = set()
        with file.open("rb") as opened:
            parquet = ForeignParquet(opened)
            self.types = parquet.types
            self._rows = parquet.rows
            self._ends = list(accumulate(parquet.group_rows))
            self.features = _features({k.encode(): v.encode() for k, v in parquet.metadata.items()})

    def cells(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """As `RowsFile.cells`."""
        if not columns:
            yield from repeat({}, self._rows)
            return
        with self._file.open("rb") as opened:
            parquet = ForeignParquet(opened)
            parquet.check_types(columns)
            parquet.check_size(columns, group_bytes=_GROUP_BYTES)
            for batch in parquet.batches(columns, _BATCH_ROWS):
                values = [column_values(name, column) for name, column in batch.items()]
                yield from (dict(zip(batch, row, strict=True)) for row in zip(*values, strict=True))

    def paths(self, column: str) -> Iterator[str | None]:
        """As `RowsFile.paths`."""
        self._check(column)
        with self._file.open("rb") as opened:
            parquet = ForeignParquet(opened)
            for group, rows in enumerate(parquet.group_rows):
                is_here = parquet.nulls(group, f"{column}.{_BYTES}") == 0
                yield from repeat(None, rows) if is_here else _paths(parquet.group(group, column))

    def image(self, column: str, row: int, most: int) -> bytes:
        """As `RowsFile.image`."""
        if column not in self.types or not 0 <= row < self._rows:
            raise ValueError("there is no such row")
        self._check(column)
        group = bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        with _reading:
            images = _group(self._file, file_stamp(self._file), group, column)
        return _image(images, row - start, most)

    def _check(self, column: str) -> None:
        """Refuse a column of images of which a group of rows is too large; its headers are read once."""
        if column in self._checked:
            return
        with self._file.open("rb") as opened:
            try:
                ForeignParquet(opened).check_size([column], group_bytes=_GROUP_BYTES)
            except ValueError as error:
                raise ValueError(
                    f"{error}. Write it with fewer rows per group, or with save_to_disk"
                ) from error
        self._checked.add(column)


_reading = Lock()  # so that two threads do not unpack one group


@lru_cache(maxsize=2)
def _group(file: Path, stamp: Stamp, group: int, column: str) -> "pyarrow.Array":  # noqa: ARG001 (as above)
    with file.open("rb") as opened:
        return ForeignParquet(opened).group(group, column)


def _image(images: "pyarrow.Array", row: int, most: int) -> bytes:
    content, _ = _parts(images)
    if content is None or not content[row].is_valid:
        raise ValueError("there is no image in this row")
    value = content[row]
    held = getattr(value, "value", value).as_buffer()  # of a text that rows share, it is a part
    if held.size > most:
        raise ValueError(f"larger than {most // 2**20} MiB")
    found: bytes = held.to_pybytes()
    return found


def _paths(images: "pyarrow.Array") -> Iterator[str | None]:
    """The paths of those images that are not there themselves."""
    content, path = _parts(images)
    if path is None or (content is not None and not content.null_count):
        yield from repeat(None, len(images))
        return
    for row in range(len(images)):
        yield path[row].as_py() if content is None or not content[row].is_valid else None


def _parts(images: "pyarrow.Array") -> "tuple[pyarrow.Array | None, pyarrow.Array | None]":
    """The bytes and the paths of a column of images, which may be of one of both alone."""
    kind = str(images.type)
    if not kind.startswith("struct<"):
        return (images, None) if "binary" in kind else (None, images if "string" in kind else None)
    names = {field.name for field in images.type}
    content, path = (images.field(name) if name in names else None for name in (_BYTES, _PATH))
    return content, path


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """The features that `datasets` writes into a schema; none where it did not."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_unpacked(arrow: ModuleType, file: "pyarrow.NativeFile") -> None:
    """Refuse batches whose buffers are packed: reading would unpack them, all and to whatever size.

    Their headers are FlatBuffers, of which pyarrow tells nothing: field 3 of a RecordBatch, which is field 2
    of its Message, is the compression (Arrow's format/Message.fbs, read 2026-12-02).

    Raises:
        ValueError: there is one.
    """
    for message in arrow.ipc.MessageReader.open_stream(file):
        header = message.metadata.to_pybytes()
        try:
            batch = _field(header, *unpack_from("<I", header), number=2)
            start = batch + unpack_from("<I", header, batch)[0]
            is_packed = message.type == "record batch" and _field(header, start, number=3)
        except struct.error as error:
            raise ValueError("a header of it is damaged") from error
        if is_packed or message.type not in {"schema", "record batch"}:
            raise ValueError("its batches are packed or have dictionaries: write it again with save_to_disk")


def _field(header: bytes, table: int, *, number: int) -> int:
    """Where a field of a table of FlatBuffers stands; 0 where it is left out."""
    start = table - unpack_from("<i", header, table)[0]
    place = 4 + 2 * number
    if place >= unpack_from("<H", header, start)[0]:
        return 0
    offset = unpack_from("<H", header, start + place)[0]
    return table + int(offset) if offset else 0
