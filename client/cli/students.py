"""`client evaluate`, `predict`, `report`, `export`: what is done with a finished student."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from client.cli.options import DataOption, DeviceOption, JsonOption, RunArgument, chosen_device, print_json
from client.errors import UsageError
from client.progress import Display

if TYPE_CHECKING:  # torch takes seconds to import, and a student in an ONNX file needs none
    from client.learning.prediction import Classifier
    from client.learning.student import Student

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
    from client.cli.tables import percent, print_table
    from client.data.domains import composed, list_folder
    from client.data.finder import counted
    from client.results.evaluation import accuracy_by_domain
    from client.results.onnx_classifier import OnnxClassifier
    from client.runs.evaluation import answers_about, answers_of_file, read_for_evaluation

    folder = list_folder(data)
    domains = [composed(name) for name in domain or folder.domains]
    if run.suffix == ".onnx":
        classifier = OnnxClassifier(run, gpu=device != "cpu")
        examples, left_out = read_for_evaluation(folder, domains, Display())
        answers = answers_of_file(classifier, folder, examples)
    else:
        student, metadata = _load(run, device)
        examples, left_out = read_for_evaluation(folder, domains, Display())
        answers = answers_about(student, json.loads(metadata["classes"]), folder, examples)
    accuracy = accuracy_by_domain([a.right for a in answers], [a.domain for a in answers])
    if as_json:
        print_json(
            {
                name: {
                    "accuracy": each.accuracy,
                    "images": each.images,
                    "left_out": counted(file for file in left_out if file.domain == name),
                }
                for name, each in accuracy.items()
            }
        )
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

    A .onnx file is run by onnxruntime, and PyTorch need not be installed. Folders are searched below; hidden
    files are left out. Ends with 1 if a picture cannot be read.

    Example: client predict runs/icons-pixel-vl2v-adip-seed0 cat.png dog.png --top 3
    """
    from client.cli.tables import print_predictions
    from client.data.finder import counted, described, find_images
    from client.learning.prediction import classify

    words = [line.strip() for line in sys.stdin if line.strip()] if images == ["-"] else images
    classifier = _classifier(run, device)
    found = [find_images(word) for word in words]
    left_out = [file for each in found for file in each.left_out]
    predictions = list(classify(classifier, (path for each in found for path in each.images), top=top))
    skipped = {p.path: p.unreadable for p in predictions if p.unreadable}
    skipped |= {file.path: file.reason for file in left_out if file.is_loss}
    Display().note_skipped({str(path): why for path, why in skipped.items()}, listed_in="--json")
    if by_reason := counted(file for file in left_out if not file.is_loss):
        Display().note(f"Left out: {described(by_reason)}.")
    ranked = {str(p.path): p.classes for p in predictions if not p.unreadable}
    if as_json:
        rows: list[dict[str, object]] = [{"image": name, "classes": each} for name, each in ranked.items()]
        others = {**skipped, **{file.path: file.reason for file in left_out}}
        print_json(rows + [{"image": str(p), "classes": {}, "skipped": why} for p, why in others.items()])
    elif ranked:
        print_predictions(ranked)
    if not predictions and not skipped:
        raise UsageError(f"There is no picture in {', '.join(words)} (hidden files are left out).")
    if skipped:
        raise typer.Exit(1)


def report(run: RunArgument) -> None:
    """Write a finished run's report.html and README.md again.

    Example: client report runs/icons-pixel-vl2v-adip-seed0
    """
    from client.runs.folder import RunFolder
    from client.runs.pages import write_pages

    folder = RunFolder(run)
    write_pages(folder, folder.read(folder.summary))
    print(folder.report)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run's directory, or a .safetensors file from one.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The file to write, which ends in .onnx or .safetensors.", show_default=False
        ),
    ],
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

    kind = kind or _format_of(out)
    if run.suffix == ".onnx":
        raise UsageError(
            f"{run} is ONNX already, and no other format can be made of it. Copy it, or name the run's "
            "directory or its student.safetensors."
        )
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


def _format_of(out: Path) -> Literal["onnx", "safetensors"]:
    if out.suffix == ".onnx":
        return "onnx"
    if out.suffix == ".safetensors":
        return "safetensors"
    raise UsageError(
        f"--out takes a file that ends in .onnx or .safetensors, not {out.name!r}; or say --format onnx or "
        "--format safetensors."
    )


def _load(where: Path, device: str) -> "tuple[Student, dict[str, str]]":
    from client.learning.student import load_student
    from client.runs.folder import RunFolder

    student, metadata = load_student(where if where.is_file() else RunFolder(where).student)
    return student.to(chosen_device(device)), metadata


def _classifier(where: Path, device: str) -> "Classifier":
    if where.suffix == ".onnx":
        from client.results.onnx_classifier import OnnxClassifier

        return OnnxClassifier(where, gpu=device != "cpu")
    from client.learning.classifier import StudentClassifier

    student, metadata = _load(where, device)
    return StudentClassifier(student, json.loads(metadata["classes"]))
