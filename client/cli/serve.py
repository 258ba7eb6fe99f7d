"""`client serve`: a finished student as a service."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli.options import (
    AskAccuracyOption,
    AskBelowOption,
    AskBudgetOption,
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
    amount_to_ask,
)
from client.errors import UsageError

_SERVER = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client", "jinja2")


def serve(
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
            help="Who may ask: a file with a name and the SHA-256 of a key a line (default: everybody may).",
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
    ask_budget: AskBudgetOption = None,
    ask_period: AskPeriodOption = "month",
    ask_seconds: Annotated[
        float,
        typer.Option(
            "--ask-seconds",
            min=0.01,
            max=60,
            help="A caller waits so long for the vendor; then the student answers.",
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
    _require_server()
    amount = amount_to_ask(ask_vendor, ask_share, ask_below, ask_accuracy, ask_budget)
    from client.serving.serve import AskOptions, ServeOptions
    from client.serving.serve import serve as start

    def announce(url: str, facts: str) -> None:
        print(f"Tuition student ready on {url} ({facts})", flush=True)

    ask = None
    if ask_vendor is not None:
        ask = AskOptions(
            ask_vendor, _limited(ask_budget), ask_period, **amount, seconds=ask_seconds, protocol=protocol,
            model=model, api_key_file=api_key_file, cache=cache, keep=keep, keep_at_most=keep_at_most,
        )  # fmt: skip
    options = ServeOptions(host, port, api_keys, threads, log_format, reject, ask)
    interrupted = start(student, options, announce)
    raise typer.Exit(130 if interrupted else 0)


def _require_server() -> None:
    missing = [name for name in _SERVER if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{missing[0]} is missing, which serving takes: pip install '.[serve]' in Tuition's folder."
        )


def _limited(budget: int | None) -> int:
    if budget is None:
        raise UsageError("A server asks for as long as it runs: say with --ask-budget what it may pay for.")
    return budget
