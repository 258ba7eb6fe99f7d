"""The slider on a student's page: what asking its vendor about the least sure images brings."""

from typing import Any

from client.learning.student_metadata import StudentMetadata
from client.results.asking import OfImages, Right, asked_by_hold_outs, asking_of, slider
from client.results.predictions import read_predictions
from client.results.records import Summary
from client.runs.folder import RunFolder

# The share of images, the least sure, that a page marks.
_UNSURE = 0.2


def unsure_of(metadata: StudentMetadata) -> tuple[float, float] | None:
    """The confidence below which an answer is marked as unsure, and how often such answers were right on the
    hold-outs; `None` where the student's file does not say.
    """
    return None if metadata.reliability is None else metadata.reliability.least_sure(_UNSURE)


def slider_of(metadata: StudentMetadata, run: RunFolder | None) -> dict[str, Any] | None:
    """As the report has it where the run is known, with the worst class and the price.

    Otherwise by what the student's file says of its hold-outs; `None` where it does not.

    Raises:
        ClientError: a file of the run is damaged.
    """
    if run is not None and metadata.dtype != "int8" and run.summary.exists() and run.answers.exists():
        return asking_of(run.record(Summary, run.summary), read_predictions(run.answers))
    hold_outs, accuracy = metadata.reliability, metadata.teacher_accuracy
    if hold_outs is None or accuracy is None:
        return None
    teacher = Right(accuracy)
    asked = asked_by_hold_outs(hold_outs, teacher)
    return slider([OfImages("images like those it learnt from", True, teacher, asked)], None, None)
