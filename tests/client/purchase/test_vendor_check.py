"""A fingerprint is only what a vendor says: what one sold is used with another's once both agree."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from client.cache.archive import export_embeddings, import_embeddings
from client.cache.cache import EmbeddingCache
from client.cache.origins import origin_of
from client.errors import AnswerRejected, BudgetExhausted, CacheError, QuotaExhausted
from client.purchase.budget import Budget
from client.purchase.buyer import Buyer
from client.purchase.vendor_check import CANARIES
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.encoding import to_rows
from shared.receipts import KEYS_PATH
from tests.client.cards import MODEL
from tests.client.forms import read_form
from tests.client.shop import refusal as _refusal

pytestmark = pytest.mark.usefixtures("hurry")

OLD = [Query.text(f"old {number}") for number in range(20)]
NEW = [Query.text(f"new {number}") for number in range(5)]


def _vector(content: bytes, model: str) -> np.ndarray:
    """A unit vector, and another one by another model."""
    angle = int.from_bytes(hashlib.sha256(model.encode() + content).digest()[:4], "big")
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


class Seller(httpx.BaseTransport):
    """Sells what its model says, under the fingerprint of another."""

    def __init__(self, model: str, most: int = 100, refusal: tuple[int, str] = (413, "")) -> None:
        self.model = model
        self.most, self.refusal = most, refusal  # how many it takes at once, and how it refuses more
        self.asked: list[str] = []
        self._paid: dict[str, str] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == KEYS_PATH:
            return _refusal(404, "not_found")  # it does not sign
        _, inputs = read_form(request)
        key = request.headers["idempotency-key"]
        if key not in self._paid and request.headers["x-max-cost-micros"] == "0":
            return _refusal(402, "max_cost_exceeded")
        if len(inputs) > self.most:
            return _refusal(*self.refusal)
        self._paid.setdefault(key, f"req_{len(self._paid)}_{self.model}")
        self.asked += [content.decode() for _, content in inputs]
        rows = np.stack([_vector(content, self.model) for _, content in inputs])
        headers = {
            "content-type": "application/octet-stream",
            "x-embedding-id": self._paid[key],
            "x-embedding-shape": f"{len(inputs)},2",
            "x-embedding-dtype": "float32",
            "x-model-fingerprint": "fp_1",
            "x-cost-micros": str(20 * len(inputs)),
            "x-billed-queries": str(len(inputs)),
            "x-billed-images": "0",
            "x-billed-texts": str(len(inputs)),
        }
        return httpx.Response(200, headers=headers, content=to_rows(rows, "float32"))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        yield cache


def _teacher(
    cache: EmbeddingCache, seller: Seller, url: str, budget: int | None = None, run: str = "run"
) -> Buyer:
    client = VendorClient(url, "tk_1", transport=seller)
    return Buyer(client, cache, model=MODEL, run_id=run, budget=budget)


def _first(cache: EmbeddingCache) -> None:
    """A first vendor sells the old queries."""
    _teacher(cache, Seller("true"), "http://first").buy(OLD)


def test_one_vendor_alone_is_asked_nothing_twice(cache: EmbeddingCache) -> None:
    _first(cache)
    again = Seller("true")
    assert _teacher(cache, again, "http://first:80/").buy([*OLD, *NEW]).bought == len(NEW)
    assert len(again.asked) == len(NEW)


def test_a_run_that_has_everything_asks_nobody_whoever_sells(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("false")
    assert _teacher(cache, second, "http://second").buy(OLD).bought == 0
    assert not second.asked


def test_a_second_vendor_is_asked_a_few_known_queries_and_then_believed(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("true")
    purchase = _teacher(cache, second, "http://second", budget=len(OLD) + len(NEW) + CANARIES).buy(
        [*OLD, *NEW]
    )
    assert (purchase.bought, purchase.out_of_budget) == (len(NEW), False)
    assert len(second.asked) == CANARIES + len(NEW)
    assert set(second.asked[:CANARIES]) <= {query.name for query in OLD}
    assert cache.spending("run").queries == len(OLD) + len(NEW) + CANARIES
    again = _teacher(cache, second, "http://second", run="again").buy([*OLD, Query.text("newer")])
    assert (len(second.asked), again.bought) == (CANARIES + len(NEW) + 1, 1)
    first = Seller("true")
    back = _teacher(cache, first, "http://first", run="back").buy([*NEW, Query.text("newest")])
    assert (len(first.asked), back.bought) == (1, 1)


def test_a_vendor_that_takes_fewer_at_once_is_compared_by_smaller_requests(cache: EmbeddingCache) -> None:
    _first(cache)
    small = Seller("true", most=1, refusal=(413, "request_too_large"))
    purchase = _teacher(cache, small, "http://second").buy([*OLD, *NEW])
    assert (len(small.asked), purchase.bought) == (CANARIES + len(NEW), len(NEW))


def test_a_quota_that_ends_at_the_comparison_is_told_as_such(cache: EmbeddingCache) -> None:
    _first(cache)
    poor = Seller("true", most=0, refusal=(402, "quota_exhausted"))
    with pytest.raises(QuotaExhausted):
        _teacher(cache, poor, "http://second").buy([*OLD, *NEW])
    assert not poor.asked


def test_a_vendor_that_only_says_that_it_sells_the_model_is_found_out_and_nothing_mixes(
    cache: EmbeddingCache,
) -> None:
    _teacher(cache, Seller("false"), "http://hostile").buy(OLD)
    honest = Seller("true")
    with pytest.raises(AnswerRejected, match=r"http://honest says .* --cache"):
        _teacher(cache, honest, "http://honest").buy([*OLD, *NEW])
    assert len(honest.asked) == CANARIES
    assert not cache.known("fp_1", NEW)
    found = cache.lookup("fp_1", OLD)
    assert all((found[query] == _vector(query.content(), "false")).all() for query in OLD)
    faults = [receipt for receipt in cache.receipts() if receipt.fault]
    assert sum(receipt.queries for receipt in faults) == CANARIES
    assert cache.prune("fp_1") == len(OLD)  # what its message says
    # What was billed and not taken comes back free of charge, and all else is bought.
    assert _teacher(cache, honest, "http://honest", run="anew").buy([*OLD, *NEW]).bought == 25 - CANARIES
    assert cache.known("fp_1", [*OLD, *NEW]) == {*OLD, *NEW}
    assert not any(receipt.fault for receipt in cache.receipts())


def test_a_budget_that_does_not_reach_to_a_comparison_buys_nothing(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("true")
    purchase = _teacher(cache, second, "http://second", budget=len(OLD)).buy([*OLD, *NEW])
    assert purchase.out_of_budget
    assert not second.asked
    purchase = _teacher(cache, second, "http://second", budget=len(OLD) + 1).buy([*OLD, *NEW])
    assert (len(second.asked), purchase.bought, purchase.out_of_budget) == (1, 0, True)


def test_what_is_not_used_together_is_not_compared_until_it_is(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("false")
    assert _teacher(cache, second, "http://second").buy(NEW).bought == len(NEW)
    assert len(second.asked) == len(NEW)
    with pytest.raises(AnswerRejected):  # both are in the cache, and a run would mix them
        _teacher(cache, second, "http://second").buy([*OLD, *NEW])


def test_what_a_run_has_already_is_compared_once_with_who_sells_the_rest(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("true")
    teacher = _teacher(cache, second, "http://second")
    for lot, compared in (([], 0), (NEW[:2], CANARIES), (NEW[2:], 0)):  # nothing before something is bought
        before = len(second.asked)
        bought = teacher.buy(lot, used=[*OLD, *NEW]).bought
        assert (bought, len(second.asked) - before) == (len(lot), len(lot) + compared)
    with pytest.raises(AnswerRejected):
        _teacher(cache, Seller("false"), "http://third", run="other").buy([Query.text("newer")], used=OLD)


def test_what_a_budget_does_not_reach_to_compare_is_not_used_together(cache: EmbeddingCache) -> None:
    _first(cache)
    second = Seller("false")
    _teacher(cache, second, "http://second", run="other").buy(NEW)
    purchase = _teacher(cache, second, "http://second", budget=len(OLD)).buy([*OLD, *NEW])
    assert (purchase.bought, purchase.uncompared, purchase.out_of_budget) == (0, True, True)
    assert len(second.asked) == len(NEW)
    with pytest.raises(BudgetExhausted, match="20 queries does not suffice to compare the vendor"):
        purchase.require_compared(Budget(len(OLD)))


@pytest.mark.parametrize(("model", "believed"), [("true", True), ("false", False)])
def test_an_imported_file_is_believed_once_the_vendor_agrees_with_it(
    cache: EmbeddingCache, tmp_path: Path, model: str, believed: bool
) -> None:
    with EmbeddingCache(tmp_path / "theirs.db") as theirs:
        _teacher(theirs, Seller(model), "http://first").buy(OLD)
        export_embeddings(theirs, tmp_path / "bought.safetensors")
    assert import_embeddings(cache, tmp_path / "bought.safetensors") == (20, 20)
    seller = Seller("true")
    teacher = _teacher(cache, seller, "http://vendor")
    if believed:
        assert teacher.buy([*OLD, *NEW]).bought == len(NEW)
        assert len(seller.asked) == CANARIES + len(NEW)
    else:
        with pytest.raises(AnswerRejected, match="does not sell"):
            teacher.buy([*OLD, *NEW])
        assert not cache.known("fp_1", NEW)


def test_a_vendor_of_other_dimensions_is_told_apart_from_what_is_there(cache: EmbeddingCache) -> None:
    _first(cache)
    wider = MODEL.model_copy(update={"dimensions": 3})
    with pytest.raises(CacheError, match="2 dimensions"):
        cache.rows("fp_1", OLD, wider.dimensions)


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert origin_of("HTTP://Vendor") == origin_of("http://vendor:80/") == "http://vendor:80"
    assert origin_of("https://vendor/v1") == "https://vendor:443"
    assert origin_of("https://vendor") != origin_of("http://vendor")
