"""Vectors on the wire come back bit for bit, and damaged ones are refused."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.encoding import Vector, from_rows, from_wire, to_base64, to_rows

vectors = arrays(
    np.float32, st.integers(1, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(vectors)
def test_both_encodings_are_exact(vector: Vector) -> None:
    for wire in (to_base64(vector), vector.tolist()):
        back = from_wire(wire, len(vector))
        assert back.dtype == np.float32
        assert back.tobytes() == vector.tobytes()


def test_base64_is_of_little_endian_float32() -> None:
    assert to_base64(np.array([1.0, -2.0], dtype=np.float32)) == "AACAPwAAAMA="
    assert to_base64(np.array([1.0, -2.0], dtype=">f4")) == "AACAPwAAAMA="


@pytest.mark.parametrize(
    "wire",
    [
        "AACAPwAAAM",
        "not base64!",
        "AACAPw==",
        [1.0],
        [1.0, 2.0, 3.0],
        [1.0, float("nan")],
        base64.b64encode(np.array([1, np.inf], dtype="<f4").tobytes()).decode(),
    ],
)
def test_anything_else_than_the_announced_numbers_is_refused(wire: list[float] | str) -> None:
    with pytest.raises(ValueError, match="an embedding"):
        from_wire(wire, 2)


@given(vectors)
def test_rows_of_float32_are_exact_and_of_float16_are_near(vector: Vector) -> None:
    matrix = np.stack([vector, vector[::-1]])
    assert from_rows(to_rows(matrix, "float32"), matrix.shape, "float32").tobytes() == matrix.tobytes()
    unit = np.tanh(matrix)
    assert np.allclose(from_rows(to_rows(unit, "float16"), matrix.shape, "float16"), unit, atol=1e-3)


@pytest.mark.parametrize("content", [b"", bytes(15), np.array([1, 2, 3, np.nan], dtype="<f4").tobytes()])
def test_damaged_rows_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="embedding"):
        from_rows(content, (2, 2), "float32")
