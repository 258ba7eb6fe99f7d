"""`POST /classify`: what is asked of a deployed student, who answers, and the answer as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field
from pydantic_core import to_json

from client.learning.prediction import ranked
from client.learning.rejection import NEVER, shows_none
from client.serving.answers import Answer
from client.serving.batcher import Batcher
from shared.errors import APIError

OnError = Literal["fail", "skip"]


class ClassifyInput(BaseModel):
    """An image: the base64 of its file, and the name that its answer is to have."""

    model_config = ConfigDict(extra="forbid")

    image: str
    name: str | None = None


class ClassifyOptions(BaseModel):
    """How a request is to be answered; in a form, these are fields of their own.

    Attributes:
        top: how many classes to name, the most probable first.
        on_error: whether one image that cannot be read fails the request, or is passed over.
    """

    model_config = ConfigDict(extra="forbid")

    top: Annotated[int, Field(ge=1, le=1000)] = 5
    on_error: OnError = "fail"


class ClassifyRequest(ClassifyOptions):
    """Images in the order in which their answers are wanted."""

    # One bad input condemns the request: a hostile million of them must not become a million error reports.
    inputs: Annotated[list[ClassifyInput], FailFast()]


@dataclass(frozen=True)
class ImageFile:
    """An image as it was sent: the bytes of a file or the base64 of them, and its name if it has one."""

    file: bytes | str
    name: str | None = None


class Answerer(Protocol):
    """The student, or the student with a vendor that it asks where it is not sure."""

    async def answer(
        self, account: str, images: Sequence[ImageFile], on_error: OnError
    ) -> Sequence[Answer | APIError]:
        """An answer or a refusal of each image, in order.

        Where one that is refused fails the request, nothing is paid for the others.

        Raises:
            APIError: nothing can be answered.
        """


class StudentAnswerer:
    """The student alone.

    Args:
        batcher: asks it.
        reject_below: the threshold of `shows_none`.
    """

    def __init__(self, batcher: Batcher, reject_below: float = NEVER) -> None:
        self._batcher = batcher
        self._reject_below = reject_below

    async def answer(
        self,
        account: str,
        images: Sequence[ImageFile],
        on_error: OnError,  # noqa: ARG002 (it asks nobody)
    ) -> list[Answer | APIError]:
        """The student's answer about each image, or the reason why it cannot be read."""
        rows = await self._batcher.probabilities(account, [each.file for each in images])
        return [row if isinstance(row, APIError) else self._answer(row) for row in rows]

    def _answer(self, row: NDArray[np.float32]) -> Answer:
        return Answer(row, "student", rejected=bool(shows_none(row[None], self._reject_below)[0]))


def render(
    images: Sequence[ImageFile],
    answers: Sequence[Answer | APIError],
    classes: Sequence[str],
    options: ClassifyOptions,
) -> bytes:
    """The JSON of all answers, in order; what was passed over is listed under `errors`."""
    results, errors, cost = [], [], 0
    for index, (image, answer) in enumerate(zip(images, answers, strict=True)):
        if isinstance(answer, APIError):
            error = {"index": index, "name": image.name, "code": answer.code, "message": answer.message}
            errors.append(error)
            continue
        cost += answer.cost_micros
        results.append({"name": image.name, **_described(answer, classes, options.top)})
    content = {"results": results, "cost_micros": cost}
    return to_json(content | {"errors": errors} if options.on_error == "skip" else content)


def _described(answer: Answer, classes: Sequence[str], top: int) -> dict[str, object]:
    best = [
        {"class": name, "confidence": confidence}
        for name, confidence in ranked(answer.probabilities, classes, top).items()
    ]
    told = {**best[0], "class": None} if answer.rejected else best[0]
    return {**told, "answered_by": answer.answered_by, "top": best}
