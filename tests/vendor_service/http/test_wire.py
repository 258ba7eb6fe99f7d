"""Forms and raw rows: the same queries and the same numbers as in JSON, and the same refusals."""

from typing import Any

import httpx
import numpy as np
import pytest

from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, from_rows, from_wire
from tests.vendor_service.local_vendor import Vendor, error_code, image_file, image_input
from vendor_service.errors import APIError
from vendor_service.http.sale import answer_form

CAT = {"text": "a photo of a cat"}
CAT_PART = ("text", (None, b"a photo of a cat"))
IMAGE_PART = ("image", ("red.png", image_file()))
_A_TEXT = b'content-disposition: form-data; name="text"\r\n\r\na cat'


def send_form(vendor: Vendor, api_key: str, *parts: Any, **headers: str) -> httpx.Response:
    headers["authorization"] = f"Bearer {api_key}"
    return vendor.http.post("/embed", files=list(parts), headers=headers)


def rows_of(answer: httpx.Response) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ROWS_MEDIA_TYPE
    rows, dimensions = map(int, answer.headers["x-embedding-shape"].split(","))
    dtype: RowDtype = "float16" if answer.headers["x-embedding-dtype"] == "float16" else "float32"
    return from_rows(answer.content, (rows, dimensions), dtype)


def test_raw_rows_are_the_numbers_of_the_json(vendor: Vendor) -> None:
    key = vendor.key()
    inputs = [CAT, image_input()]
    json = vendor.embed(key, *inputs).json()
    expected = np.stack([from_wire(each["embedding"], 256) for each in json["data"]])
    whole = vendor.embed(key, *inputs, headers={"accept": ROWS_MEDIA_TYPE})
    assert whole.headers["x-embedding-dtype"] == "float32"
    assert np.array_equal(rows_of(whole), expected)
    half = vendor.embed(key, *inputs, headers={"accept": f"{ROWS_MEDIA_TYPE};dtype=float16"})
    assert half.headers["x-embedding-dtype"] == "float16"
    assert np.array_equal(rows_of(half), expected.astype(np.float16).astype(np.float32))


def test_raw_rows_carry_the_bill_in_their_headers(vendor: Vendor) -> None:
    key = vendor.key(quota=5)
    headers = {"accept": ROWS_MEDIA_TYPE, "idempotency-key": "rows"}
    first, again = (vendor.embed(key, CAT, image_input(), headers=headers) for _ in range(2))
    assert first.headers["x-embedding-id"] == first.headers["x-request-id"]
    for answer in (first, again):
        told = {
            name: answer.headers[f"x-{name}"]
            for name in ("embedding-id", "cost-micros", "billed-queries", "billed-images", "billed-texts")
        }
        assert told == {
            "embedding-id": first.headers["x-request-id"],
            "cost-micros": "120",
            "billed-queries": "2",
            "billed-images": "1",
            "billed-texts": "1",
        }
        assert answer.headers["x-model-fingerprint"].startswith("fp_")
    assert again.headers["idempotent-replayed"] == "true"
    assert vendor.account(key).queries_used == 2


def test_raw_rows_tell_which_inputs_were_skipped_and_why(vendor: Vendor) -> None:
    bad, foreign = {"image": "%"}, image_input(b"text")
    headers = {"accept": ROWS_MEDIA_TYPE}
    answer = vendor.embed(vendor.key(), bad, CAT, foreign, bad, on_error="skip", headers=headers)
    assert rows_of(answer).shape == (1, 256)
    assert answer.headers["x-skipped-inputs"] == "invalid_image=0,3; unsupported_image_format=2"
    nothing = vendor.embed(vendor.key(), bad, on_error="skip", headers=headers)
    assert rows_of(nothing).shape == (0, 256)
    assert (nothing.headers["x-cost-micros"], nothing.headers["x-billed-queries"]) == ("0", "0")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "json"),
        ("application/*", "json"),
        ("text/html, application/json;q=0.1", "json"),
        ("application/octet-stream", "float32"),
        ("Application/Octet-Stream; dtype=float16", "float16"),
        ("application/octet-stream;q=0.5, application/json;q=0.4", "float32"),
        ("application/octet-stream;q=0.5, */*", "json"),
        ("application/octet-stream;dtype=float64, */*;q=0.1", "json"),
    ],
)
def test_the_form_is_the_callers_best_that_can_be_served(accept: str, form: str) -> None:
    assert answer_form(accept) == form


@pytest.mark.parametrize(
    "accept", ["image/png", "application/octet-stream;dtype=int8", "application/json;q=0", "*/*;q=high", ""]
)
def test_what_cannot_be_served_is_not_acceptable(accept: str) -> None:
    with pytest.raises(APIError) as refused:
        answer_form(accept)
    assert refused.value.code == "not_acceptable"


@pytest.mark.parametrize("separators", [",", ";", ";a,", "x"])
def test_an_accept_header_without_end_is_refused_before_it_is_parsed(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, separators: str
) -> None:
    endless = "application/json" + separators * (60_000 // len(separators))
    assert error_code(vendor.embed(vendor.key(), CAT, headers={"accept": endless})) == "not_acceptable"
    monkeypatch.setattr("vendor_service.http.sale.parse_options_header", lambda _: 1 / 0)
    with pytest.raises(APIError, match="up to 1,024 characters"):
        answer_form(endless)


def test_an_accept_header_may_be_as_long_as_the_limits_say() -> None:
    most = ", ".join(["text/html;q=0.5"] * 16 + ["application/json"])
    assert answer_form(most.ljust(1024)) == "json"
    for longer in (most.ljust(1025), f"{most},", f"{most};"):
        with pytest.raises(APIError, match="up to 1,024 characters") as refused:
            answer_form(longer)
        assert (refused.value.code, refused.value.param) == ("not_acceptable", "accept")


def test_a_form_asks_for_the_same_as_json(vendor: Vendor) -> None:
    key = vendor.key()
    answer = send_form(vendor, key, CAT_PART, IMAGE_PART, CAT_PART, ("model", (None, "icon-clip")))
    assert answer.status_code == 200, answer.text
    expected = vendor.embed(key, CAT, image_input(), CAT).json()
    assert [each["kind"] for each in answer.json()["data"]] == ["text", "image", "text"]
    for form, json in zip(answer.json()["data"], expected["data"], strict=True):
        assert np.allclose(form["embedding"], json["embedding"], atol=1e-5)
    assert answer.json()["usage"] == expected["usage"]


def test_the_fields_of_a_form_are_its_options(vendor: Vendor) -> None:
    key = vendor.key()
    options = [("encoding", (None, "base64")), ("on_error", (None, "skip"))]
    answer = send_form(vendor, key, ("image", ("x", b"text")), IMAGE_PART, *options).json()
    assert [each["index"] for each in answer["data"]] == [1]
    assert [each["code"] for each in answer["errors"]] == ["unsupported_image_format"]
    assert isinstance(answer["data"][0]["embedding"], str)


def test_a_form_sent_again_with_another_boundary_is_the_same_request(vendor: Vendor) -> None:
    key, once = vendor.key(), {"idempotency-key": "form"}
    answers = [send_form(vendor, key, CAT_PART, IMAGE_PART, **once) for _ in range(2)]
    assert answers[0].request.headers["content-type"] != answers[1].request.headers["content-type"]
    assert [each.json()["replayed"] for each in answers] == [False, True]
    other = send_form(vendor, key, CAT_PART, CAT_PART, **once)
    assert error_code(other) == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ([CAT_PART] * 9, "too_many_inputs", "inputs"),
        ([("image", ("empty.png", b""))], "empty_input", "inputs.0.image"),
        ([CAT_PART, ("image", ("cut.png", image_file()[:50]))], "invalid_image", "inputs.1.image"),
        ([("image", ("big.png", bytes(100_001)))], "image_too_large", "inputs.0.image"),
        ([("image", (None, b"no file"))], "invalid_request", "image"),
        ([("text", (None, b"\xff\xfe"))], "invalid_request", "text"),
        ([("text", (None, b"a cat" + b"\xff" * 5000))], "invalid_request", "text"),
        # Too long, and cut off within a character.
        ([("text", (None, ("a" + "\U0001f600" * 1200).encode()))], "invalid_request", "inputs.0.text"),
        ([("colour", (None, b"blue")), CAT_PART], "invalid_request", "colour"),
        ([("encoding", (None, b"hex")), CAT_PART], "invalid_request", "encoding"),
        ([("model", (None, b"a")), ("model", (None, b"b")), CAT_PART], "invalid_request", "model"),
        ([("model", (None, b"other")), CAT_PART], "model_not_found", "model"),
        ([("", (None, b"nameless"))], "invalid_request", None),
        ([("image", ("huge.png", bytes(300_000)))], "request_too_large", None),
    ],
)
def test_a_form_that_cannot_be_answered_is_refused_free_of_charge(
    vendor: Vendor, parts: list[Any], code: str, param: str | None
) -> None:
    key = vendor.key()
    answer = send_form(vendor, key, *parts)
    assert error_code(answer) == code
    assert answer.json()["error"]["param"] == param
    assert vendor.account(key).ledger_seq == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=", b"--x--"),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x--"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"garbage"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a: b\r\n" * 1000 + b"\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a: b\r\n" * 16 + _A_TEXT + b"\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\na: " + b"b" * 100_000 + b"\r\n\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="text"\r\n\r\ncut off',
        ),
    ],
)
def test_a_broken_form_is_an_invalid_request(vendor: Vendor, content_type: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}", "content-type": content_type}
    assert error_code(vendor.http.post("/embed", content=body, headers=headers)) == "invalid_request"
