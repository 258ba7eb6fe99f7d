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
    from pyarrow.parquet import ColumnChunkMetaData

_PAGE_BYTES = 2**26  # which has a mebibyte as a rule
_CELL_BYTES = 4096  # of a text, as Linux bounds a path
_DEEPEST = 4  # structures in a page's header, which has three


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
        raise UsageError(
            "Parquet files take pyarrow: pip install '.[parquet]' in Tuition's folder."
        ) from error
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
        with _readable(self._arrow):
            opened = self._parquet.ParquetFile(file)
            self._footer = opened.metadata
            self.types: dict[str, pyarrow.DataType] = {
                field.name: field.type for field in opened.schema_arrow
            }
            if len(self.types) < len(opened.schema_arrow):
                raise ValueError("two of its columns have one name")
            found = opened.schema_arrow.metadata or {}
            self.metadata = {name.decode(): value.decode() for name, value in found.items()}

    @property
    def rows(self) -> int:
        """How many rows there are, as the footer says."""
        return int(self._footer.num_rows)

    def check_size(self, columns: Collection[str], *, group_bytes: int, row_bytes: int = 0) -> None:
        """Refuse groups of rows that unpack to more than `group_bytes`, and `row_bytes` for each row.

        Raises:
            ValueError: there is one.
        """
        for number in range(self._footer.num_row_groups):
            group = self._footer.row_group(number)
            pages = [
                size
                for column in map(group.column, range(group.num_columns))
                if column.path_in_schema.partition(".")[0] in columns
                for size in _page_sizes(self._file, column)
            ]
            if sum(pages) > group_bytes + group.num_rows * row_bytes or max(pages, default=0) > _PAGE_BYTES:
                raise ValueError(f"{group.num_rows} of its rows unpack to {sum(pages)} bytes")

    def check_types(self, columns: Iterable[str]) -> None:
        """Refuse columns whose values are neither texts nor of a few bytes, and may unpack to anything.

        Raises:
            ValueError: there is one.
        """
        types = self._arrow.types
        for name in columns:
            kind = self.types[name]
            if not (self._is_text(name) or types.is_null(kind) or types.is_primitive(kind)):
                raise ValueError(f"`{name}` is of the type {kind!s:.80}. It takes a text")

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
        with _readable(self._arrow):
            texts = [name for name in columns if self._is_text(name)]
            opened = self._parquet.ParquetFile(self._file, read_dictionary=texts)
            for batch in opened.iter_batches(batch_size=rows, columns=columns):
                yield {name: batch.column(name) for name in columns}


@contextmanager
def _readable(arrow: ModuleType) -> Iterator[None]:
    """Translate what pyarrow raises where a file is damaged, or too large for this machine's memory.

    Raises:
        ValueError: it did.
    """
    try:
        yield
    except MemoryError as error:
        raise ValueError("it takes more memory than there is") from error
    except arrow.ArrowNotImplementedError as error:
        raise ValueError(f"{error}. Write it anew, with dictionaries") from error
    except arrow.ArrowException as error:
        raise ValueError(str(error)) from error


def column_values(name: str, column: "pyarrow.Array") -> list[Any]:
    """The values of a column of a batch; rows that share a text share the object.

    Raises:
        ValueError: a text is longer than a path may be.
    """
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    from pyarrow import compute

    longest = compute.max(compute.binary_length(column.dictionary)).as_py() or 0
    if longest > _CELL_BYTES:
        raise ValueError(f"a value of `{name}` has {longest} bytes")
    values = [*column.dictionary.to_pylist(), None]
    return [values[-1 if index is None else index] for index in column.indices.to_pylist()]


def _page_sizes(file: BinaryIO, column: "ColumnChunkMetaData") -> Iterator[int]:
    """The sizes of a column's pages when they are unpacked, as their headers say: pyarrow believes those.

    Raises:
        ValueError: a header is none.
    """
    at = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end = at + column.total_compressed_size
    while at < end:
        file.seek(at)
        header = _structure(file)
        unpacked, packed = header.get(2, -1), header.get(3, -1)
        if unpacked < 0 or packed < 0:
            raise ValueError("a page has no size")
        yield unpacked
        at = file.tell() + packed


def _structure(file: BinaryIO, depth: int = 1) -> dict[int, int]:
    """The numbers of a structure of Thrift's compact protocol, by their fields; the largest of each.

    Raises:
        ValueError: it is none, or deeper than the header of a page.
    """
    found: dict[int, int] = {}
    number = 0
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _signed(file)
        kind, value = head & 15, 0
        if kind in {4, 5, 6}:  # whole numbers
            value = _signed(file)
        elif kind == 8:  # bytes
            file.seek(_unsigned(file), 1)
        elif kind == 12 and depth < _DEEPEST:
            _structure(file, depth + 1)
        elif kind not in {1, 2}:  # yes and no, which have no bytes of their own
            raise ValueError("the header of a page cannot be read")
        found[number] = max(value, found.get(number, value))
    return found


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
    raise ValueError("the header of a page cannot be read")


def _byte(file: BinaryIO) -> int:
    read = file.read(1)
    if not read:
        raise ValueError("the header of a page is cut off")
    return read[0]
