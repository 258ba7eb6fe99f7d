"""A student as a service: opened, given an address, and served until stopped."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import ClientError, UsageError
from client.options.students import AskOptions, ServeOptions
from shared.text import visible

if TYPE_CHECKING:
    from client.serving.app import Deferral
    from client.serving.keys import Keys
    from client.serving.student import ServedStudent

_log = logging.getLogger(__name__)
# What a server takes beside what the client has: the extra `serve`.
_SERVER = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client", "jinja2")
# Seconds to wait for another process that asks through the same cache.
_PATIENCE = 5.0


def serve(
    student: Path | str,
    options: ServeOptions | None = None,
    *,
    announce: Callable[[str, str], None] = lambda _url, _facts: None,
) -> bool:
    """Serve a student over HTTP until stopped, by onnxruntime alone; whether it was stopped by Ctrl-C.

    Args:
        student: a run, a .onnx file, or a folder of runs.
        options: how; by default to this machine, and nobody is asked.
        announce: is given the URL and the student's facts once it is ready.

    Raises:
        UsageError: an option names something that does not exist or cannot be, or the student's file has no
            threshold for the rate of false rejects.
        FingerprintChanged: the vendor that is to be asked sells another model than taught the student.
        ClientError: the student is damaged, the cache cannot be opened, or the server does not start.
    """
    _require_server()
    from client.serving.app import LIMITS, create_app
    from client.serving.hosts import HostCheck
    from client.serving.keys import Keys
    from client.serving.student import load
    from shared import memory
    from shared.http import server
    from shared.http.logging import configure_logging

    options = options or ServeOptions()
    memory.share_heap()
    configure_logging("client", as_json=options.log_format == "json")
    keys = Keys(options.api_keys)
    served = load(Path(student), LIMITS, options.reject)
    deferral = None if options.ask is None else _deferral(served, options.ask, options, keys)
    hosts = HostCheck((*options.allow_host, options.host), any_host=keys.needed)
    app = create_app(served, keys, hosts, options.threads or os.cpu_count() or 1, deferral)
    card = served.card
    facts = f"student {card.name}, {len(card.classes)} classes, {card.image_size} px"
    try:
        with server.bind(options.host, options.port) as bound:
            url = server.url_of(bound)
            return server.serve(app, bound, lambda: announce(url, facts))
    except server.CannotServe as error:
        raise ClientError(f"{error}.") from error


def _require_server() -> None:
    missing = [name for name in _SERVER if find_spec(name) is None]
    if missing:
        raise UsageError(f"{missing[0]} is missing, which serving needs: pip install 'tuition[serve]'")


class _Log:
    """Hears what a person should know of whom the student asks, and writes it into the server's log."""

    def note(self, text: str) -> None:
        """Log it."""
        _log.info("%s", visible(text))

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:  # noqa: ARG002
        """Log nothing: a question is soon answered."""
        yield lambda _done, _words: None


def _deferral(served: "ServedStudent", ask: AskOptions, options: ServeOptions, keys: "Keys") -> "Deferral":
    """Whom the student asks, connected to, if the vendor is there."""
    from client.data.kept_images import KeptImages
    from client.runs.connection import Connection  # what speaks HTTP is needed by nobody else here
    from client.serving.app import Deferral
    from client.serving.ask_queue import AskQueue
    from client.serving.asking import open_asker
    from client.serving.selection import CallersStreams, ShareOfTraffic

    metadata, classes = served.classifier.metadata, served.card.classes
    reject_below = metadata.thresholds(options.reject, asks=True).teacher
    connection = Connection(ask, _Log())
    kept = None if ask.keep is None else KeptImages(ask.keep, at_most=ask.keep_at_most)
    queue = AskQueue(
        lambda: open_asker(connection, ask, classes, metadata, reject_below, patience=_PATIENCE),
        kept,
        callers=keys.count,
    )
    queue.connect()
    streams = CallersStreams(lambda: ShareOfTraffic.of_student(metadata, ask.share))
    assert ask.budget is not None  # ServeOptions has seen to it
    return Deferral(streams, queue, options.ask_seconds, ask.budget, ask.period)
