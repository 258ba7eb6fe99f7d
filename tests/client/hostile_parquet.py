"""Parquet files that unpack to far more than they are, each by another way; tests and benchmarks use them."""

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_VALUE_BYTES = 2_500_000
_ROWS = 16_384
_METADATA = {"format": "tuition-embeddings-1", "fingerprint": "fp_1"}


def imports(folder: Path) -> Iterator[Path]:
    """What says that it is an export of a cache."""
    for rows in (8192, 65_536):
        yield _export(folder / f"shared-{rows}.parquet", rows, b"a" * _VALUE_BYTES)
    lying = _export(folder / "lying.parquet", 1, b"a" * 2**27)
    _belittle(lying)
    yield lying


def tables(folder: Path) -> Iterator[Path]:
    """What says that it is a table of images."""
    paths = [f"{number}.png" for number in range(_ROWS)]
    columns = {
        "label": _shared("a" * _VALUE_BYTES, _ROWS),
        "domain": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**8 * _ROWS, np.float32)), 2**8),
        "split": pa.array([b"a" * 2**12] * _ROWS, pa.binary(2**12)),
    }
    for name, column in columns.items():
        table = pa.table({"path": paths, "label": paths} | {name: column})
        yield _written(table, folder / f"{name}.parquet", {})


def _shared(value: str | bytes, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def _export(file: Path, rows: int, digest: bytes) -> Path:
    columns = {
        "kind": _shared("text", rows),
        "digest": _shared(digest, rows),
        "checksum": pa.array(np.zeros(rows, np.uint32)),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows, np.float32)), 1),
    }
    # Arrow's own schema says that there are no dictionaries.
    plain = pa.schema([(name, getattr(each.type, "value_type", each.type)) for name, each in columns.items()])
    plain = plain.set(3, pa.field("embedding", columns["embedding"].type)).with_metadata(_METADATA)
    schema = base64.b64encode(plain.serialize().to_pybytes()).decode()
    return _written(pa.table(columns), file, _METADATA | {"ARROW:schema": schema})


def _written(table: pa.Table, file: Path, metadata: dict[str, str]) -> Path:
    with pq.ParquetWriter(
        file, table.schema, compression="zstd", store_schema=False, data_page_size=2**30
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return file


def _belittle(file: Path) -> None:
    """Have the footer say that everything unpacks to a few bytes."""
    content = file.read_bytes()
    group = pq.read_metadata(file).row_group(0)
    sizes = {group.total_byte_size, group.column(1).total_uncompressed_size}
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    changed = content[footer:]
    for size in sizes:
        written = _varint(2 * size)
        changed = changed.replace(written, b"\x90" + b"\x80" * (len(written) - 2) + b"\x00")
    file.write_bytes(content[:footer] + changed)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(128 | number & 127)
        number >>= 7
    return bytes([*written, number])
