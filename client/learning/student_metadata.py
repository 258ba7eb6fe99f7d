"""What a student's file says of it beside the weights; a .safetensors and a .onnx file say the same."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from client.errors import ClientError


@dataclass(frozen=True)
class StudentMetadata:
    """What is read of a student's file, each under its name there; `None` is what the file does not say.

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
        reliability: how sure it was of the hold-outs, and how often right (`Reliability.to_json`).
        rejection: thresholds of its own scores (`Rejection.to_json`).
        taught_by: the fingerprint of the vendor's model that it learnt from.
        teacher_temperature: divides the scores of that model.
        teacher_accuracy: how often that is right about labelled images, from 0 to 1.
        teacher_rejection: thresholds of its scores (`Rejection.to_json`).
        teacher_names: what stands for the texts of some classes (`names_to_json`).
        dtype: "int8" of a file in eight bits; others say nothing of it.
    """

    classes: tuple[str, ...] | None = None
    student: str | None = None
    image_size: int | None = None
    method: str | None = None
    stamp: str | None = None
    steps: int | None = None
    images_per_domain: int | None = None
    steps_kept: tuple[int, int] | None = None
    adapted: bool | None = None
    seen: str | None = None
    reliability: str | None = None
    rejection: str | None = None
    taught_by: str | None = None
    teacher_temperature: float | None = None
    teacher_accuracy: float | None = None
    teacher_rejection: str | None = None
    teacher_names: str | None = None
    dtype: str | None = None

    @classmethod
    def from_file(cls, texts: Mapping[str, str]) -> Self:
        """What the texts of a file say; other texts are passed over.

        Raises:
            ClientError: one of them is not what this version of Tuition writes.
        """
        return cls(
            **{each.name: _read(each.name, texts[each.name]) for each in fields(cls) if each.name in texts}
        )

    def to_file(self) -> dict[str, str]:
        """The texts that a file has of it."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _WRITERS.get(name, str)(value) for name, value in said.items() if value is not None}


def _read(name: str, text: str) -> Any:  # noqa: ANN401 (each has a type of its own)
    try:
        return _READERS.get(name, str)(text)
    except (TypeError, ValueError) as error:
        raise damaged(f"{name} is {text!r}") from error


def damaged(said: str) -> ClientError:
    """What to raise of a student's file that says what it cannot."""
    return ClientError(f"The student's file is damaged: {said}.")


def _names(text: str) -> tuple[str, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("not a list of names")
    return tuple(found)


def _pair(text: str) -> tuple[int, int]:
    first, last = json.loads(text)
    return int(first), int(last)


_READERS: dict[str, Callable[[str], Any]] = {
    "classes": _names,
    "image_size": int,
    "steps": int,
    "images_per_domain": int,
    "steps_kept": _pair,
    "adapted": str(True).__eq__,
    "teacher_temperature": float,
    "teacher_accuracy": float,
}
_WRITERS: dict[str, Callable[[Any], str]] = {
    "classes": json.dumps,
    "steps_kept": json.dumps,
    "teacher_temperature": "{:.4f}".format,
    "teacher_accuracy": "{:.4f}".format,
}
