"""Bodies that nobody means well, of any size, and what else a stranger may do to a socket.

`BODIES` are the worst of each kind that is known; `sent_beside` sends some of them while something else is
timed. Tests use both, and so may benchmarks.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

MEBIBYTE = 1024 * 1024
_BOUNDARY = b"hostile"
_PART = b'--%b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' % _BOUNDARY
_END = b"\r\n--%b--\r\n" % _BOUNDARY
_JSON = "application/json"
_FORM = f"multipart/form-data; boundary={_BOUNDARY.decode()}"


class Hostile(NamedTuple):
    """A kind of body: where it is posted, what it says to be, and how one of about `size` bytes is made."""

    path: str
    content_type: str
    make: Callable[[int], bytes]


def _filled(head: bytes, unit: bytes, tail: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: head + unit * max(1, (size - len(head) - len(tail)) // len(unit)) + tail


def _numbered(head: bytes, unit: bytes, joint: bytes, tail: bytes) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        count = max(1, (size - len(head) - len(tail)) // (len(unit) + 5 + len(joint)))
        return head + joint.join(unit % number for number in range(count)) + tail

    return make


def _many_images(size: int) -> bytes:
    file = b"\x89PNG\r\n\x1a\n" + bytes(max(1, size // 256 - len(_PART) - 30))
    return b"\r\n".join([_PART + file] * 256) + _END


def _json_images(size: int) -> bytes:
    image = {"image": "iVBORw0KGgo" + "A" * (max(4, (size // 256 - 40) // 4 * 4) + 1)}
    return json.dumps({"inputs": [image] * 256}).encode()


_TEXT, _INPUT = b'{"inputs":[{"text":"', b'{"model":"icon-clip","input":["'

BODIES: dict[str, Hostile] = {
    "unknown keys": Hostile("/embed", _JSON, _numbered(b"{", b'"a%d":1', b",", b"}")),
    "unknown keys of an input": Hostile(
        "/embed", _JSON, _numbered(b'{"inputs":[{', b'"a%d":1', b",", b"}]}")
    ),
    "the same key": Hostile("/embed", _JSON, _filled(b"{", b'"inputs":[],', b'"inputs":[]}')),
    "empty texts": Hostile("/v1/embeddings", _JSON, _filled(_INPUT, b'","', b'"]}')),
    "empty objects": Hostile("/embed", _JSON, _filled(b'{"inputs":[', b"{},", b"{}]}")),
    "token ids": Hostile("/v1/embeddings", _JSON, _filled(b'{"model":"icon-clip","input":[', b"1,", b"1]}")),
    "texts in a list of a list": Hostile(
        "/v1/embeddings", _JSON, _filled(b'{"model":"icon-clip","input":[["', b'","', b'"]]}')
    ),
    "nesting": Hostile("/embed", _JSON, _filled(b'{"inputs":', b"[")),
    "nested objects": Hostile("/embed", _JSON, _filled(b"", b'{"inputs":')),
    "digits": Hostile("/embed", _JSON, _filled(b'{"inputs":', b"9", b"}")),
    "decimals": Hostile("/embed", _JSON, _filled(b'{"inputs":0.', b"9", b"}")),
    "white space": Hostile("/embed", _JSON, _filled(b'{"inputs":', b" ", b'[{"text":"a"}]}')),
    "escaped letters": Hostile("/embed", _JSON, _filled(_TEXT, b"\\u0041", b'"}]}')),
    "escaped quotes": Hostile("/embed", _JSON, _filled(_TEXT, b'\\"', b'"}]}')),
    "backslashes": Hostile("/embed", _JSON, _filled(_TEXT, b"\\", b"")),
    "surrogates": Hostile("/embed", _JSON, _filled(_TEXT, b"\\ud83d\\ude00", b'"}]}')),
    "one wide letter": Hostile("/embed", _JSON, _filled(_TEXT, b"a", "😀".encode() + b'"}]}')),
    "a long key": Hostile("/embed", _JSON, _filled(b'{"', b"a", b'":1}')),
    "a long model": Hostile("/embed", _JSON, _filled(b'{"model":"', b"a", b'","inputs":[{"text":"a"}]}')),
    "a string without an end": Hostile("/embed", _JSON, _filled(_TEXT, b"a")),
    "images in JSON": Hostile("/embed", _JSON, _json_images),
    "images in a form": Hostile("/embed", _FORM, _many_images),
    "boundaries that are none": Hostile("/embed", _FORM, _filled(_PART, b"\r\n--%bX" % _BOUNDARY, _END)),
    "beginnings of boundaries": Hostile("/embed", _FORM, _filled(_PART, b"\r\n--", _END)),
    "padding": Hostile("/embed", _FORM, _filled(_PART + b"\r\n--" + _BOUNDARY, b" ", _END)),
    "fields": Hostile(
        "/embed",
        _FORM,
        _numbered(b"", b"--hostile\r\ncontent-disposition: form-data; name=a%d\r\n\r\n\r\n", b"", _END),
    ),
    "empty parts": Hostile(
        "/embed",
        _FORM,
        _filled(b"", b"--hostile\r\ncontent-disposition: form-data; name=text\r\n\r\n\r\n", _END),
    ),
    "headers of a part": Hostile("/embed", _FORM, _filled(b"--hostile\r\n", b"a: b\r\n", _END)),
    "a header of a part": Hostile("/embed", _FORM, _filled(b"--hostile\r\na: ", b"b", _END)),
    "semicolons": Hostile(
        "/embed", _FORM, _filled(b"--hostile\r\ncontent-disposition: form-data", b";", b"\r\n\r\n" + _END)
    ),
    "before the first part": Hostile("/embed", _FORM, _filled(b"", b"\r\n-", _PART + b"a" + _END)),
    "after the last part": Hostile("/embed", _FORM, _filled(_PART + b"a" + _END, b"\r\n--hostile")),
    "a long field": Hostile(
        "/embed",
        _FORM,
        _filled(b"--hostile\r\ncontent-disposition: form-data; name=model\r\n\r\n", b"a", _END),
    ),
    "a long text": Hostile(
        "/embed",
        _FORM,
        _filled(
            b"--hostile\r\ncontent-disposition: form-data; name=text\r\n\r\n", b"a", "😀".encode() + _END
        ),
    ),
}


def head(path: str, *lines: str, method: str = "POST", api_key: str | None = None) -> bytes:
    """The head of a request with these header lines."""
    key = [] if api_key is None else [f"authorization: Bearer {api_key}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *key, *lines, "", ""]).encode()


def half_sent(path: str, api_key: str | None = None, *, chunked: bool = False, method: str = "POST") -> bytes:
    """A request whose body begins and does not go on."""
    how = "transfer-encoding: chunked" if chunked else "content-length: 4000"
    begun = b'a\r\n{"inputs":\r\n' if chunked else b'{"inputs":'
    return head(path, how, f"content-type: {_JSON}", method=method, api_key=api_key) + begun


def connect(url: str) -> socket.socket:
    """A connection to the vendor at a URL."""
    address = urlsplit(url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port), timeout=30)


@contextmanager
def hanging_up(url: str, api_key: str, *inputs: dict[str, str]) -> Iterator[None]:
    """Ask for embeddings, and hang up when this ends."""
    body = json.dumps({"inputs": inputs}).encode()
    lines = (f"content-length: {len(body)}", f"content-type: {_JSON}")
    with connect(url) as caller:
        caller.sendall(head("/embed", *lines, api_key=api_key) + body)
        yield


def post(http: httpx.Client, api_key: str, hostile: Hostile, body: bytes) -> httpx.Response | None:
    """Send one; the answer, or nothing if the connection was closed on it."""
    headers = {"authorization": f"Bearer {api_key}", "content-type": hostile.content_type}
    try:
        return http.post(hostile.path, content=body, headers=headers)
    except httpx.TransportError:
        return None


@contextmanager
def sent_beside(
    url: str, api_keys: Sequence[str], names: Sequence[str], size: int = 32 * MEBIBYTE
) -> Iterator[None]:
    """While this lasts, each key's connection sends bodies of these kinds, one after the other, for ever."""
    made = [(BODIES[name], BODIES[name].make(size)) for name in names]
    stopped = threading.Event()

    def send(number: int) -> None:
        turns = cycle(made[number % len(made) :] + made[: number % len(made)])
        with httpx.Client(base_url=url, timeout=120) as http:
            while not stopped.is_set():
                post(http, api_keys[number], *next(turns))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(api_keys))]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stopped.set()
        for each in threads:
            each.join()


def livez_seconds(url: str, seconds: float, pause: float = 0.02) -> list[float]:
    """How long each `/livez` takes, asked again and again for so many seconds."""
    took = []
    with httpx.Client(base_url=url, timeout=60) as http:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            assert http.get("/livez").status_code == 200
            took.append(time.perf_counter() - began)
            time.sleep(pause)
    return took
