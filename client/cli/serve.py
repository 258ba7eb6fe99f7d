"""`client serve`: a finished student as a service."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

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
) -> None:
    """Serve a student over HTTP until stopped, by onnxruntime alone; spends nothing.

    POST /classify takes image files; GET / is a page to try it. docs/serving.md tells the rest.

    Example: client serve runs/icons-pixel-vl2v-adip-seed0 --port 8080
    """
    missing = [name for name in _SERVER if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{missing[0]} is missing, which serving takes: pip install '.[serve]' in Tuition's folder."
        )
    from client.serving.serve import ServeOptions
    from client.serving.serve import serve as start

    def announce(url: str, facts: str) -> None:
        print(f"Tuition student ready on {url} ({facts})", flush=True)

    options = ServeOptions(host, port, api_keys, threads, log_format)
    interrupted = start(student, options, announce)
    raise typer.Exit(130 if interrupted else 0)
