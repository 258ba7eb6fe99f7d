"""Embeddings on the wire: JSON floats, base64 of little-endian float32, or raw rows of float32 or float16."""

import base64
import binascii
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
WIRE_DTYPE = np.dtype("<f4")
RowDtype = Literal["float32", "float16"]
ROWS_MEDIA_TYPE = "application/octet-stream"
_ROW_DTYPES: dict[RowDtype, np.dtype[np.floating]] = {"float32": WIRE_DTYPE, "float16": np.dtype("<f2")}


def to_base64(vector: Vector) -> str:
    """Encode a vector of shape (dimensions,) as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype=WIRE_DTYPE).tobytes()).decode("ascii")


def from_wire(value: list[float] | str, dimensions: int) -> Vector:
    """Decode one answered embedding, of either encoding, to float32 of shape (dimensions,).

    Raises:
        ValueError: it is not base64, has another length, or holds a number that is not finite.
    """
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"an embedding is not base64: {error}") from error
        if len(raw) != dimensions * WIRE_DTYPE.itemsize:
            raise ValueError(f"an embedding of {dimensions} dimensions has {len(raw)} bytes")
        vector = np.frombuffer(raw, dtype=WIRE_DTYPE).astype(np.float32)
    else:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused for that
            vector = np.asarray(value, dtype=np.float32)
        if vector.shape != (dimensions,):
            raise ValueError(f"an embedding of {dimensions} dimensions has shape {vector.shape}")
    return _finite(vector)


def to_rows(vectors: Vector, dtype: RowDtype) -> bytes:
    """Encode vectors of shape (rows, dimensions), row after row, as little-endian numbers of `dtype`."""
    return np.ascontiguousarray(vectors, dtype=_ROW_DTYPES[dtype]).tobytes()


def from_rows(content: bytes, shape: tuple[int, int], dtype: RowDtype) -> Vector:
    """Decode what `to_rows` made to float32 of `shape` (rows, dimensions).

    Raises:
        ValueError: it has another length, or holds a number that is not finite.
    """
    wire = _ROW_DTYPES[dtype]
    if len(content) != shape[0] * shape[1] * wire.itemsize:
        raise ValueError(f"embeddings of shape {shape} in {dtype} have {len(content)} bytes")
    vectors = np.frombuffer(content, dtype=wire).reshape(shape).astype(np.float32)
    return _finite(vectors)


def _finite(vectors: Vector) -> Vector:
    if not np.isfinite(vectors).all():
        raise ValueError("an embedding holds a number that is not finite")
    return vectors
