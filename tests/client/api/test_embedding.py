"""`client.embed` lists every image that it could not embed."""

import hashlib
from contextlib import nullcontext
from pathlib import Path

import pytest

from client.api import embedding
from client.options.vendor import EmbedOptions
from client.runs.connection import Connection
from client.runs.embedding import Inputs
from client.vendors.query import Query
from tests.client.shop import Shop


def _image(name: str, content: bytes) -> Query:
    return Query("image", hashlib.sha256(content).hexdigest(), name, lambda: content)


@pytest.mark.parametrize("out", [None, "out.npy", "out.jsonl"])
def test_images_of_the_same_bytes_that_the_vendor_refuses_are_all_listed(
    out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [_image(name, b"bad, as only the vendor finds out") for name in ("a.png", "b.png")]
    inputs = Inputs([Query.text("a cat"), *bad], [])
    monkeypatch.setattr(embedding, "collect_inputs", lambda *_: inputs)
    monkeypatch.setattr(Connection, "teacher", lambda *_, **__: nullcontext(Shop(tmp_path).teacher()))
    found = embedding.embed(EmbedOptions(out=None if out is None else tmp_path / out))
    assert found.skipped == {"a.png": "bad", "b.png": "bad"}
    assert (found.embedded, found.queries_bought) == (1, 1)
