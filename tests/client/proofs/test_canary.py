"""A canary's requests: as small as the vendor takes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from client.errors import RequestTooLarge, UsageError
from client.proofs.canary import Canary, CanaryResult
from client.vendors.query import Query
from shared.embeddings import ModelCard
from tests.client.cards import MODEL
from tests.client.shop import LIMITS, Shop
from tests.client.shop import images as _images
from tests.client.shop import texts as _texts


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def _with(**limits: int) -> ModelCard:
    return MODEL.model_copy(update={"limits": LIMITS.model_copy(update=limits)})


def _ask(shop: Shop, queries: Sequence[Query], model: ModelCard = MODEL) -> CanaryResult:
    """Buy these, and then ask all of them again."""
    shop.teacher().buy(queries)
    shop.vendor.sizes.clear()
    canary = Canary(shop.client, shop.cache, model)
    return canary.ask(canary.choose(queries, len(queries)))


@pytest.mark.parametrize(
    ("model", "too_large"),
    [(MODEL, 0), (_with(max_inputs=3), 0), (_with(max_request_bytes=10**6), 3)],
    ids=["bytes", "inputs", "halves"],
)
def test_a_canary_sends_no_more_at_once_than_the_vendor_takes(
    shop: Shop, tmp_path: Path, model: ModelCard, too_large: int
) -> None:
    """Eight images make thrice what a request may be, which the last vendor does not say."""
    queries = [*_images(tmp_path / "images", [3600] * 8), *_texts(5)]
    found = _ask(shop, queries, model)
    assert (found.asked, found.own, found.cost_micros, found.swapped) == (13, 13, 900, False)
    assert shop.vendor.too_large == too_large
    assert sum(shop.vendor.sizes) == 13
    assert max(shop.vendor.sizes) <= model.limits.max_inputs
    assert not shop.cache.notes.of_run()


def test_one_image_that_the_vendor_takes_no_more_is_an_error(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = _images(tmp_path / "images", [3600])
    with pytest.raises(UsageError, match=r"0\.png cannot be asked about again: larger than the 3000 bytes"):
        _ask(shop, queries, _with(max_image_bytes=3000))
    monkeypatch.setattr("tests.client.shop.LIMITS", _with(max_request_bytes=3000).limits)
    with pytest.raises(RequestTooLarge):
        _ask(shop, queries)
    assert not shop.cache.notes.of_run()
