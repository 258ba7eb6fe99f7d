"""`client evaluate`, `predict`, `report`, `export`: what is done with a finished student."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from client.display import Display
from client.errors import UsageError
from client.options import DataOption, DeviceOption, JsonOption, RunArgument, chosen_device, print_json

if TYPE_CHECKING:  # torch takes seconds to import, and a student in an ONNX file needs none
    from client.learning.student import Student
    from client.prediction import Classifier

StudentArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run's directory, or a .safetensors or .onnx file from one.", show_default=False
    ),
]


def evaluate(
    run: StudentArgument,
    data: DataOption,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only these (default: all).")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a trained student on every image of a folder, by domain; spends nothing.

    Images that it was trained on count too: summary.json has its accuracy on hold-outs.

    Example: client evaluate runs/icons-pixel-vl2v-adip-seed0 --data icons --domain pixel
    """
    from client.data.domains import list_folder
    from client.examination import answers_about, read_for_evaluation
    from client.results.evaluation import accuracy_by_domain
    from client.tables import percent, print_table

    student, metadata = _load(run, device)
    folder = list_folder(data)
    examples = read_for_evaluation(folder, domain or folder.domains, Display())
    answers = answers_about(student, json.loads(metadata["classes"]), folder, examples)
    accuracy = accuracy_by_domain([a.right for a in answers], [a.domain for a in answers])
    if as_json:
        print_json({name: {"accuracy": d.accuracy, "images": d.images} for name, d in accuracy.items()})
    else:
        rows = [(name, percent(d.accuracy), d.images) for name, d in accuracy.items()]
        print_table(("domain", "accuracy (%)", "images"), rows)


def predict(
    run: StudentArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, folders, patterns ('shots/**/*.png'), or - for paths on standard input.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option("--top", "--top-k", min=1, help="How many classes to name.")] = 5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Name the most probable classes of images, by a run's student or by a file of it; spends nothing.

    A .onnx file is run by onnxruntime, and PyTorch need not be installed.

    Example: client predict runs/icons-pixel-vl2v-adip-seed0 cat.png dog.png --top 3
    """
    from client.data.images import find_images
    from client.prediction import classify
    from client.tables import print_predictions

    words = [line.strip() for line in sys.stdin if line.strip()] if images == ["-"] else images
    classifier = _classifier(run, device)
    paths = (path for word in words for path in find_images(word))
    predictions = list(classify(classifier, paths, top=top))
    unreadable = [prediction for prediction in predictions if prediction.unreadable]
    for prediction in unreadable:
        Display().note(f"Skipped {prediction.path}: {prediction.unreadable}")
    ranked = {str(p.path): p.classes for p in predictions if not p.unreadable}
    if as_json:
        print_json([{"image": image, "classes": classes} for image, classes in ranked.items()])
    elif ranked:
        print_predictions(ranked)
    if unreadable:
        raise typer.Exit(1)


def report(run: RunArgument) -> None:
    """Write a finished run's report.html and README.md again.

    Example: client report runs/icons-pixel-vl2v-adip-seed0
    """
    from client.pages import write_pages
    from client.run_folder import RunFolder

    folder = RunFolder(run)
    write_pages(folder, folder.read(folder.summary))
    print(folder.report)


def export(
    run: StudentArgument,
    out: Annotated[Path, typer.Option("--out", help="The file to write.", show_default=False)],
    kind: Annotated[
        Literal["onnx", "safetensors"] | None,
        typer.Option("--format", help="By default what the name of the file ends with."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a student as one file: ONNX, checked against PyTorch, or safetensors; spends nothing.

    Both files say how images are prepared for them, and `client predict` takes either.

    Example: client export runs/icons-pixel-vl2v-adip-seed0 --out student.onnx
    """
    from client.results.onnx_classifier import require_onnx

    kind = kind or ("onnx" if out.suffix == ".onnx" else "safetensors")
    if kind == "onnx":
        require_onnx()  # before PyTorch is loaded, which takes seconds
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}.")
    student, metadata = _load(run, "cpu")
    written: dict[str, object] = {"out": str(out), "format": kind}
    if kind == "onnx":
        from client.results.onnx_export import export_onnx

        parity = export_onnx(student, metadata, out)
        written |= asdict(parity)
        Display().note(f"{parity.described}.")
    else:
        from client.learning.student import save_student

        save_student(student, metadata["student"], out, metadata)
    if as_json:
        print_json(written)
    else:
        print(out)


def _load(where: Path, device: str) -> "tuple[Student, dict[str, str]]":
    from client.learning.student import load_student
    from client.run_folder import RunFolder

    student, metadata = load_student(where if where.is_file() else RunFolder(where).student)
    return student.to(chosen_device(device)), metadata


def _classifier(where: Path, device: str) -> "Classifier":
    if where.suffix == ".onnx":
        from client.results.onnx_classifier import OnnxClassifier

        return OnnxClassifier(where, gpu=device != "cpu")
    from client.learning.classifier import StudentClassifier

    student, metadata = _load(where, device)
    return StudentClassifier(student, json.loads(metadata["classes"]))
