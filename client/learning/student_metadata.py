"""The metadata of a student's file beside the weights; the same in a .safetensors and a .onnx file."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from client.errors import ClientError
from client.learning.rejection import Rejection, Thresholds
from client.learning.reliability import Reliability

# Unit vectors, shape (d,), that stand for class texts, by the class's number.
ClassVectors = dict[int, NDArray[np.float32]]

_LARGEST_SIDE = 4096  # of an input in pixels, far more than any backbone takes


def damaged(said: str) -> ClientError:
    """The error of a student's file that says what it cannot."""
    return ClientError(f"The student's file is damaged: {said}.")


def _by(read: Callable[[str], Any], write: Callable[[Any], str] = str) -> dict[str, Callable[[Any], Any]]:
    """How the text of a fact is read and written, where it is none itself."""
    return {"read": read, "write": write}


def _names(text: str) -> tuple[str, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("not a list of names")
    return tuple(found)


def _side(text: str) -> int:
    side = int(text)
    if not 0 < side <= _LARGEST_SIDE:
        raise ValueError("no side of a picture")
    return side


def _pair(text: str) -> tuple[int, int]:
    first, last = json.loads(text)
    return int(first), int(last)


def _vectors(text: str) -> ClassVectors:
    told = json.loads(text).items()
    return {int(k): np.frombuffer(b64decode(each, validate=True), "<f4").astype("f4") for k, each in told}


def _vectors_to_json(vectors: ClassVectors) -> str:
    """Of each class's number, the base64 of its vector as little-endian float32."""
    return json.dumps({str(k): b64encode(v.astype("<f4").tobytes()).decode() for k, v in vectors.items()})


@dataclass(frozen=True)
class StudentMetadata:
    """The metadata of a student's file, each under its name there; `None` where the file does not say.

    What its preprocessing and its layers are is left to `load_student`, and to the graph of a .onnx file.

    Attributes:
        classes: their names, in the order of its probabilities.
        student: the name of its backbone.
        image_size: side of its input in pixels.
        method: a method and its variants.
        stamp: the digest of all that it depends on.
        steps: training steps of the last stage.
        images_per_domain: images of each source domain in a batch of that stage.
        steps_kept: the first and the last of the steps whose weights it has.
        adapted: whether it learnt from images of the domain where it will work, without their labels.
        seen: the SHA-256 of the record of the images that it has seen.
        reliability: how sure it was of the hold-outs, and how often right.
        rejection: thresholds of its own scores.
        taught_by: the fingerprint of the vendor's model that it learnt from.
        teacher_temperature: divides the scores of that model.
        teacher_accuracy: how often that is right about labelled images, from 0 to 1.
        teacher_rejection: thresholds of its scores.
        teacher_names: what stands for the texts of classes that are not named as "a photo of a {class}": that
            model does not know them by name, or was asked about them in other words.
        dtype: "int8" of a file in eight bits; others say nothing of it.
    """

    classes: tuple[str, ...] | None = field(default=None, metadata=_by(_names, json.dumps))
    student: str | None = None
    image_size: int | None = field(default=None, metadata=_by(_side))
    method: str | None = None
    stamp: str | None = None
    steps: int | None = field(default=None, metadata=_by(int))
    images_per_domain: int | None = field(default=None, metadata=_by(int))
    steps_kept: tuple[int, int] | None = field(default=None, metadata=_by(_pair, json.dumps))
    adapted: bool | None = field(default=None, metadata=_by(str(True).__eq__))
    seen: str | None = None
    reliability: Reliability | None = field(
        default=None, metadata=_by(Reliability.from_json, Reliability.to_json)
    )
    rejection: Rejection | None = field(default=None, metadata=_by(Rejection.from_json, Rejection.to_json))
    taught_by: str | None = None
    teacher_temperature: float | None = field(default=None, metadata=_by(float, "{:.4f}".format))
    teacher_accuracy: float | None = field(default=None, metadata=_by(float, "{:.4f}".format))
    teacher_rejection: Rejection | None = field(
        default=None, metadata=_by(Rejection.from_json, Rejection.to_json)
    )
    teacher_names: ClassVectors | None = field(
        default=None, metadata=_by(_vectors, _vectors_to_json), compare=False
    )
    dtype: str | None = None

    @classmethod
    def from_file(cls, texts: Mapping[str, str]) -> Self:
        """The metadata in the texts of a file; other texts are passed over.

        Raises:
            ClientError: one of them is not what this version of Tuition writes.
        """
        told = {}
        for each in fields(cls):
            try:
                if each.name in texts:
                    told[each.name] = each.metadata.get("read", str)(texts[each.name])
            except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
                raise damaged(f"{each.name} is {texts[each.name]!r:.80}") from error
        return cls(**told)

    def to_file(self) -> dict[str, str]:
        """The texts that a file has of it."""
        said = {each: getattr(self, each.name) for each in fields(self)}
        return {
            each.name: each.metadata.get("write", str)(value)
            for each, value in said.items()
            if value is not None
        }

    def thresholds(self, rate: float | None, *, asks: bool) -> Thresholds:
        """Those for a rate of false rejects; `asks` tells whether its teacher is asked as well.

        Raises:
            UsageError: the file has none for it.
        """
        return Thresholds.of(self.rejection, self.teacher_rejection, rate, asks=asks)

    def names_of(self, classes: int, dimensions: int) -> ClassVectors:
        """`teacher_names`, which must be of so many classes and dimensions.

        Raises:
            ClientError: the file is damaged.
        """
        for number, vector in (self.teacher_names or {}).items():
            if not 0 <= number < classes or vector.shape != (dimensions,) or not np.isfinite(vector).all():
                raise damaged(f"it has no name for class {number}")
        return self.teacher_names or {}
