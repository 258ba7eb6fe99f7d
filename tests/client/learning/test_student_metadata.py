"""What a student's file says of it comes back as it went, and what it cannot say is refused."""

import numpy as np
import pytest

from client.errors import ClientError
from client.learning.rejection import Rejection
from client.learning.reliability import Reliability
from client.learning.student_metadata import ClassVectors, StudentMetadata

_WHOLE = StudentMetadata(
    classes=("cat", "caf\udce9"),
    student="tf_efficientnet_lite0",
    image_size=96,
    method="vl2v-adip+swad",
    stamp="5a",
    steps=600,
    images_per_domain=16,
    steps_kept=(150, 600),
    adapted=False,
    seen="5e",
    reliability=Reliability((0.5,), (0.5,), (9,)),
    rejection=Rejection.of(np.arange(9.0)),
    taught_by="fp_1",
    teacher_temperature=0.0625,
    teacher_accuracy=0.9375,
    teacher_rejection=Rejection.of(np.zeros(0)),
    teacher_names={2: np.array([0.6, 0.8], np.float32)},
    dtype="int8",
)


def test_it_comes_back_as_it_went() -> None:
    for told in (_WHOLE, StudentMetadata()):
        assert StudentMetadata.from_file(told.to_file()) == told
    (name,) = StudentMetadata.from_file(_WHOLE.to_file()).names_of(classes=3, dimensions=2).values()
    assert name.tolist() == [np.float32(0.6), np.float32(0.8)]


_ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(
    "names", [{3: _ONES}, {-1: _ONES}, {0: np.ones(3, np.float32)}, {0: _ONES * np.float32("nan")}]
)
def test_names_of_other_classes_or_dimensions_are_refused(names: ClassVectors) -> None:
    with pytest.raises(ClientError, match="damaged: it has no name for class"):
        StudentMetadata(teacher_names=names).names_of(classes=3, dimensions=2)


def test_the_texts_are_those_that_files_have_had() -> None:
    texts = _WHOLE.to_file()
    assert texts["classes"] == '["cat", "caf\\udce9"]'
    assert (texts["steps_kept"], texts["adapted"], texts["image_size"]) == ("[150, 600]", "False", "96")
    assert (texts["teacher_temperature"], texts["teacher_accuracy"]) == ("0.0625", "0.9375")


def test_other_texts_are_passed_over() -> None:
    assert StudentMetadata.from_file({"format": "pt", "mean": "[0, 0, 0]"}) == StudentMetadata()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes", "cat, dog"),
        ("classes", '{"cat": 1}'),
        ("classes", "[1, 2]"),
        ("image_size", "large"),
        ("image_size", "0"),
        ("image_size", "1000000"),
        ("classes", "[" * 20_000),
        ("steps_kept", "[1e999, 2]"),
        ("steps", "6.5"),
        ("images_per_domain", ""),
        ("steps_kept", "[1]"),
        ("steps_kept", "7"),
        ("teacher_temperature", "warm"),
        ("teacher_accuracy", "high"),
        *(("reliability", text) for text in ("[1]", '[["a", 1, 1]]', "[[0.5, 0.5]]", "nonsense", "null")),
        *(("rejection", text) for text in ("[1, 2]", '["a"]', "nonsense", "null", "7")),
        *(("teacher_names", text) for text in ("[]", "nonsense", '{"cat": ""}', '{"0": "="}', "7")),
    ],
)
def test_a_damaged_file_is_said_to_be(name: str, text: str) -> None:
    with pytest.raises(ClientError, match=rf"The student's file is damaged: {name} is "):
        StudentMetadata.from_file({name: text})
