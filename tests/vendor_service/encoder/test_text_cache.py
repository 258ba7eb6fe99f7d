"""Texts that were encoded before: each account's own, within a bound, and billed all the same."""

import numpy as np

from tests.vendor_service.local_vendor import LocalVendor
from tests.vendor_service.run.test_metrics import Scrape
from vendor_service.encoder.engine import TextCache

ROW = np.arange(4, dtype=np.float32)


def test_an_account_finds_its_own_texts_only() -> None:
    cache = TextCache(10_000)
    cache.put("a", "cat", ROW)
    found = cache.get("a", "cat")
    assert found is not None
    assert np.array_equal(found, ROW)
    assert cache.get("b", "cat") is None
    assert cache.get("a", "dog") is None


def test_what_was_asked_longest_ago_is_forgotten_first() -> None:
    cache = TextCache(2_200)
    for each in ("one", "two", "three"):
        cache.put("a", each, ROW)
        cache.put("a", each, ROW)
    cache.get("a", "one")
    cache.put("a", "x" * 200, ROW)
    assert [cache.get("a", each) is None for each in ("one", "two", "three")] == [False, True, False]
    cache.put("a", "x" * 2_000, ROW)
    assert cache.get("a", "one") is None
    assert cache.get("a", "x" * 2_000) is None


def test_a_repeated_text_is_not_encoded_again_but_billed_again(vendor: LocalVendor) -> None:
    key = vendor.key()
    texts = [{"text": each} for each in ("twice", "once", "twice")]
    first = vendor.embed(key, *texts).json()
    before = Scrape(vendor)
    again = vendor.embed(key, *texts).json()
    after = Scrape(vendor)
    rows = [np.array(each["embedding"]) for each in first["data"]]
    assert np.array_equal(rows[0], rows[2])
    assert not np.allclose(rows[0], rows[1])
    assert again["data"] == first["data"]
    assert again["usage"] == first["usage"]
    assert vendor.account(key).queries_used == 6
    assert after("model_seconds_count", kind="text") == before("model_seconds_count", kind="text")
    assert after("text_cache_total", outcome="hit") - before("text_cache_total", outcome="hit") == 2
