"""`client serve`: opens the student, takes an address, and serves until stopped."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.errors import ClientError
from client.serving.app import LIMITS, create_app
from client.serving.keys import Keys
from client.serving.student import load
from shared.serving import memory, server
from shared.serving.logging import configure_logging

LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class ServeOptions:
    """How a student is served.

    Attributes:
        host: the address to listen on.
        port: the port; 0 for a free one.
        api_keys: a file of those who may ask (`Keys`); `None` for everybody.
        threads: how many batches are computed at a time; `None` for one a processor.
        log_format: of the log on standard error.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Path | None = None
    threads: int | None = None
    log_format: LogFormat = "text"


def serve(student: Path, options: ServeOptions, announce: Callable[[str, str], None]) -> bool:
    """Serve until stopped; whether that was by Ctrl-C.

    Args:
        student: a run, a .onnx file, or a folder of runs.
        options: how.
        announce: is given the URL and the student's facts once it is ready.

    Raises:
        UsageError: an option names something that does not exist or cannot be.
        ClientError: the student is damaged, or the server does not start.
    """
    memory.share_heap()
    configure_logging("client", as_json=options.log_format == "json")
    keys = Keys(options.api_keys)
    served = load(student, LIMITS)
    app = create_app(served, keys, options.threads or os.cpu_count() or 1)
    card = served.card
    facts = f"student {card.name}, {len(card.classes)} classes, {card.image_size} px"
    try:
        with server.bind(options.host, options.port) as bound:
            url = server.url_of(bound)
            return server.serve(app, bound, lambda: announce(url, facts))
    except server.CannotServe as error:
        raise ClientError(f"{error}.") from error
