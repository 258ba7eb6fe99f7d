"""What a student says of how sure it is: fitted on the hold-outs, by the probabilities that it will give."""

from pathlib import Path

import torch

from client.learning.rejection import Rejection, sureness
from client.learning.reliability import Reliability
from client.learning.stages import class_scores
from client.learning.student_metadata import StudentMetadata
from client.learning.temperature import fitted_temperature
from client.runs.trainer import _calibrate
from tests.client.learning.toy_lessons import toy_lesson
from tests.client.toy import make_folder


def test_temperature_reliability_and_thresholds_are_those_of_the_hold_outs(tmp_path: Path) -> None:
    student, data = toy_lesson(make_folder(tmp_path / "toy", images=14), "vl2v-adip")
    scores, labels = class_scores(student, data.images, data.holdout), data.labels[data.holdout]
    temperature = fitted_temperature(scores, labels)
    probabilities = (scores / temperature).softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    told = _calibrate(student, data, StudentMetadata(stamp="kept"))
    assert student.temperature.item() == torch.tensor(temperature).item() != 1
    assert told.reliability == Reliability.of(confidence.numpy(), (predicted == labels).numpy())
    assert told.rejection == Rejection.of(sureness(probabilities.numpy()))
    assert told.stamp == "kept"
