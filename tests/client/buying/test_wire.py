"""Queries as a form, and answers as raw rows: what comes back is what was sent, or it is an error."""

from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.buying.protocols import Answer
from client.buying.queries import Query
from client.buying.wire import embed_form, read_answer
from client.errors import FingerprintChanged, VendorError
from shared.encoding import RowDtype, to_rows
from tests.client.buying.cards import MODEL
from tests.client.buying.forms import read_form

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


def _read(response: httpx.Response) -> Answer:
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
