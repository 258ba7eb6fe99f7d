"""`client serve`: a finished student as a service."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli.options import (
    AskAccuracyOption,
    AskBelowOption,
    AskPeriodOption,
    AskShareOption,
    AskVendorOption,
    CacheOption,
    KeepAtMostOption,
    KeepOption,
    KeyFileOption,
    ModelOption,
    ProtocolOption,
    RejectOption,
    a_number,
    amount_to_ask,
)
from client.errors import UsageError
from client.progress import printable


def serve(
    context: typer.Context,
    student: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|STUDENT.ONNX",
            help="A run's directory or a .onnx file; of a folder of runs, the newest student.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes a free one.")
    ] = 8080,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            "--api-keys",
            help="File of callers' keys: a line with name and SHA-256 of each (default: everybody may ask).",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=1024,
            help="How many batches to compute at a time, on a thread each (default: one a processor).",
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option("--log-format", help="How to log to standard error.")
    ] = "text",
    reject: RejectOption = None,
    ask_vendor: AskVendorOption = None,
    ask_share: AskShareOption = None,
    ask_below: AskBelowOption = None,
    ask_accuracy: AskAccuracyOption = None,
    ask_budget: Annotated[
        int | None,
        typer.Option(
            "--ask-budget",
            min=0,
            max=10**12,
            help="Pay for at most this many queries in a period, whatever asks through this cache; "
            "needed with --ask-vendor.",
        ),
    ] = None,
    ask_period: AskPeriodOption = "month",
    ask_seconds: Annotated[
        float,
        typer.Option(
            "--ask-seconds",
            min=0.01,
            max=25,
            help="Seconds that a caller waits for the vendor, up to 25; then the student answers.",
            callback=a_number,
        ),
    ] = 2.0,
    keep: KeepOption = None,
    keep_at_most: KeepAtMostOption = 10_000,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
) -> None:
    """Serve a student over HTTP until stopped, by onnxruntime alone.

    POST /classify takes image files; GET / is a page to try it. docs/serving.md tells the rest. It spends
    nothing, unless --ask-vendor names a vendor to ask about images of which the student is not sure; that
    takes an --ask-budget.

    Example: client serve runs/icons-pixel-vl2v-adip-seed0 --port 8080
    """
    amount = amount_to_ask(context, ask_vendor, ask_share, ask_below, ask_accuracy)
    from client.api.options import AskOptions, ServeOptions
    from client.api.serving import serve as start

    def announce(url: str, facts: str) -> None:
        print(printable(f"Tuition student ready on {url} ({facts})"), flush=True)

    ask = None
    if ask_vendor is not None:
        ask = AskOptions(
            **amount, vendor=ask_vendor, budget=_limited(ask_budget), period=ask_period, yes=True,
            protocol=protocol, model=model, api_key_file=api_key_file, cache=cache, keep=keep,
            keep_at_most=keep_at_most,
        )  # fmt: skip
    options = ServeOptions(
        host=host, port=port, api_keys=api_keys, threads=threads, log_format=log_format, reject=reject,
        ask=ask, ask_seconds=ask_seconds,
    )  # fmt: skip
    start(student, options, announce=announce)  # Ctrl-C is how it ends


def _limited(budget: int | None) -> int:
    if budget is None:
        raise UsageError("A server asks for as long as it runs: say with --ask-budget what it may pay for.")
    return budget
