"""Embeddings on the wire: base64 of little-endian float32, or JSON floats."""

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
WIRE_DTYPE = np.dtype("<f4")


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
        vector = np.asarray(value, dtype=np.float32)
        if vector.shape != (dimensions,):
            raise ValueError(f"an embedding of {dimensions} dimensions has shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("an embedding holds a number that is not finite")
    return vector
