"""Parquet files, written here and by others; it takes pyarrow, which is installed only where it is wanted.

A value that a million rows share stands in such a file once, and a page of zeros packs thirty-thousandfold.
So what others wrote is counted before it is unpacked, by the headers of its pages (the footer may say
anything), and a text that rows share stays one in memory.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

_PAGE_BYTES = 2**26  # which has a mebibyte as a rule
_CELL_BYTES = 4096  # of a text, as Linux bounds a path
_DEEPEST = 12  # structures and lists in each other, of which a footer has eight


class Piece(NamedTuple):
    """Some rows: the columns beside the vectors, by name, and the vectors, shape (n, dimensions)."""

    columns: Mapping[str, Sequence[Any] | NDArray[Any]]
    vectors: NDArray[Any]


def require_pyarrow() -> tuple[ModuleType, ModuleType]:
    """pyarrow, and its module for Parquet.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet and Arrow files take pyarrow: pip install 'tuition[parquet]'") from error
    return pyarrow, pyarrow.parquet


def write_parquet(
    file: BinaryIO,
    pieces: Iterable[Piece],
    *,
    types: Mapping[str, str],
    dimensions: int,
    dtype: np.dtype[Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write pieces as they come, a row group each; `embedding` is a list of fixed size.

    Args:
        file: where to.
        pieces: the rows.
        types: Arrow's names of the types of the columns beside the vectors ("string", "uint32").
        dimensions: of the vectors.
        dtype: of the vectors, float32 or float16.
        metadata: of the file.

    Raises:
        UsageError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    arrow, parquet = require_pyarrow()
    vector = arrow.list_(arrow.from_numpy_dtype(dtype), dimensions)
    fields = [(name, arrow.type_for_alias(alias)) for name, alias in types.items()]
    schema = arrow.schema([*fields, ("embedding", vector)], metadata=metadata)
    with parquet.ParquetWriter(file, schema) as writer:
        for columns, vectors in pieces:
            flat = arrow.array(np.ascontiguousarray(vectors, dtype=dtype).ravel())
            embeddings = arrow.FixedSizeListArray.from_arrays(flat, dimensions)
            arrays = [arrow.array(columns[name], type=kind) for name, kind in fields]
            writer.write_table(arrow.Table.from_arrays([*arrays, embeddings], schema=schema))


class ForeignParquet:
    """A file that somebody else wrote: what it says that it holds, and its columns, read within bounds.

    Raises:
        UsageError: pyarrow is not installed.
        ValueError: it is no Parquet file, or a damaged one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._arrow, self._parquet = require_pyarrow()
        self._file = file
        with readable(self._arrow):
            opened = self._parquet.ParquetFile(file)
            self.rows = int(opened.metadata.num_rows)
            groups = range(opened.metadata.num_row_groups)
            self.group_rows = [int(opened.metadata.row_group(number).num_rows) for number in groups]
            self.types: dict[str, pyarrow.DataType] = {
                field.name: field.type for field in opened.schema_arrow
            }
            if len(self.types) < len(opened.schema_arrow):
                raise ValueError("two of its columns have one name")
            found = opened.schema_arrow.metadata or {}
            self.metadata = {name.decode(): value.decode() for name, value in found.items()}

    def check_size(self, columns: Collection[str], *, group_bytes: int, row_bytes: int = 0) -> None:
        """Refuse groups of rows that unpack to more than `group_bytes`, and `row_bytes` for each row.

        Raises:
            ValueError: there is one.
        """
        for rows, chunks in _row_groups(self._file):
            pages = [
                size
                for name, start, end in chunks
                if name in columns
                for size in _page_sizes(self._file, start, end)
            ]
            if sum(pages) > group_bytes + rows * row_bytes or max(pages, default=0) > _PAGE_BYTES:
                raise ValueError(f"{rows} of its rows unpack to {sum(pages)} bytes")

    def check_types(self, columns: Iterable[str]) -> None:
        """Refuse columns whose values are neither texts nor of a few bytes, and may unpack to anything.

        Raises:
            ValueError: there is one.
        """
        types = self._arrow.types
        for name in columns:
            kind = self.types[name]
            if not (self._is_text(name) or types.is_null(kind) or types.is_primitive(kind)):
                raise ValueError(f"`{name}` is of the type {kind!s:.80}. It takes text")

    def _is_text(self, name: str) -> bool:
        """Whether the values are texts, of which rows can share one."""
        kind, types = self.types[name], self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        return any(is_one(kind) for is_one in texts)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[dict[str, Any]]:
        """Arrow's arrays of these columns, so many rows at a time; texts are dictionaries.

        Raises:
            ValueError: the file is damaged.
        """
        self._file.seek(0)
        with readable(self._arrow):
            texts = [name for name in columns if self._is_text(name)]
            opened = self._parquet.ParquetFile(self._file, read_dictionary=texts)
            for batch in opened.iter_batches(batch_size=rows, columns=columns):
                yield {name: batch.column(name) for name in columns}

    def nulls(self, number: int, column: str) -> int | None:
        """How many values of a group a column lacks, as the footer says; `None` where it does not."""
        with readable(self._arrow):
            group = self._parquet.ParquetFile(self._file).metadata.row_group(number)
            for found in map(group.column, range(group.num_columns)):
                if found.path_in_schema == column and found.statistics is not None:
                    return int(found.statistics.null_count) if found.statistics.has_null_count else None
        return None

    def group(self, number: int, column: str) -> Any:  # noqa: ANN401 (an array of Arrow's)
        """A column of a group of rows; values that rows share are one in memory.

        Raises:
            ValueError: the file is damaged.
        """
        self._file.seek(0)
        with readable(self._arrow):
            shared = [f"{column}.bytes" if self._arrow.types.is_struct(self.types[column]) else column]
            opened = self._parquet.ParquetFile(self._file, read_dictionary=shared)
            found = opened.read_row_group(number, columns=[column]).column(0).combine_chunks()
            found.validate(full=True)
            return found


@contextmanager
def readable(arrow: ModuleType) -> Iterator[None]:
    """Translate what pyarrow raises where a file is damaged, or too large for this machine's memory.

    Raises:
        ValueError: it did.
    """
    try:
        yield
    except MemoryError as error:
        raise ValueError("it takes more memory than there is") from error
    except arrow.ArrowNotImplementedError as error:
        raise ValueError(f"{error}. Write it again, with dictionaries") from error
    except arrow.ArrowException as error:
        raise ValueError(str(error)) from error


def column_values(name: str, column: "pyarrow.Array") -> list[Any]:
    """The values of a column of a batch; rows that share a text share the object.

    Raises:
        ValueError: a text is longer than a path may be, or the column is damaged.
    """
    from pyarrow import ArrowException, compute

    try:
        column.validate(full=True)
    except ArrowException as error:
        raise ValueError(str(error)) from error
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    longest = compute.max(compute.binary_length(column.dictionary)).as_py() or 0
    if longest > _CELL_BYTES:
        raise ValueError(f"a value of `{name}` has {longest} bytes")
    values = [*column.dictionary.to_pylist(), None]
    return [values[-1 if index is None else index] for index in column.indices.to_pylist()]


_Chunk = tuple[str, int, int]  # of a column: its name, where its pages begin, and where they end


def _row_groups(file: BinaryIO) -> Iterator[tuple[int, list[_Chunk]]]:
    """The rows of each group, and its columns, by the footer: fields of `FileMetaData` in parquet.thrift.

    pyarrow ends the process where a footer contradicts itself and it is asked for a column.

    Raises:
        ValueError: the footer cannot be read.
    """
    file.seek(-8, 2)
    file.seek(-8 - int.from_bytes(file.read(4), "little"), 2)
    try:
        for group in _structure(file)[4]:
            chunks = []
            for column in group[1]:
                about = column[3]
                start = int(about[9])
                if 0 < about.get(11, 0) < start:  # the page of its dictionary
                    start = about[11]
                chunks.append((about[3][0].decode(), start, start + about[7]))
            yield int(group[3]), chunks
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("its footer cannot be read") from error


def _page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """The sizes of a column's pages when they are unpacked, as their headers say: pyarrow believes those.

    Raises:
        ValueError: a header is none.
    """
    while start < end:
        file.seek(start)
        header = _structure(file)
        unpacked, packed = header.get(2), header.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int) and min(unpacked, packed) >= 0):
            raise ValueError("a page has no size")
        yield unpacked
        start = file.tell() + packed


def _structure(file: BinaryIO, depth: int = 0) -> dict[int, Any]:
    """The fields of a structure of Thrift's compact protocol, by their numbers.

    Raises:
        ValueError: it is none, or one has a field twice, which others may read otherwise.
    """
    found: dict[int, Any] = {}
    number = 0
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _signed(file)
        if number in found:
            raise ValueError("it says one thing twice")
        found[number] = _value(file, head & 15, depth)
    return found


def _value(file: BinaryIO, kind: int, depth: int) -> Any:  # noqa: ANN401 (as the file has it)
    if kind in {1, 2}:  # yes and no, which have no bytes of their own
        return kind == 1
    if kind in {3, 4, 5, 6}:
        return _byte(file) if kind == 3 else _signed(file)
    if kind == 7:
        return file.read(8)
    if kind == 8:
        return file.read(_unsigned(file))
    if kind in {9, 10} and depth < _DEEPEST:
        head = _byte(file)
        count = head >> 4 if head < 240 else _unsigned(file)
        kind = 3 if head & 15 in {1, 2} else head & 15  # in a list, these have a byte
        return [_value(file, kind, depth + 1) for _ in range(count)]
    if kind == 12 and depth < _DEEPEST:
        return _structure(file, depth + 1)
    raise ValueError("a part of it is of an unknown kind")


def _signed(file: BinaryIO) -> int:
    number = _unsigned(file)
    return (number >> 1) ^ -(number & 1)


def _unsigned(file: BinaryIO) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise ValueError("a number of it has no end")


def _byte(file: BinaryIO) -> int:
    read = file.read(1)
    if not read:
        raise ValueError("it is cut off")
    return read[0]
