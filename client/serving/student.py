"""The student that is served: its file, checked before the first request, and what is told of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from client.errors import ClientError, UsageError
from client.learning.student_metadata import StudentMetadata
from client.paths import absence, is_file, is_folder, is_there, resolved
from client.results.onnx_classifier import OnnxClassifier
from client.results.records import Accuracy, ExportedFile, Exports, MeanAccuracy, Summary
from client.runs.folder import RunFolder
from client.serving.slider import slider_of
from shared.embeddings import Limits


class ExpectedAccuracy(Accuracy):
    """How often the student is right, from 0 to 1, as its run measured it.

    Attributes:
        target_domain: the domain that was held out, whose accuracy is `out_of_domain`; `None` for none.
        adapted: whether it learnt from images of that domain, without their labels.
        weights_known: whether it is known which images the weights were trained on that it began with.
            Otherwise it may be tested on some of them.
        leave_one_out: what students that were trained without a domain got right in it, by domain.
    """

    target_domain: str | None
    adapted: bool
    weights_known: bool
    leave_one_out: dict[str, float]

    def measured_again(self, file: ExportedFile) -> "ExpectedAccuracy":
        """Of the same student in another file, which was measured as a whole and not by domain."""
        return ExpectedAccuracy(
            **file.model_dump(include=set(MeanAccuracy.model_fields)),
            by_domain={},
            images_by_domain=self.images_by_domain,
            worst_domain=None,
            target_domain=self.target_domain,
            adapted=self.adapted,
            weights_known=self.weights_known,
            leave_one_out=self.leave_one_out,
        )


class RejectOption(BaseModel):
    """When an image is answered with none of the classes.

    Attributes:
        rate: of false rejects on the hold-outs, from 0 to 1.
        below: where the student's sureness is lower: 1 - entropy of the probabilities / log(classes).
    """

    rate: float
    below: float


class StudentFacts(BaseModel):
    """The public facts about a student, wherever it answers.

    Attributes:
        name: of the run, or of the file.
        fingerprint: the SHA-256 of the .onnx file.
        classes: in the order of its probabilities.
        image_size: side of its input in pixels.
        method: how it was trained; `None` if the file does not say.
        backbone: what it was made of; likewise.
        expected_accuracy: of this file; `None` without its run, or in eight bits if it was not measured so.
        reject: `None` where a class is named of every image.
    """

    name: str
    fingerprint: str
    classes: list[str]
    image_size: int
    method: str | None
    backbone: str | None
    expected_accuracy: ExpectedAccuracy | None
    reject: RejectOption | None = None


class StudentCard(StudentFacts):
    """The answer of `GET /v1/student`.

    Attributes:
        limits: how large a request may be.
    """

    limits: Limits


@dataclass(frozen=True)
class ServedStudent:
    """The student and what is told of it; `asking` is the slider of its page, if there is one."""

    classifier: OnnxClassifier
    card: StudentCard
    asking: dict[str, Any] | None = None


def load(path: Path, limits: Limits, reject: float | None = None) -> ServedStudent:
    """The student of a run, of a .onnx file, or of the run below a folder that has the newest.

    Args:
        path: the run, file or folder.
        limits: how large a request may be.
        reject: the rate of false rejects at which images are taken to show none of the classes; `None` for
            never.

    Raises:
        UsageError: there is no student there, its file has no threshold for the rate, or onnxruntime is not
            installed.
        ClientError: the file is damaged, or is no student of this version.
    """
    file, run = _find(path)
    name = file.name if run is None else resolved(run.path).name
    classifier, facts = open_student(file, name, run, reject)
    card = StudentCard(**facts.model_dump(), limits=limits)
    return ServedStudent(classifier, card, slider_of(classifier.metadata, run))


def open_student(
    file: Path, name: str, run: RunFolder | None, reject: float | None = None
) -> tuple[OnnxClassifier, StudentFacts]:
    """A student's file, checked; and what is told of it.

    Args:
        file: the .onnx file.
        name: what to call it.
        run: the run that it comes from; `None` if that is not known.
        reject: as by `load`.

    Raises:
        UsageError: onnxruntime is not installed, or the file has no threshold for the rate.
        ClientError: the file is damaged, or is no student of this version.
    """
    classifier = OnnxClassifier(file, threads=1)
    _try_out(classifier, file)
    facts = StudentFacts(
        name=name,
        fingerprint=_fingerprint(file),
        classes=list(classifier.classes),
        image_size=classifier.side,
        method=classifier.metadata.method,
        backbone=classifier.metadata.student,
        expected_accuracy=None if run is None else _expected(run, file, classifier.metadata),
        reject=None if reject is None else _reject_option(classifier.metadata, reject),
    )
    return classifier, facts


def _reject_option(metadata: StudentMetadata, rate: float) -> RejectOption:
    return RejectOption(rate=rate, below=metadata.thresholds(rate, asks=False).student)


def _find(path: Path) -> tuple[Path, RunFolder | None]:
    if is_file(path):
        if path.suffix != ".onnx":
            raise UsageError(
                f"{path} is not a .onnx file. `client export {path} --out student.onnx` makes one of a "
                ".safetensors file."
            )
        return path, None
    run = RunFolder(path)
    if is_file(run.onnx):
        return run.onnx, run
    if is_there(run.config) or is_there(run.student):
        raise UsageError(
            f"{path} has no {run.onnx.name}. `client export {path} --out {run.onnx}` makes it of a "
            "finished run."
        )
    if not is_folder(path):
        raise UsageError(f"{path} {absence(path)}.")
    try:
        below = [RunFolder(each) for each in path.iterdir() if is_file(RunFolder(each).onnx)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if not below:
        raise UsageError(
            f"{path} is no run, and no run below it has a student.onnx. `client distill` makes one."
        )
    newest = max(below, key=lambda each: each.onnx.stat().st_mtime)
    return newest.onnx, newest


def _try_out(classifier: OnnxClassifier, file: Path) -> None:
    """Ask the student about a blank picture: a file that answers anything else is not of this version."""
    blank = np.full((2, classifier.side, classifier.side, 3), 255, np.uint8)
    try:
        rows = classifier.probabilities(blank)
        good = rows.shape == (2, len(classifier.classes)) and bool(
            np.allclose(rows.sum(axis=1), 1, atol=1e-3)
        )
    except Exception as error:  # onnxruntime raises a class of its own for each way to differ
        raise _other_version(file) from error
    if not good:
        raise _other_version(file)


def _other_version(file: Path) -> ClientError:
    return ClientError(
        f"{file} is not a student of this version of Tuition: it does not answer pixels with probabilities. "
        "Export it again from its run with `client export`."
    )


def _fingerprint(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _expected(run: RunFolder, file: Path, metadata: StudentMetadata) -> ExpectedAccuracy | None:
    """How often this file of a run's student is right, which in eight bits is not what the summary says."""
    if not run.summary.exists():
        return None
    summary = run.record(Summary, run.summary)
    expected = ExpectedAccuracy(
        **summary.accuracy.model_dump(),
        target_domain=summary.target_domain,
        adapted=summary.adapted,
        weights_known=summary.weights_known,
        leave_one_out=summary.leave_one_out,
    )
    exports = run.record(Exports, run.exports).files if run.exports.exists() else []
    small = [each for each in exports if each.kind == "int8" and each.size_bytes == file.stat().st_size]
    if small:  # its size tells a file of an earlier version, which does not say that it is in eight bits
        return expected.measured_again(small[0])
    return None if metadata.dtype == "int8" else expected
