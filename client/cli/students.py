"""`client evaluate`, `predict`, `report`, `export`: what is done with a finished student."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli.confirm import on_terminal
from client.cli.lines import from_lines
from client.cli.options import (
    DEFAULT_DATA,
    AskAccuracyOption,
    AskBelowOption,
    AskBudgetOption,
    AskPeriodOption,
    AskShareOption,
    AskVendorOption,
    CacheOption,
    DataOption,
    DeviceOption,
    JsonOption,
    KeepAtMostOption,
    KeepOption,
    KeyFileOption,
    ModelOption,
    ProtocolOption,
    RejectOption,
    RunArgument,
    YesOption,
    a_number,
    amount_to_ask,
    is_typed,
    print_json,
    print_line,
)
from client.errors import UsageError
from client.progress import Display

FileFormat = Literal["onnx", "safetensors"]
StudentArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run's directory, or a .safetensors or .onnx file from one.", show_default=False
    ),
]


def evaluate(
    run: StudentArgument,
    data: DataOption = DEFAULT_DATA,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="Only these domains (default: all).")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a trained student on every image of a folder, by domain; spends nothing.

    Images that it was trained on count too: summary.json has its accuracy on hold-outs.

    Example: client evaluate runs/icons-pixel-vl2v-adip-seed0 --data icons --domain pixel
    """
    from client.api import students
    from client.cli.tables import percent, print_table

    found = students.evaluate(run, data, domains=domain, device=device, progress=Display())
    if as_json:
        print_json({name: each.to_json() for name, each in found.items()})
    else:
        rows = [(name, percent(each.accuracy), each.images) for name, each in found.items()]
        print_table(("domain", "accuracy (%)", "images"), rows)


def predict(
    context: typer.Context,
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
    reject: RejectOption = None,
    device: DeviceOption = "auto",
    ask_vendor: AskVendorOption = None,
    ask_share: AskShareOption = None,
    ask_below: AskBelowOption = None,
    ask_accuracy: AskAccuracyOption = None,
    ask_budget: AskBudgetOption = None,
    ask_period: AskPeriodOption = "month",
    keep: KeepOption = None,
    keep_at_most: KeepAtMostOption = 10_000,
    yes: YesOption = False,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the most probable classes of images, by a run's student or by a file of it.

    It spends nothing, unless --ask-vendor names a vendor to ask about those of which the student is least
    sure. A .onnx file is run by onnxruntime, and PyTorch need not be installed. Folders are searched below;
    hidden files are left out. Ends with 1 if a picture cannot be read.

    Example: client predict runs/icons-pixel-vl2v-adip-seed0 cat.png dog.png --top 3
    """
    from client.api import students
    from client.api.options import AskOptions
    from client.cli.tables import print_predictions

    amount = amount_to_ask(context, ask_vendor, ask_share, ask_below, ask_accuracy)
    ask = None
    if ask_vendor is not None:
        ask = AskOptions(
            **amount, vendor=ask_vendor, budget=ask_budget, period=ask_period, yes=yes, protocol=protocol,
            model=model, api_key_file=api_key_file, cache=cache, keep=keep, keep_at_most=keep_at_most,
        )  # fmt: skip
    _, words = from_lines([], images)
    student = students.load_student(run, device=device)
    found = student.predict(words, top=top, reject=reject, ask=ask, confirm=on_terminal(), progress=Display())
    if not found.classes and not found.skipped:
        raise UsageError(f"There is no picture in {', '.join(words)} (hidden files are left out).")
    print_json(found.rows()) if as_json else print_predictions(found)
    raise typer.Exit(1 if found.skipped else 0)


def report(run: RunArgument) -> None:
    """Write a finished run's report.html and README.md again.

    Example: client report runs/icons-pixel-vl2v-adip-seed0
    """
    from client.api.distillation import Run

    print_line(str(Run(path=run).write_report()))


def export(
    context: typer.Context,
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run's directory, or a .safetensors file from one; for --web also a .onnx file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The file to write, which ends in .onnx or .safetensors.", show_default=False
        ),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(
            "--web",
            metavar="DIR",
            help="Instead of a file, write a page on which the student answers in the browser.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Format of the file (default: as its name ends)."),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Write ONNX in eight bits, a quarter of the size; takes a run's directory, and its images.",
        ),
    ] = False,
    allow_loss: Annotated[
        float,
        typer.Option(
            "--allow-loss",
            min=0,
            max=100,
            help="Points of accuracy that --int8 may lose before it is refused.",
            callback=a_number,
        ),
    ] = 1.0,
    reject: RejectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a student as one file: ONNX, checked against PyTorch, or safetensors; spends nothing.

    All files say how images are prepared for them, and `client predict` takes any. --web DIR writes a folder
    for any server of static files, with a page on which the student answers in the browser.

    Example: client export runs/icons-pixel-vl2v-adip-seed0 --out student.onnx
    """
    from client.api import exports
    from client.cli.tables import print_exports

    out, web, kind = _what_to_write(context, out, web, kind)
    if web is None and is_typed(context, "reject"):
        raise UsageError("--reject is for --web: of a file, whoever answers by it says at which rate.")
    written = exports.export(
        run, web or out or Path(), kind="web" if web else kind, int8=int8, allow_loss=allow_loss,
        reject=reject, progress=Display(),
    )  # fmt: skip
    if as_json:
        print_json(written.to_json())
    else:
        print_exports(written.files or [])
        print_line(str(written.out))


def _what_to_write(
    context: typer.Context, out: Path | None, web: Path | None, kind: FileFormat | None
) -> tuple[Path | None, Path | None, FileFormat | None]:
    """A file and perhaps its format, or the folder of a page: what is typed, or else what tuition.toml says.

    Raises:
        UsageError: it is neither, or both.
    """
    out_typed, web_typed, kind_typed = (is_typed(context, name) for name in ("out", "web", "kind"))
    if web_typed and not out_typed:
        out = None
    if (out_typed or kind_typed) and not web_typed:
        web = None
    if web is not None and not kind_typed:
        kind = None
    if (out is None) == (web is None) or (web is not None and kind is not None):
        raise UsageError("Say either --out FILE, with --format or without, or --web DIR.")
    return out, web, kind
