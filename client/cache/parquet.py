"""Embeddings in Parquet files; it takes pyarrow, which is installed only where it is wanted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError

# Of a row beside its vector, and of a group of rows whatever their number.
_ROW_BYTES = 256
_GROUP_BYTES = 2**16
_BATCH_ROWS = 1024


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


def read_metadata(file: BinaryIO) -> dict[str, str]:
    """The metadata of a Parquet file.

    Raises:
        UsageError: pyarrow is not installed.
        ValueError: it is no Parquet file, or a damaged one.
    """
    _, parquet = require_pyarrow()
    found = parquet.read_schema(file).metadata or {}
    return {name.decode(): value.decode() for name, value in found.items()}


def check_parquet(file: BinaryIO, *, types: Mapping[str, str], most_dimensions: int) -> None:
    """Refuse a file of other columns than `write_parquet` writes, or that unpacks to more than they can be.

    Args:
        file: the file.
        types: Arrow's names of the types of the columns beside the vectors.
        most_dimensions: of the vectors.

    Raises:
        UsageError: pyarrow is not installed.
        ValueError: it is such a file.
    """
    arrow, parquet = require_pyarrow()
    opened = parquet.ParquetFile(file)
    schema = opened.schema_arrow
    if set(schema.names) != {*types, "embedding"} or len(schema.names) != len(types) + 1:
        raise ValueError(f"it has the columns {', '.join(schema.names)[:200]}")
    vector = schema.field("embedding").type
    fitting = all(schema.field(name).type == arrow.type_for_alias(alias) for name, alias in types.items())
    if not (
        fitting and arrow.types.is_fixed_size_list(vector) and arrow.types.is_floating(vector.value_type)
    ):
        raise ValueError("its columns are of other types")
    if not 0 < vector.list_size <= most_dimensions:
        raise ValueError(f"its embeddings are of {vector.list_size} dimensions")
    a_row = vector.list_size * 8 + _ROW_BYTES
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        if group.total_byte_size > _GROUP_BYTES + group.num_rows * a_row:
            raise ValueError(f"{group.num_rows} of its rows unpack to {group.total_byte_size} bytes")


def read_parquet(file: BinaryIO) -> Iterator[Piece]:
    """The rows of a file that `write_parquet` wrote, some thousands at a time.

    Raises:
        UsageError: pyarrow is not installed.
        ValueError: it is no Parquet file, or a damaged one; or it has other columns.
    """
    _, parquet = require_pyarrow()
    for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
        columns = {name: batch.column(name) for name in batch.schema.names}
        try:
            embeddings = columns.pop("embedding")
            vectors = embeddings.flatten().to_numpy().reshape(len(embeddings), -1)
        except (KeyError, AttributeError) as error:
            raise ValueError("it has no column of embeddings") from error
        yield Piece({name: column.to_pylist() for name, column in columns.items()}, vectors)
