"""`client predict`, `evaluate`, `export`, `serve` and `report`: what is done with a finished student."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from client.cli.command import Printed, app, command, on_terminal, print_json, print_line
from client.cli.lines import from_lines
from client.errors import UsageError
from client.options.base import Options
from client.options.students import EvaluateOptions, ExportOptions, PredictOptions, ServeOptions
from client.options.training import DeviceOptions
from client.progress import Display
from shared.declared import Option
from shared.text import visible

_PANEL = "Use a student"


class OfStudent(Options):
    """A finished student."""

    run: Annotated[Path, Option(argument=True)] = Field(
        description="A run's directory, or a .safetensors or .onnx file from one."
    )


class Predict(PredictOptions, DeviceOptions, OfStudent, Printed):
    """The options of `client predict`."""

    images: Annotated[tuple[str, ...], Option(argument=True, metavar="IMAGE...")] = Field(
        description="Image files, folders, patterns ('shots/**/*.png'), or - for paths on standard input."
    )
    out: Annotated[Path | None, Option(one_command=True, metavar="FILE")] = Field(
        default=None, description="Write the answers to this file instead: FILE.csv, one row per image."
    )


@command(app, panel=_PANEL)
def predict(given: Predict) -> None:
    """Name the most probable classes of images, by a run's student or by a file of it.

    It spends nothing, unless --ask-vendor names a vendor to ask about those of which the student is least
    sure. A .onnx file is run by onnxruntime, and PyTorch need not be installed. Folders are searched below;
    hidden files are left out. Ends with 1 if a picture cannot be read.

    Example: client predict runs/icons-pixel-vl2v-adip-seed0 photos --out answers.csv
    """
    from client.api import students
    from client.cli.tables import print_predictions

    _, words = from_lines([], given.images)
    student = students.load_student(given.run, device=given.device)
    found = student.predict(
        words,
        top=given.top,
        reject=given.reject,
        ask=given.ask,
        out=given.out,
        confirm=on_terminal(),
        progress=Display(),
    )
    if not found.classes and not found.skipped:
        raise UsageError(f"There is no picture in {', '.join(words)} (hidden files are left out).")
    print_json(found.rows()) if given.as_json else print_predictions(found, written=given.out)
    raise typer.Exit(1 if found.skipped else 0)


class Evaluate(EvaluateOptions, OfStudent, Printed):
    """The options of `client evaluate`."""


@command(app, panel=_PANEL)
def evaluate(given: Evaluate) -> None:
    """Measure a trained student on every image of a folder, by domain; spends nothing.

    Images that it was trained on count too: summary.json has its accuracy on hold-outs.

    Example: client evaluate runs/icons-pixel-vl2v-adip-seed0 --data icons --domain pixel
    """
    from client.api import students
    from client.cli.tables import percent, print_table
    from client.results.intervals import in_percent

    found = students.evaluate(
        given.run,
        given.data,
        domains=given.domains,
        layout=given.layout,
        columns=given.columns,
        device=given.device,
        progress=Display(),
    )
    if given.as_json:
        print_json({name: each.to_json() for name, each in found.items()})
    else:
        rows = [
            (name, percent(each.accuracy), in_percent(each.interval), each.images)
            for name, each in found.items()
        ]
        print_table(("domain", "accuracy (%)", "95% interval", "images"), rows)


class Export(ExportOptions, Printed):
    """The options of `client export`."""

    run: Annotated[Path, Option(argument=True)] = Field(
        description="A run's directory, or a .safetensors file from one; for --web also a .onnx file."
    )
    out: Annotated[Path | None, Option(one_command=True)] = Field(
        default=None, description="The file to write, which ends in .onnx or .safetensors."
    )
    web: Annotated[Path | None, Option(metavar="DIR", instead_of="out")] = Field(
        default=None,
        description="Instead of a file, write a page on which the student answers in the browser.",
    )
    kind: Annotated[Literal["onnx", "safetensors"] | None, Option(name="format", safe=True)] = Field(
        default=None, description="Format of the file (default: as its name ends)."
    )


@command(app, panel=_PANEL)
def export(given: Export) -> None:
    """Write a student as one file: ONNX, checked against PyTorch, or safetensors; spends nothing.

    All files say how images are prepared for them, and `client predict` takes any. --web DIR writes a folder
    for any server of static files, with a page on which the student answers in the browser.

    Example: client export runs/icons-pixel-vl2v-adip-seed0 --out student.onnx
    """
    from client.api import exports
    from client.cli.tables import print_exports

    where = given.web or given.out
    if where is None or (given.web and "kind" in given.model_fields_set):
        raise UsageError("Give either --out FILE, with or without --format, or --web DIR.")
    if given.web is None and "reject" in given.model_fields_set:
        raise UsageError("--reject is for --web: whoever serves a file chooses the rate.")
    if given.web is None and given.samples:
        raise UsageError("--samples is for --web: only a page shows them.")
    kind = "web" if given.web else given.kind
    written = exports.export(
        given.run, where, kind=kind, int8=given.int8, allow_loss=given.allow_loss, reject=given.reject,
        samples=given.samples, progress=Display(),
    )  # fmt: skip
    if given.as_json:
        print_json(written.to_json())
    else:
        print_exports(written.files or [])
        print_line(str(written.out))


class Serve(ServeOptions):
    """The options of `client serve`."""

    student: Annotated[Path, Option(argument=True, metavar="RUN|STUDENT.ONNX")] = Field(
        description="A run's directory or a .onnx file; of a folder of runs, the newest student."
    )


@command(app, panel=_PANEL, without=("yes",))
def serve(given: Serve) -> None:
    """Serve a student over HTTP until stopped, by onnxruntime alone.

    POST /classify takes image files; GET / is a page to try it. docs/serving.md tells the rest. It spends
    nothing, unless --ask-vendor names a vendor to ask about images of which the student is not sure; that
    takes an --ask-budget.

    Example: client serve runs/icons-pixel-vl2v-adip-seed0 --port 8080
    """
    from client.api.serving import serve as start

    def announce(url: str, facts: str) -> None:
        print(visible(f"Tuition student ready on {url} ({facts})"), flush=True)

    start(given.student, given, announce=announce)  # Ctrl-C is how it ends


class Report(Options):
    """The options of `client report`."""

    run: Annotated[Path, Option(argument=True)] = Field(description="A run's directory.")


@command(app, panel=_PANEL)
def report(given: Report) -> None:
    """Write a finished run's report.html and README.md again.

    Example: client report runs/icons-pixel-vl2v-adip-seed0
    """
    from client.api.distillation import Run

    print_line(str(Run(path=given.run).write_report()))
