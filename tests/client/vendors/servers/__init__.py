"""Small servers of other vendors' APIs, each written from its documents: nobody here has a key of theirs.

Each is a function of a request: `ApiServer` answers by it in this process, and `listening` at an address,
where the vendors' own SDKs prove that it speaks as they expect.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np

DIMENSIONS = 8


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, dict(headers or {})


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """What is asked."""
        return json.loads(self.content)


@dataclass
class ApiServer(httpx.BaseTransport):
    """A vendor that charges whatever it serves.

    Attributes:
        answer: the API's answer to a request; raises `Refusal`.
        charged: inputs that were served.
        asked: the requests, in order.
        fates: what happens to the next requests, the last one first: a status, or "lost" after serving.
        weights: another word is another model.
    """

    answer: Callable[["ApiServer", Asked], Any]
    charged: int = 0
    asked: list[Asked] = field(default_factory=list)
    fates: list[Any] = field(default_factory=list)
    weights: str = "one"
    dimensions: int = DIMENSIONS

    def vector(self, item: str) -> list[float]:
        """What the model says of an input."""
        seed = int.from_bytes(hashlib.sha256((self.weights + item).encode()).digest()[:4], "big")
        return [float(each) for each in np.random.default_rng(seed).normal(size=self.dimensions)]

    def respond(self, asked: Asked) -> tuple[int, Any, Mapping[str, str]]:
        """The status, the JSON and the headers of an answer."""
        self.asked.append(asked)
        fate = self.fates.pop() if self.fates else None
        if isinstance(fate, Refusal):
            return fate.status, fate.body, fate.headers
        try:
            body = self.answer(self, asked)
        except Refusal as refusal:
            return refusal.status, refusal.body, refusal.headers
        if fate == "lost":
            raise httpx.ReadError("cut")
        return 200, fate(body) if callable(fate) else body, {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        asked = Asked(request.method, path, dict(request.headers), request.content)
        status, body, headers = self.respond(asked)
        return httpx.Response(status, content=json.dumps(body).encode(), headers=dict(headers))


@contextmanager
def listening(server: ApiServer) -> Iterator[str]:
    """The server at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body, more = server.respond(Asked(self.command, self.path, headers, content))
            written = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **more}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
