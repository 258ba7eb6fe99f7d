"""What is said of an account at a vendor that runs no bulk jobs, and without a cache."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from client.api.account import batches, cancel_batch, reconcile
from client.api.options import VendorOptions
from client.buying.vendor_api import VendorClient
from client.errors import NotFound, RequestRefused, UsageError
from client.runs import connection
from shared.embeddings import ModelCard, ModelList
from tests.client.buying.cards import MODEL

OPTIONS = VendorOptions(vendor="http://vendor")


@pytest.fixture
def sell(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelCard, str | None], None]:
    """Let a vendor sell this model, and answer 404 to all else, about this parameter."""

    def begin(model: ModelCard, param: str | None) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/models":
                return httpx.Response(200, json=ModelList(data=[model]).model_dump(mode="json"))
            said = {"code": "not_found", "type": "t", "message": "nothing here", "param": param}
            return httpx.Response(404, json={"error": {**said, "request_id": "req_1", "retryable": False}})

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


def test_nothing_is_reconciled_with_a_cache_that_is_not_there(tmp_path: Path) -> None:
    cache = tmp_path / "typo" / "cache.db"
    with pytest.raises(UsageError, match=f"There is no cache {cache}"):
        reconcile(OPTIONS.model_copy(update={"cache": cache}))
    assert not list(tmp_path.iterdir())
