"""Queries as a form, and answers as raw rows: what comes back is what was sent, or it is an error."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import AnswerRejected, FingerprintChanged, VendorError
from client.vendors.query import Query
from client.vendors.vendor import EmbedResult
from client.vendors.wire import check_card, embed_form, read_answer, read_embeddings
from shared.embeddings import EmbedResponse, Prices
from shared.encoding import RowDtype, to_base64, to_rows
from tests.client.cards import MODEL
from tests.client.forms import read_form

QUERIES = [Query.text("cat"), Query.text("dog"), Query("image", "0" * 64, "x.png", lambda: b"")]
ROWS = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)


def _rows(content: bytes | None = None, dtype: RowDtype = "float32", **changes: Any) -> httpx.Response:
    headers = {
        "content-type": "application/octet-stream",
        "x-embedding-id": "req_1",
        "x-embedding-shape": "2,2",
        "x-embedding-dtype": dtype,
        "x-model-fingerprint": "fp_1",
        "x-cost-micros": "120",
        "x-billed-queries": "2",
        "x-billed-images": "1",
        "x-billed-texts": "1",
        "x-skipped-inputs": "empty_input=1",
    }
    headers = {name: value for name, value in (headers | changes).items() if value is not None}
    request = httpx.Request("POST", "http://vendor/embed")
    content = to_rows(ROWS, dtype) if content is None else content
    return httpx.Response(200, headers=headers, content=content, request=request)


def _read(response: httpx.Response) -> EmbedResult:
    return read_answer(response, QUERIES, MODEL)


@given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20)), min_size=1, max_size=5))
def test_a_form_holds_exactly_what_was_asked(contents: list[bytes | str]) -> None:
    queries = [
        (Query.text(content), content.encode())
        if isinstance(content, str)
        else (Query("image", str(i), "x", lambda: b""), content)
        for i, content in enumerate(contents)
    ]
    form = embed_form(queries, "m")
    request = httpx.Request(
        "POST", "http://v/", content=form.body, headers={"content-type": form.content_type}
    )
    fields, found = read_form(request)
    assert fields == {"model": "m", "on_error": "skip"}
    assert found == [(query.kind, content) for query, content in queries]
    assert embed_form(queries, "m") == form


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_told_apart_from_what_was_skipped(dtype: RowDtype) -> None:
    answer = _read(_rows(dtype=dtype))
    assert answer.vectors.keys() == {QUERIES[0], QUERIES[2]}
    assert np.allclose(answer.vectors[QUERIES[2]], ROWS[1], atol=1e-3)
    assert answer.vectors[QUERIES[0]].dtype == np.float32
    assert answer.refused == {QUERIES[1]: "the vendor says: empty input"}
    assert (answer.request_id, answer.usage.cost_micros, answer.usage.images) == ("req_1", 120, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        {"content": b"short"},
        {"content": np.full((2, 2), np.nan, dtype=np.float32).tobytes()},
        {"x-embedding-shape": "2"},
        {"x-embedding-shape": "1,4"},
        {"x-embedding-dtype": "float64"},
        {"x-embedding-id": None},
        {"x-skipped-inputs": None},
        {"x-skipped-inputs": "empty_input=9"},
        {"x-skipped-inputs": "empty_input=one"},
        {"x-billed-queries": "3"},
        {"x-billed-queries": "many"},
        {"x-cost-micros": "-1"},
    ],
    ids=str,
)
def test_garbage_is_never_taken_for_rows(garbage: dict[str, Any]) -> None:
    with pytest.raises(VendorError):
        _read(_rows(**garbage))


def test_rows_of_another_model_are_never_taken_for_this_ones() -> None:
    response = _rows()
    response.headers["x-model-fingerprint"] = "fp_2"
    with pytest.raises(FingerprintChanged, match="fp_2"):
        _read(response)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"content": b"short"}, "makes no sense"),
        ({"content": np.full((2, 2), np.nan, dtype=np.float32).tobytes()}, "not finite"),
        ({"content": (ROWS * 1.02).tobytes()}, "length 1"),
        ({"content": np.full((2, 2), 1e38, dtype=np.float32).tobytes()}, "length 1"),
        ({"content": np.zeros((2, 2), dtype=np.float32).tobytes()}, "length 0"),
        ({"x-embedding-shape": "2,0_2"}, "no count"),
        ({"x-embedding-shape": "+2,2"}, "no count"),
        ({"x-embedding-shape": "2,2,2"}, "makes no sense"),
        ({"x-embedding-shape": "4,1"}, "makes no sense"),
        ({"x-skipped-inputs": "a=1; b=1"}, "twice"),
        ({"x-billed-queries": "3"}, "billed 1 and 1, 3 queries"),
        ({"x-billed-images": "2", "x-billed-texts": "0"}, "billed 2 and 0"),
        ({"x-cost-micros": "121"}, "at most 120 were agreed"),
        ({"x-cost-micros": "999999999999999"}, "at most 120 were agreed"),
    ],
    ids=str,
)
def test_what_is_billed_and_cannot_be_taken_says_what_the_vendor_did_and_keeps_the_bill(
    fault: dict[str, Any], said: str
) -> None:
    with pytest.raises(AnswerRejected, match=said) as caught:
        read_answer(_rows(**fault), QUERIES, MODEL, 120)
    assert caught.value.bill is not None
    assert caught.value.bill.request_id == "req_1"
    assert caught.value.unsure


def _answer(usage: dict[str, int]) -> EmbedResponse:
    """An answer to the first and the last of the queries, as it comes in JSON and in a line of a bulk job."""
    content = {
        "id": "req_1",
        "model": "m",
        "model_fingerprint": "fp_1",
        "dimensions": 2,
        "data": [
            {"index": index, "kind": QUERIES[index].kind, "embedding": to_base64(row)}
            for index, row in zip((0, 2), ROWS, strict=True)
        ],
        "errors": [{"index": 1, "code": "empty_input", "message": "empty"}],
        "usage": {"images": 1, "texts": 1, "billed_queries": 2, "cost_micros": 120} | usage,
    }
    return EmbedResponse.model_validate(content)


def _read_from_a_job(answer: EmbedResponse) -> EmbedResult:
    return read_embeddings(answer, QUERIES, MODEL)


def _read_as_json(answer: EmbedResponse) -> EmbedResult:
    request = httpx.Request("POST", "http://vendor/embed")
    return _read(httpx.Response(200, json=answer.model_dump(), request=request))


@pytest.mark.parametrize("read", [_read_from_a_job, _read_as_json])
@pytest.mark.parametrize(
    ("usage", "said"),
    [
        ({"images": 2}, "billed 2 and 1"),
        ({"texts": 2, "billed_queries": 3}, "billed 1 and 2, 3 queries"),
        ({"images": 10**6, "billed_queries": 10**6 + 1, "cost_micros": 10**8 + 20}, "billed 1000000 and 1"),
        ({"images": -1}, "billed -1 and 1"),
        ({"billed_queries": -2}, "-2 queries in all"),
        ({"cost_micros": -1}, "billed -1 micros"),
    ],
    ids=str,
)
def test_a_bill_of_other_queries_than_were_answered_or_below_zero_is_refused(
    read: Callable[[EmbedResponse], EmbedResult], usage: dict[str, int], said: str
) -> None:
    with pytest.raises(AnswerRejected, match=said) as caught:
        read(_answer(usage))
    assert caught.value.bill is not None
    assert caught.value.bill.request_id == "req_1"


def test_a_bill_of_what_was_answered_is_taken_from_a_job() -> None:
    answer = _read_from_a_job(_answer({}))
    assert answer.vectors.keys() == {QUERIES[0], QUERIES[2]}
    assert (answer.refused, answer.usage.billed_queries) == ({QUERIES[1]: "empty"}, 2)


@pytest.mark.parametrize("form", ["rows", "json"])
def test_only_what_was_paid_for_before_may_have_cost_more_than_is_to_be_charged_now(form: str) -> None:
    def read(*, replayed: bool) -> EmbedResult:
        if form == "rows":
            header: dict[str, Any] = {"idempotent-replayed": "true" if replayed else None}
            response = _rows(**header)
        else:
            content = _answer({}).model_copy(update={"replayed": replayed}).model_dump()
            response = httpx.Response(200, json=content, request=httpx.Request("POST", "http://vendor/embed"))
        return read_answer(response, QUERIES, MODEL, 119)

    assert read(replayed=True).usage.cost_micros == 120
    with pytest.raises(AnswerRejected, match="billed 120 micros, where at most 119 were agreed"):
        read(replayed=False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_half_precision_rounds_is_of_length_one(dtype: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if dtype == "float16":
        rounded = vectors.astype(np.float16).astype(np.float32)
    else:  # as it is cut off at its worst
        rounded = (vectors.view(np.uint32) & 0xFFFF0000).view(np.float32)
    model = MODEL.model_copy(update={"dimensions": 512})
    queries = [Query.text(str(number)) for number in range(len(vectors))]
    changes: dict[str, Any] = {
        "x-embedding-shape": "200,512",
        "x-skipped-inputs": None,
        "x-billed-queries": "200",
    }
    changes |= {"x-billed-images": "0", "x-billed-texts": "200"}
    answer = read_answer(_rows(rounded.tobytes(), **changes), queries, model)
    assert len(answer.vectors) == 200


@pytest.mark.parametrize(
    "claim",
    [
        {"dimensions": 0},
        {"dimensions": 10**9},
        {"tolerance": float("nan")},
        {"fingerprint": "fp\n1"},
        {"prices": Prices(image_micros=10**15, text_micros=0)},
    ],
    ids=str,
)
def test_a_card_that_cannot_be_meant_is_refused(claim: dict[str, Any]) -> None:
    check_card(MODEL, "http://vendor")
    with pytest.raises(VendorError, match="cannot be"):
        check_card(MODEL.model_copy(update=claim), "http://vendor")
