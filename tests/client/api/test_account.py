"""What is said of an account at a vendor that runs no bulk jobs, and without a cache."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from client.api.account import batches, cancel_batch, reconcile
from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer
from client.errors import NotFound, RequestRefused, UsageError
from client.options.vendor import VendorOptions
from client.purchase.lock import run_lock
from client.runs import connection
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.billing import Entry, EntryPage, entry_hash
from shared.embeddings import ModelCard, ModelList
from shared.kinds import Usage
from tests.client.cards import MODEL

OPTIONS = VendorOptions(vendor="http://vendor")


def _not_found(param: str | None = None) -> httpx.Response:
    said = {"code": "not_found", "type": "t", "message": "nothing here", "param": param}
    return httpx.Response(404, json={"error": {**said, "request_id": "req_1", "retryable": False}})


@pytest.fixture
def sell(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelCard, str | None], None]:
    """Let a vendor sell this model, and answer 404 to all else, about this parameter."""

    def begin(model: ModelCard, param: str | None) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/models":
                return httpx.Response(200, json=ModelList(data=[model]).model_dump(mode="json"))
            return _not_found(param)

        vendor = partial(VendorClient, transport=httpx.MockTransport(answer))
        monkeypatch.setattr(connection, "VendorClient", vendor)

    return begin


def test_a_vendor_without_bulk_jobs_is_named_as_such(sell: Callable[[ModelCard, str | None], None]) -> None:
    sell(MODEL, None)
    for ask in (batches, partial(cancel_batch, batch_id="batch_1")):
        with pytest.raises(RequestRefused, match=r"^http://vendor runs no bulk jobs\.$"):
            ask(OPTIONS)
    # One that runs them has its own words.
    sell(MODEL.model_copy(update={"batch_prices": MODEL.prices}), "batch_id")
    with pytest.raises(NotFound, match="nothing here"):
        cancel_batch(OPTIONS, "batch_1")


def _entry(batch: Batch, seq: int, before: str) -> Entry:
    entry = Entry(
        seq=seq, kind="charge", amount_micros=-20, images=0, texts=1, image_micros=100, text_micros=20,
        model="m", model_fingerprint=batch.fingerprint, key_id="tk_1", request_id=f"req_{batch.run_id}",
        corrects_seq=None, reason=None, created_at=datetime(2026, 11, 15, tzinfo=UTC),
        previous_hash=before, entry_hash="?",
    )  # fmt: skip
    return entry.model_copy(update={"entry_hash": entry_hash(entry)})


def test_what_is_bought_meanwhile_is_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, busy, late = (Batch(run, run, "fp_1", (Query.text(run),)) for run in ("a", "b", "c"))
    first = _entry(early, 1, "0" * 64)
    ledger = EntryPage(data=[first, _entry(busy, 2, first.entry_hash)], next_after=2)
    path = tmp_path / "cache.db"
    with EmbeddingCache(path) as cache:

        def store(batch: Batch) -> None:
            vectors = {query: np.full(2, 0.5, np.float32) for query in batch.queries}
            usage = Usage(images=0, texts=1, billed_queries=1, cost_micros=20)
            cache.commit(batch, vectors, usage, f"req_{batch.run_id}", Payer(None, "tk_1"))

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path != "/v1/ledger":
                return _not_found()
            if request.url.params["after"] == "0":
                return httpx.Response(200, content=ledger.model_dump_json())
            store(early)
            store(late)
            return httpx.Response(200, json={"data": [], "next_after": 2})

        vendor = partial(VendorClient, transport=httpx.MockTransport(answer))
        monkeypatch.setattr(connection, "VendorClient", vendor)
        for batch in (early, busy, late):
            cache.begin(batch, payer=Payer("http://vendor:80", "tk_1"))
        with run_lock(path, "b"):
            found = reconcile(OPTIONS.model_copy(update={"cache": path}))
        assert (found.differences, found.matched, found.in_hand, found.elsewhere.charges) == ([], 1, 1, 0)
        found = reconcile(OPTIONS.model_copy(update={"cache": path}))  # the run was killed
    assert ["never came" in each.problem for each in found.differences] == [False, True]
    assert found.in_hand == 0


def test_nothing_is_reconciled_with_a_cache_that_is_not_there(tmp_path: Path) -> None:
    cache = tmp_path / "typo" / "cache.db"
    with pytest.raises(UsageError, match=f"There is no cache {cache}"):
        reconcile(OPTIONS.model_copy(update={"cache": cache}))
    assert not list(tmp_path.iterdir())
