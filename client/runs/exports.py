"""A run's student in smaller files, measured beside the one that it has: size, speed and accuracy."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from client.data.examples import Example
from client.data.pixels import PixelStore
from client.errors import UsageError, unwritable
from client.learning.student_file import load_student
from client.paths import whole_file
from client.progress import Display
from client.results.evaluation import Evaluation
from client.results.onnx_classifier import OnnxClassifier
from client.results.onnx_export import export_onnx, made_up_pictures
from client.results.onnx_quantization import write_int8
from client.results.records import ExportedFile, Exports, MeanAccuracy
from client.results.speed import speed_of
from client.runs.dataset import Dataset, read_dataset
from client.runs.evaluation import answers_by
from client.runs.folder import RunFolder
from client.runs.generations import seen_by_student
from client.runs.memo import Memo

# So many training images tell the ranges of activations.
_CALIBRATED_ON = 300
_BATCH = 50


def export_int8(run: RunFolder, out: Path, *, allow_loss: float, memo: Memo, display: Display) -> Exports:
    """Write a run's student in eight bits, and what it costs beside 32, also into `exports.json`.

    What the student was trained on measures nothing, wherever these images lie by now.

    Args:
        run: a finished run whose images are still there.
        out: the file, replaced whole, or not at all.
        allow_loss: how many points of accuracy may be lost, on the hold-outs and on the target domain.
        memo: what is known of the images.
        display: what a person sees meanwhile.

    Raises:
        UsageError: onnx is not installed, or more accuracy is lost.
        DataError: the images are gone.
        ClientError: there is no student, or the file cannot be written.
    """
    config = run.read_config()
    student, metadata = load_student(run.student)
    dataset = read_dataset(config, display, memo, seen=seen_by_student(run))
    target = _target(dataset, memo)
    shown = _evenly(dataset.train or list(dataset.unlabelled), _CALIBRATED_ON)
    images, side = PixelStore(dataset.examples, None), student.preprocessing.image_size
    batches = (
        images.load(shown[start : start + _BATCH], side).pixels for start in range(0, len(shown), _BATCH)
    )
    with TemporaryDirectory() as folder:
        whole, small = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        export_onnx(student, metadata, whole)
        write_int8(whole, small, batches)
        files = [
            _measured(file, kind, dataset, target) for file, kind in ((whole, "float32"), (small, "int8"))
        ]
        lost = _loss(*files)
        if lost > allow_loss:
            raise UsageError(
                f"Nothing was written: in eight bits the student loses {lost:.1f} points of accuracy. "
                f"--allow-loss {ceil(10 * lost) / 10:g} takes it all the same."
            )
        try:
            with whole_file(out) as part:
                shutil.copyfile(small, part)
        except OSError as error:
            raise unwritable(out, error) from error
    exports = Exports(files=files)
    run.write(run.exports, exports.to_json())
    return exports


def _target(dataset: Dataset, memo: Memo) -> list[Example]:
    """The images of the target domain, if there is one, that measure the student."""
    if dataset.target is None:
        return []
    examples, _ = dataset.folder.read([dataset.target], memory=memo.files)
    return dataset.without_copies(examples)[0]


def _measured(file: Path, kind: str, dataset: Dataset, target: Sequence[Example]) -> ExportedFile:
    classifier = OnnxClassifier(file)
    held_out = [dataset.examples[position] for position in dataset.holdout]
    answers = [
        answer
        for examples, seen in ((held_out, True), (target, False))
        if examples
        for answer in answers_by(classifier, dataset.folder, examples, seen=seen)
    ]
    found = Evaluation.of(answers)
    return ExportedFile(
        kind=kind,
        size_bytes=file.stat().st_size,
        **asdict(speed_of(classifier.probabilities, made_up_pictures(classifier.side))),
        **found.record.model_dump(include=set(MeanAccuracy.model_fields)),
    )


def _loss(whole: ExportedFile, small: ExportedFile) -> float:
    """The larger loss of accuracy, in points; 0 where nothing can be measured."""
    pairs = ((whole.in_domain, small.in_domain), (whole.out_of_domain, small.out_of_domain))
    return max((100 * (a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _evenly(positions: Sequence[int], count: int) -> list[int]:
    """At most so many, from the first to the last: images lie in the order of domains and classes."""
    taken = min(count, len(positions))
    return [positions[turn * len(positions) // taken] for turn in range(taken)]
