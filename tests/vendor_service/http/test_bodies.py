"""One bounded way in: what no route asked for, what does not come and what is worst, on every path."""

import base64
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from starlette.routing import BaseRoute

from shared.embeddings import EmbedOptions, EmbedRequest
from shared.errors import ErrorBody
from shared.http import body
from shared.http.json_body import JsonBody, Shape
from shared.http.multipart import FormBody, FormShape
from shared.kinds import Input
from tests.support.figures import holds
from tests.vendor_service.hostile_bodies import (
    BODIES,
    MEBIBYTE,
    Hostile,
    connect,
    half_sent,
    head,
)
from tests.vendor_service.local_vendor import LocalVendor, Vendor, error_code
from vendor_service.embed.dialects import OpenAIRequest
from vendor_service.errors import APIError

PATIENCE = 1.0
# By routes that take no body, or none from a stranger.
ANSWERED = ("200", "307", "invalid_api_key", "method_not_allowed", "not_found", "model_not_found")
# Pages send a stranger to sign in, or say that they are none, or that nothing was posted to them.
PAGES = ("200", "303", "page 400", "page 403", "page 404", "page 413")
UNKNOWN, TO_COME = "/no/such/path", "/v2/path-to-come"


class Order(BaseModel):
    """What a path yet to come might ask for."""

    numbers: list[int]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    """A vendor with one more path, whose author did not think of large bodies, and with little patience."""
    patch = pytest.MonkeyPatch()
    patch.setattr(body, "_UNASKED_SECONDS", PATIENCE)
    patch.setattr(body, "_STEP_SECONDS", PATIENCE)
    patch.setattr("shared.http.body._SMALL_SECONDS", PATIENCE)
    with LocalVendor(tmp_path_factory.mktemp("bodies"), keep_alive=1) as vendor:

        @vendor.app.post(TO_COME)
        def order(asked: Order) -> int:
            return len(asked.numbers)

        yield vendor
    patch.undo()


def asked_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers, and some that it does not."""

    def walk(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
        for route in routes:
            below: Any = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", None
            )
            if below:
                yield from walk(list(below))
            for method in getattr(route, "methods", None) or ():
                yield method, getattr(route, "path", "")

    found = set(walk(app.routes))
    assert {("POST", "/v1/estimate"), ("POST", "/embed"), ("POST", TO_COME), ("GET", "/livez")} <= found
    yield from sorted(found)
    yield from (("POST", UNKNOWN), ("PUT", "/embed"), ("POST", "/livez"), ("GET", UNKNOWN))


def filled(path: str) -> str:
    """A path with something for each of its parameters."""
    return path.replace("{month}", "2026-11").replace("{key_id}", "k").replace("{model_id:path}", "m")


def answered_after(connection: socket.socket, piece: bytes) -> int:
    """Send a piece again and again until an answer comes; how much was sent by then."""
    sent = 0
    while sent < 64 * MEBIBYTE:
        # Most answers come soon, and who is slow has time to answer before a mebibyte is sent.
        connection.settimeout(0.02 if sent < 8 * len(piece) else 0.2)
        try:
            connection.sendall(piece)
            sent += len(piece)
            if connection.recv(12, socket.MSG_PEEK):
                return sent
        except TimeoutError:
            continue
    raise AssertionError("no answer")


def code_of(connection: socket.socket, method: str = "POST") -> str:
    """The code of the error that comes, or the status of whatever else does: an answer, or a page."""
    connection.settimeout(20)
    with HTTPResponse(connection, method=method) as answer:
        answer.begin()
        body = answer.read()
    if answer.status < 400:
        return str(answer.status)
    if "text/html" in answer.headers["content-type"]:
        return f"page {answer.status}"
    return ErrorBody.model_validate_json(body).error.code


def closed_within(connection: socket.socket, seconds: float) -> bool:
    """Wait until the other side closes."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_an_endless_body_is_refused_on_every_path_before_a_mebibyte_is_taken(
    patient: LocalVendor, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_UNASKED_SECONDS", 20)  # it is refused for its size
    how = "transfer-encoding: chunked" if chunked else f"content-length: {4 * 1024**3}"
    data = b"x" * 16_384
    piece = b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
    for method, path in asked_of(patient.app):
        with connect(str(patient.http.base_url)) as connection:
            connection.sendall(head(filled(path), how, "content-type: application/json", method=method))
            assert holds(answered_after(connection, piece) / MEBIBYTE, 1, "MiB"), (method, path)
            code = code_of(connection, method)
            if path == TO_COME:
                assert code == "request_too_large"
            else:
                usual = PAGES if path.startswith("/console") else ANSWERED
                assert code in usual, (method, path, code)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_that_stalls_is_given_up_on_every_path(patient: LocalVendor, chunked: bool) -> None:
    stalled: list[tuple[str, str, socket.socket]] = []
    for method, path in asked_of(patient.app):
        connection = connect(str(patient.http.base_url))
        connection.sendall(half_sent(filled(path), chunked=chunked, method=method))
        stalled.append((method, path, connection))
    began = time.monotonic()
    for method, path, connection in stalled:
        code = code_of(connection, method)
        assert closed_within(connection, 20), (method, path)
        connection.close()
        assert path != TO_COME or code == "deadline_exceeded"
    # uvicorn waits for a second on its own account before it closes what is answered.
    assert time.monotonic() - began < 1 + 10 * PATIENCE


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/v1/estimate"])
def test_a_body_that_stalls_or_drips_is_given_up_with_a_key_too(patient: LocalVendor, path: str) -> None:
    key = patient.key()
    for pause in (None, PATIENCE / 5):
        with connect(str(patient.http.base_url)) as connection:
            connection.sendall(half_sent(path, key))
            began = time.monotonic()
            connection.settimeout(pause or 20)
            while time.monotonic() - began < 10 * PATIENCE:
                try:
                    connection.recv(1, socket.MSG_PEEK)
                    break
                except TimeoutError:
                    connection.sendall(b" ")
            assert time.monotonic() - began < 10 * PATIENCE
            assert b"connection: close" in connection.recv(4096, socket.MSG_PEEK)
            assert code_of(connection) == "deadline_exceeded"
            assert closed_within(connection, 20)
    assert patient.app.state.capacity.idle


def test_an_estimate_is_priced_only_for_who_has_a_key_and_asks_in_few_bytes(patient: LocalVendor) -> None:
    assert error_code(patient.http.post("/v1/estimate", content=b"no JSON")) == "invalid_api_key"
    headers = {"authorization": f"Bearer {patient.key()}"}
    large = b'{"images": 1}' + b" " * 5000
    assert (
        error_code(patient.http.post("/v1/estimate", content=large, headers=headers)) == "request_too_large"
    )
    document = patient.http.get("/openapi.json").json()
    body = document["paths"]["/v1/estimate"]["post"]["requestBody"]
    assert set(body["content"]["application/json"]["schema"]["properties"]) == {
        "images",
        "texts",
        "model",
        "batch",
    }


@pytest.mark.parametrize("url", ["/v1/usage?" + "a" * 9000, "/v1/usage?" + "a=1&" * 100, "/" + "x" * 9000])
def test_an_endless_url_is_refused_and_not_repeated(vendor: Vendor, url: str) -> None:
    answer = vendor.http.get(url)
    assert error_code(answer) == "invalid_request"
    assert len(answer.content) < 500


@pytest.mark.parametrize("url", ["/v1/models/%00", "/v1/usage?group_by=%00", "/none?%00"])
def test_a_url_with_the_character_nul_is_refused(vendor: Vendor, url: str) -> None:
    assert error_code(vendor.http.get(url)) == "invalid_request"


def test_no_answer_repeats_what_is_large(vendor: Vendor) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}"}
    long = "x" * 50_000
    for asked in (
        vendor.http.post("/embed", json={long: 1}, headers=headers),
        vendor.http.post("/embed", json={"inputs": [{"text": "a"}], "model": long}, headers=headers),
        vendor.http.post("/embed", content=b"{}", headers=headers | {"content-type": long}),
        vendor.http.post("/embed", files=[(long[:3000], (None, b"a"))], headers=headers),
        vendor.http.post("/embed", files=[("model", (None, long.encode()))], headers=headers),
    ):
        assert error_code(asked) in ("invalid_request", "unsupported_media_type")
        assert len(asked.content) < 1000


def test_what_is_sent_twice_is_refused(vendor: Vendor) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}"}
    for sent, param in (
        (b'{"inputs": [], "inputs": [{"text": "a"}]}', "inputs"),
        (b'{"inputs": [{"text": "a"}, {"text": "a", "te\\u0078t": "b"}]}', "inputs.1.text"),
    ):
        answer = vendor.http.post("/embed", content=sent, headers=headers)
        assert (error_code(answer), answer.json()["error"]["param"]) == ("invalid_request", param)


@pytest.mark.parametrize("escape", ["/", "\\/", "\\u002f"])
@pytest.mark.parametrize("size", [10, 900, 2000, 90_000])
def test_long_strings_are_what_they_say(vendor: Vendor, size: int, escape: str) -> None:
    """However long a string is, and however it is written, the same image is refused for the same reason."""
    image = ("iVBORw0KGgo" + "/" * size)[: size // 4 * 4]
    written = image.replace("/", escape)
    body = f'{{"on_error": "skip", "inputs": [{{"image": "{written}"}}, {{"text": "a"}}]}}'
    headers = {"authorization": f"Bearer {vendor.key()}"}
    answer = vendor.http.post("/embed", content=body.encode(), headers=headers)
    if len(body) > 200_000:
        assert error_code(answer) == "request_too_large"
        return
    assert answer.status_code == 200, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] in ("invalid_image", "unsupported_image_format")


@pytest.mark.parametrize(
    "escapes",
    [
        {"/": r"\/"},
        {"=": r"\u003d"},
        {"+": r"\u002B"},
        {"/": r"\u002f", "+": r"\u002b", "=": r"\u003D"},
        {"/": r"\u002F"},
    ],
)
def test_a_large_image_is_the_same_however_its_base64_is_written(
    vendor: Vendor, escapes: dict[str, str | int | None]
) -> None:
    image = large_image()
    written = image.translate(str.maketrans(escapes))
    headers = {"authorization": f"Bearer {vendor.key()}"}
    body = '{"inputs": [{"image": "%s"}]}'
    plain, escaped = (
        vendor.http.post("/embed", content=body % each, headers=headers) for each in (image, written)
    )
    assert plain.status_code == escaped.status_code == 200, escaped.text
    assert escaped.json()["data"] == plain.json()["data"]
    other = written.replace("\\", "\\\\", 1)  # a backslash, and the letters behind it
    assert error_code(vendor.http.post("/embed", content=body % other, headers=headers)) == "invalid_image"


def large_image() -> str:
    """The base64, with each of its letters, of an image that is longer than any text may be written."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    found = base64.b64encode(file.getvalue() + bytes(1 + -file.tell() % 3)).decode()
    assert set("+/=") < set(found)
    return found


def test_long_texts_are_the_same_texts(vendor: Vendor) -> None:
    """Around the length at which strings are put aside, and split anywhere between two blocks."""
    shape = Shape(frozenset(EmbedRequest.model_fields), frozenset(Input.model_fields), "inputs", 8)
    for text in ("é" * 511, "é" * 512, "é" * 513, '\\"' * 600, "\\\\" * 513, "\\ud83d\\ude00" * 200):
        body = b'{"inputs": [{"text": "%s"}, {"text": "b"}]}' % text.encode()
        expected = EmbedRequest.model_validate_json(body).inputs[0].text
        for cut in range(20, 60):
            parser = JsonBody(shape, 1000)
            for block in (body[:cut], body[cut : cut + 1], body[cut + 1 :]):
                parser.feed(block)
            read = parser.finish()
            first, second = EmbedRequest.model_validate_json(read.rest).inputs
            assert first.text is not None
            assert (read.long.take(first.text), second.text) == (expected, "b")


def take_apart(hostile: Hostile, body: bytes, block: int = 256 * 1024) -> tuple[int, float]:
    """Feed a parser until it refuses or is through: how much it took, and the longest step, CPU seconds."""
    parser: FormBody | JsonBody
    if "form" in hostile.content_type:
        parser = FormBody(hostile.content_type, FormShape(frozenset(EmbedOptions.model_fields), 256, 10_000))
    else:
        model = EmbedRequest if hostile.path == "/embed" else OpenAIRequest
        items = "inputs" if hostile.path == "/embed" else "input"
        parser = JsonBody(
            Shape(frozenset(model.model_fields), frozenset(Input.model_fields), items, 256), 10_000
        )
    taken, longest = 0, 0.0
    while taken < len(body):
        began = time.thread_time()
        try:
            parser.feed(body[taken : taken + block])
        except APIError:
            return taken, longest
        finally:
            longest = max(longest, time.thread_time() - began)
        taken += block
    return taken, longest


# Of the others nothing is wrong before their end: they are one long string, or sound.
REFUSED_AT_ONCE = sorted(
    set(BODIES)
    - {"escaped letters", "escaped quotes", "backslashes", "surrogates", "one wide letter", "a long key"}
    - {"a long model", "a string without an end", "images in JSON", "images in a form", "a long text"}
    - {"beginnings of boundaries"}
)


@pytest.mark.parametrize("name", sorted(BODIES))
def test_the_worst_bodies_are_refused_in_their_first_block_and_no_step_is_long(name: str) -> None:
    hostile = BODIES[name]
    taken, longest = take_apart(hostile, hostile.make(4 * MEBIBYTE))
    assert (taken == 0) == (name in REFUSED_AT_ONCE)
    assert holds(longest, 0.1, "s")
