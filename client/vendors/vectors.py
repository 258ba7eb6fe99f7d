"""Rows of numbers that somebody answered, as unit vectors: counted, measured, and found to be numbers."""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import FingerprintChanged, VendorError
from shared.encoding import WIRE_DTYPE, Vector

# Of an embedding, at most: more is no embedding.
MOST_DIMENSIONS = 2**16


def unit_vectors(rows: Any, *, asked: int, dimensions: int, who: str) -> list[Vector]:  # noqa: ANN401
    """The rows of an answer as float32 vectors of length 1, in order.

    Args:
        rows: a list of lists of numbers, of arrays, or of base64 of little-endian float32; or an array or a
            tensor of shape (asked, dimensions).
        asked: how many there have to be.
        dimensions: how long each has to be; 0 where that is not known yet.
        who: answered, for messages.

    Raises:
        FingerprintChanged: they are of another length than before.
        VendorError: their number is wrong, or one is no vector: of other lengths, of zeros, not finite.
    """
    if hasattr(rows, "detach"):  # a tensor, perhaps on a GPU, perhaps in bfloat16
        rows = rows.detach().cpu().float().numpy()
    if not hasattr(rows, "__len__"):
        raise VendorError(f"{who} answered with {type(rows).__name__}, and not with rows of numbers.")
    if getattr(rows, "ndim", 2) != 2:
        raise VendorError(
            f"{who} answered with an array of shape {tuple(rows.shape)} in place of ({asked}, dimensions)."
        )
    if len(rows) != asked:
        raise VendorError(f"{who} answered {len(rows)} of {asked} queries.")
    arrays = [_array(row, who) for row in rows]
    if len({len(each) for each in arrays}) > 1:
        raise VendorError(f"{who} answered with vectors of different lengths.")
    if dimensions and arrays and len(arrays[0]) != dimensions:
        raise served(
            f"{who} answered with {len(arrays[0])} dimensions, not {dimensions}: this is another model now. "
            "What was bought is kept, but the two do not mix: start a new run."
        )
    return [_unit(each, who) for each in arrays]


def served(message: str) -> FingerprintChanged:
    """The error that another model has answered, and so may have been paid."""
    error = FingerprintChanged(message)
    error.unsure = True
    return error


def _array(row: Any, who: str) -> NDArray[np.float64]:  # noqa: ANN401 (whatever was answered)
    try:
        if isinstance(row, str):
            numbers = np.frombuffer(base64.b64decode(row, validate=True), WIRE_DTYPE).astype(np.float64)
        else:
            row = row.detach().cpu().float().numpy() if hasattr(row, "detach") else row
            numbers = np.asarray(row, np.float64)
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise VendorError(f"{who} answered with a row that is no vector of numbers: {error}.") from error
    if numbers.ndim != 1 or not 0 < len(numbers) <= MOST_DIMENSIONS:
        raise VendorError(f"{who} answered with an array of shape {numbers.shape} in place of a vector.")
    return numbers


def _unit(numbers: NDArray[np.float64], who: str) -> Vector:
    if not np.isfinite(numbers).all():
        raise VendorError(f"{who} answered with a number that is not finite.")
    length = float(np.linalg.norm(numbers))
    if not 0 < length < np.inf:
        raise VendorError(f"{who} answered with a vector of {'zeros' if not length else 'huge numbers'}.")
    return (numbers / length).astype(np.float32)
