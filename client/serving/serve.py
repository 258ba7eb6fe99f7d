"""`client serve`: opens the student, takes an address, and serves until stopped."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.buying.protocols import ProtocolName
from client.deferral.asking import Asker, Period
from client.deferral.keeping import KeptImages
from client.deferral.selection import for_stream
from client.errors import ClientError
from client.learning.rejection import Thresholds
from client.progress import Display
from client.serving.app import LIMITS, Deferral, create_app
from client.serving.keys import Keys
from client.serving.student import ServedStudent, load
from client.serving.vendor_line import VendorLine
from shared.serving import memory, server
from shared.serving.logging import configure_logging

LogFormat = Literal["text", "json"]


# Seconds to wait for another process that asks through the same cache.
_PATIENCE = 5.0


@dataclass(frozen=True)
class AskOptions:
    """Whom a student asks where it is not sure; `client.api.options.AskOptions` says what each means.

    Attributes:
        seconds: how long a caller waits for the vendor.
    """

    vendor: str
    budget: int
    period: Period
    share: float | None = None
    below: float | None = None
    accuracy: float | None = None
    seconds: float = 2.0
    protocol: ProtocolName = "tuition"
    model: str | None = None
    api_key_file: Path | None = None
    cache: Path | None = None
    keep: Path | None = None
    keep_at_most: int = 10_000


@dataclass(frozen=True)
class ServeOptions:
    """How a student is served.

    Attributes:
        host: the address to listen on.
        port: the port; 0 for a free one.
        api_keys: a file of those who may ask (`Keys`); `None` for everybody.
        threads: how many batches are computed at a time; `None` for one a processor.
        log_format: of the log on standard error.
        reject: the rate of false rejects at which images are taken to show none of the classes; `None` for
            never.
        ask: whom to ask where the student is not sure; `None` for nobody.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Path | None = None
    threads: int | None = None
    log_format: LogFormat = "text"
    reject: float | None = None
    ask: AskOptions | None = None


def serve(student: Path, options: ServeOptions, announce: Callable[[str, str], None]) -> bool:
    """Serve until stopped; whether that was by Ctrl-C.

    Args:
        student: a run, a .onnx file, or a folder of runs.
        options: how.
        announce: is given the URL and the student's facts once it is ready.

    Raises:
        UsageError: an option names something that does not exist or cannot be, or the student's file has no
            threshold for the rate of false rejects.
        FingerprintChanged: the vendor that is to be asked sells another model than taught the student.
        ClientError: the student is damaged, or the server does not start.
    """
    memory.share_heap()
    configure_logging("client", as_json=options.log_format == "json")
    keys = Keys(options.api_keys)
    served = load(student, LIMITS, options.reject)
    deferral = None if options.ask is None else _deferral(served, options.ask, options.reject)
    app = create_app(served, keys, options.threads or os.cpu_count() or 1, deferral)
    card = served.card
    facts = f"student {card.name}, {len(card.classes)} classes, {card.image_size} px"
    try:
        with server.bind(options.host, options.port) as bound:
            url = server.url_of(bound)
            return server.serve(app, bound, lambda: announce(url, facts))
    except server.CannotServe as error:
        raise ClientError(f"{error}.") from error


def _deferral(served: ServedStudent, ask: AskOptions, reject: float | None) -> Deferral:
    """Whom the student asks, connected to, if the vendor is there."""
    from client.runs.connection import Connection  # what speaks HTTP is needed by nobody else here

    metadata, classes = served.classifier.metadata, served.card.classes
    below = Thresholds.of_student(metadata, reject, asks=True)
    connection = Connection(
        ask.vendor, ask.api_key_file, ask.cache, Display.of_nobody(), ask.protocol, ask.model
    )

    @contextmanager
    def open_asker() -> Iterator[Asker]:
        with connection.teacher(
            run_id="asked", budget=None, fingerprint=metadata.get("taught_by")
        ) as teacher:
            yield Asker.of_student(
                teacher, classes, metadata,
                budget=ask.budget, period=ask.period, patience=_PATIENCE, reject_below=below.teacher,
            )  # fmt: skip

    kept = None if ask.keep is None else KeptImages(ask.keep, at_most=ask.keep_at_most)
    line = VendorLine(open_asker, kept)
    line.connect()
    selection = for_stream(metadata, share=ask.share, below=ask.below, accuracy=ask.accuracy)
    return Deferral(selection, line, ask.seconds, ask.budget, ask.period)
