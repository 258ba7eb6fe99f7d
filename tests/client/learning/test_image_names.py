"""Names of classes that are vectors, in a student's file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.errors import ClientError
from client.learning.image_names import names_of, names_to_json
from client.learning.student_metadata import StudentMetadata

_VECTORS = arrays(np.float32, 5, elements=st.floats(-1, 1, width=32))


@given(st.dictionaries(st.integers(0, 3), _VECTORS))
def test_names_come_back_as_they_went_bit_for_bit(names: dict[int, np.ndarray]) -> None:
    told = names_of(StudentMetadata(teacher_names=names_to_json(names)), classes=4, dimensions=5)
    assert {k: each.tobytes() for k, each in told.items()} == {k: each.tobytes() for k, each in names.items()}


def test_a_file_without_them_names_nothing() -> None:
    assert names_of(StudentMetadata(), classes=4, dimensions=5) == {}


_GOOD = np.ones(5, np.float32)


@pytest.mark.parametrize(
    "told",
    [
        "no JSON",
        "[]",
        '{"0": 1}',
        '{"0": "no base64!"}',
        json.dumps({"0": "AAAA"}),  # three bytes are no number
        names_to_json({4: _GOOD}),
        names_to_json({-1: _GOOD}),
        names_to_json({0: _GOOD[:4]}),
        names_to_json({0: _GOOD * np.float32("nan")}),
    ],
)
def test_a_damaged_file_is_refused(told: str) -> None:
    with pytest.raises(ClientError, match="damaged"):
        names_of(StudentMetadata(teacher_names=told), classes=4, dimensions=5)
