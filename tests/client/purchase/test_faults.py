"""What goes wrong in the middle of a purchase: nothing is paid twice, nothing that was paid for is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from client.cache.notes import FRESH_SECONDS, make_batch
from client.cache.receipts import LOST
from client.errors import (
    AnswerRejected,
    CacheError,
    ClientError,
    FingerprintChanged,
    KeyRefused,
    QuotaExhausted,
    VendorError,
    VendorUnreachable,
)
from client.purchase.buyer import Buyer
from client.purchase.result import PurchaseProgress
from client.vendors import transport
from client.vendors.teachers.tuition import VendorClient
from shared.embeddings import ModelCard
from shared.receipts import KEYS_PATH
from tests.client.cards import MODEL
from tests.client.shop import Shop
from tests.client.shop import refusal as _refusal
from tests.client.shop import texts as _texts

WANTED = 400


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def _disturb(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    disturbance: Callable[[httpx.Response], httpx.Response],
    *,
    after: int = 3,
    paid: bool = True,
) -> None:
    """From the answer after this many on, the disturbance takes its place; `paid` says if it is charged."""
    answer = shop.vendor.handle_request
    seen = threading.Semaphore(after)

    def disturbed(request: httpx.Request) -> httpx.Response:
        if request.url.path == KEYS_PATH or seen.acquire(blocking=False):
            return answer(request)
        return disturbance(answer(request) if paid else httpx.Response(200))

    monkeypatch.setattr(shop.vendor, "handle_request", disturbed)


def _cut(response: httpx.Response) -> httpx.Response:
    whole = response.content
    return httpx.Response(200, headers=response.headers, content=whole[: len(whole) // 2])


def _html(_: httpx.Response) -> httpx.Response:
    return httpx.Response(200, text="<html>Sign in to the wireless network</html>")


def _mislabelled(response: httpx.Response) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "application/octet-stream"}, content=response.content)


def _proxy(_: httpx.Response) -> httpx.Response:
    return httpx.Response(502, text="<html>Bad gateway</html>")


def _forbidding_proxy(_: httpx.Response) -> httpx.Response:
    return httpx.Response(403, text="<html>Blocked by policy</html>")


def _no_name(_: httpx.Response) -> httpx.Response:
    raise httpx.ConnectError("[Errno -2] Name or service not known")


def _lost(_: httpx.Response) -> httpx.Response:
    raise httpx.ReadError("connection reset")


def _other_model(response: httpx.Response) -> httpx.Response:
    return httpx.Response(200, json=response.json() | {"model_fingerprint": "fp_2"})


def _fewer(response: httpx.Response) -> httpx.Response:
    body = response.json()
    return httpx.Response(200, json=body | {"data": body["data"][1:]})


def _not_numbers(response: httpx.Response) -> httpx.Response:
    body = response.json()
    data = [each | {"embedding": "AADAfwAAwH8="} for each in body["data"]]  # NaN, twice
    return httpx.Response(200, json=body | {"data": data})


@pytest.mark.parametrize(
    ("disturbance", "expected"),
    [
        (_cut, VendorError),
        (_html, VendorError),
        (_mislabelled, VendorError),
        (_proxy, VendorError),
        (_forbidding_proxy, VendorError),
        (_no_name, VendorUnreachable),
        (_lost, VendorUnreachable),
        (_fewer, VendorError),
        (_not_numbers, VendorError),
    ],
)
def test_an_answer_that_is_lost_or_garbled_is_had_again_without_paying(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    disturbance: Callable[[httpx.Response], httpx.Response],
    expected: type[ClientError],
) -> None:
    with monkeypatch.context() as patch:
        _disturb(shop, patch, disturbance)
        with pytest.raises(expected):
            shop.teacher().buy(_texts(WANTED))
    assert 0 < len(shop.cache.known("fp_1", _texts(WANTED))) < shop.vendor.charged
    shop.teacher().buy(_texts(WANTED))
    assert shop.vendor.charged == shop.cache.spending("run").queries == WANTED
    assert not shop.cache.notes.of_run("run")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("key_expired", 401, KeyRefused),
        ("key_revoked", 403, KeyRefused),
        ("account_suspended", 403, KeyRefused),
        ("quota_exhausted", 402, QuotaExhausted),
        ("fingerprint_mismatch", 412, FingerprintChanged),
    ],
)
def test_what_ends_a_purchase_in_the_middle_leaves_what_was_bought_and_owes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, code: str, status: int, expected: type[ClientError]
) -> None:
    with monkeypatch.context() as patch:
        _disturb(shop, patch, lambda _: _refusal(status, code), paid=False)
        with pytest.raises(expected):
            shop.teacher().buy(_texts(WANTED))
    assert 0 < shop.vendor.charged == shop.cache.spending("run").queries < WANTED
    assert not shop.cache.notes.of_run("run")
    shop.teacher().buy(_texts(WANTED))
    assert shop.vendor.charged == WANTED


def test_vectors_of_another_model_are_never_stored_as_this_ones(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _disturb(shop, monkeypatch, _other_model)
    with pytest.raises(FingerprintChanged, match="fp_2"):
        shop.teacher().buy(_texts(WANTED))
    believed = [each for each in shop.cache.receipts() if each.fault is None]
    assert len(shop.cache.known("fp_1", _texts(WANTED))) == sum(each.queries for each in believed)
    billed = [each for each in shop.cache.receipts() if each.fault is not None]
    assert billed
    assert {each.fingerprint for each in billed} == {"fp_2"}
    assert [holding.fingerprint for holding in shop.cache.holdings()] == ["fp_1"]


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_a_run_does_not_wait_for_one_that_was_killed_with_a_wrong_clock(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("client.cache.notes.time.time", lambda: 1.8e9 + skew)
        shop.cache.begin(make_batch("killed", "fp_1", tuple(_texts(3))))
    monkeypatch.setattr("client.cache.notes.time.time", lambda: 1.8e9)
    assert shop.teacher().buy(_texts(3)).bought == 3


def test_a_vendor_with_a_wrong_clock_is_not_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dates that it gives are not compared with the clock here."""
    later = "Fri, 31 Dec 2049 23:59:59 GMT"
    answer = shop.vendor.handle_request
    refused: list[bool] = []

    def busy_once(request: httpx.Request) -> httpx.Response:
        if not refused:
            refused.append(True)
            return _refusal(503, "overloaded", **{"date": later, "retry-after": later})
        return answer(request)

    monkeypatch.setattr(shop.vendor, "handle_request", busy_once)
    started = time.monotonic()
    assert shop.teacher().buy(_texts(3)).bought == 3
    assert time.monotonic() - started < 30


def _busy() -> httpx.Response:
    return _refusal(429, "rate_limited")


def _not_there() -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("trouble", [_busy, _not_there])
def test_whenever_a_batch_is_sent_it_is_noted_as_sent_then(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[], httpx.Response]
) -> None:
    """Before each try more time goes by than a note lasts, as a `Retry-After` may have it."""
    now, left = 1.8e9, list[float]()
    monkeypatch.setattr("client.cache.notes.time.time", lambda: now)
    answer = shop.vendor.handle_request

    def late(request: httpx.Request) -> httpx.Response:
        nonlocal now
        if request.url.path == "/embed":
            left.extend(note.seconds_left for note in shop.cache.notes.of_run("run"))
        now += 300
        return trouble() if 0 < len(left) < 3 else answer(request)

    monkeypatch.setattr(shop.vendor, "handle_request", late)
    assert shop.teacher().buy(_texts(3)).bought == 3
    assert left == [FRESH_SECONDS] * 3


def test_a_disk_that_is_full_stops_the_run_before_it_pays_for_more(shop: Shop) -> None:
    shop.teacher().buy(_texts(64))
    (pages,) = shop.cache._file.connection.execute("PRAGMA page_count").fetchone()
    shop.cache._file.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CacheError, match="room on the disk"):
        shop.teacher().buy([*_texts(64), *_texts(5000, "good new")])
    in_flight = 16 * 32
    assert shop.vendor.charged <= shop.cache.spending("run").queries + in_flight
    shop.cache._file.connection.execute("PRAGMA max_page_count = 1000000")
    shop.teacher().buy([*_texts(64), *_texts(5000, "good new")])
    assert shop.vendor.charged == shop.cache.spending("run").queries == 5064


def test_a_cache_that_cannot_be_written_stops_the_run_before_it_pays(shop: Shop) -> None:
    shop.cache._file.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(CacheError, match="is it writable"):
        shop.teacher().buy(_texts(64))
    assert shop.vendor.charged == 0
    assert not shop.vendor.sizes


def _overcharge(response: httpx.Response) -> httpx.Response:
    body = response.json()
    return httpx.Response(200, json=body | {"usage": body["usage"] | {"cost_micros": 10**12}})


def _more_queries(response: httpx.Response) -> httpx.Response:
    usage = {"images": 0, "texts": 99, "billed_queries": 99, "cost_micros": 99 * 20}
    return httpx.Response(200, json=response.json() | {"usage": usage})


def _longer(response: httpx.Response) -> httpx.Response:
    body = response.json()
    data = [each | {"embedding": [6e30, 8e30]} for each in body["data"]]
    return httpx.Response(200, json=body | {"data": data})


def _wider(response: httpx.Response) -> httpx.Response:
    body = response.json()
    data = [each | {"embedding": [0.6, 0.8, 0.0]} for each in body["data"]]
    return httpx.Response(200, json=body | {"data": data, "dimensions": 3})


@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        (_overcharge, "billed 1000000000000 micros, where at most 60 were agreed"),
        (_more_queries, "billed 0 and 99"),
        (_longer, "length"),
        (_wider, "3 dimensions, not 2"),
        (_not_numbers, "not finite"),
    ],
)
def test_what_a_vendor_may_not_bill_or_answer_stops_the_run_and_its_bill_is_noted(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    disturbance: Callable[[httpx.Response], httpx.Response],
    said: str,
) -> None:
    with monkeypatch.context() as patch:
        _disturb(shop, patch, disturbance, after=0)
        with pytest.raises(AnswerRejected, match=said):
            shop.teacher().buy(_texts(3))
        with pytest.raises(AnswerRejected, match=said):  # as often as one likes: it is not paid for again
            shop.teacher().buy(_texts(3))
    assert not shop.cache.holdings()
    (receipt,) = shop.cache.receipts()
    assert receipt.fault is not None
    assert said.split(",")[0] in receipt.fault
    assert shop.cache.spending("run").queries == receipt.queries >= 3
    assert shop.vendor.charged == 3
    assert shop.teacher().buy(_texts(3)).bought == 3  # a vendor that answers well after all is believed
    assert shop.vendor.charged == 3


def _reject_the_first_of_two(shop: Shop, monkeypatch: pytest.MonkeyPatch, *, model: ModelCard = MODEL) -> str:
    """Have 32 of 64 texts billed and not taken; the key of that request."""
    with monkeypatch.context() as patch:
        patch.setattr("client.purchase.requests.LARGEST", 1)
        _disturb(shop, patch, _not_numbers, after=0)
        with pytest.raises(AnswerRejected):
            shop.teacher(64, model).buy(_texts(64))
    (key,) = shop.vendor.paid
    assert shop.cache.spending("run").queries == 32
    return key


def test_a_bill_of_what_was_not_taken_counts_once_when_the_answer_is_fetched(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reject_the_first_of_two(shop, monkeypatch)
    purchase = shop.teacher(64).buy(_texts(64))
    assert (purchase.bought, purchase.out_of_budget) == (64, False)
    assert shop.vendor.charged == shop.cache.spending("run").queries == 64


def test_a_bill_of_what_was_not_taken_counts_once_when_the_answer_is_another_models(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = MODEL.model_copy(update={"fingerprint": "fp_2"})
    _reject_the_first_of_two(shop, monkeypatch)
    monkeypatch.setattr(shop.client, "model", lambda *_, **__: MODEL)
    _disturb(shop, monkeypatch, _other_model, after=1)
    assert shop.teacher(64, other).buy(_texts(32)).bought == 32
    assert shop.vendor.charged == shop.cache.spending("run").queries == 64


def test_a_bill_of_what_was_not_taken_counts_once_when_the_answer_is_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.vendor.spent.add(_reject_the_first_of_two(shop, monkeypatch))
    purchase = shop.teacher(96).buy(_texts(64))
    assert (purchase.bought, purchase.lost, purchase.out_of_budget) == (64, 32, False)
    assert shop.vendor.charged == shop.cache.spending("run").queries == 96
    lost = [each for each in shop.cache.receipts() if each.request_id == LOST]
    assert [each.queries for each in lost] == [0]  # it explains no charge of another's


def test_a_bill_of_what_was_not_taken_counts_once_while_nobody_tells(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reject_the_first_of_two(shop, monkeypatch)
    with VendorClient("http://other", "tk_1", transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=96)
        assert teacher.budget.committed.queries == 32
        assert teacher.buy(_texts(64, "good of this one")).bought == 64


def test_what_was_deleted_and_is_answered_again_free_of_charge_is_not_told_as_bought(shop: Shop) -> None:
    shop.teacher().buy(_texts(64))
    shop.cache.prune("fp_1")
    progress: list[PurchaseProgress] = []
    purchase = shop.teacher().buy([*_texts(64), *_texts(10, "good new")], progress.append)
    assert shop.cache.known("fp_1", _texts(64)) == set(_texts(64))
    assert (purchase.bought, purchase.cost_micros) == (10, 200)
    assert (progress[-1].done, progress[-1].total) == (10, 10)
    assert shop.cache.spending("run").queries == shop.vendor.charged == 74


@pytest.mark.parametrize("noted", [False, True])
def test_what_was_deleted_and_is_answered_no_more_is_bought_anew_and_nothing_is_lost(
    shop: Shop, noted: bool
) -> None:
    """Its receipt says what was paid for it."""
    said: list[str] = []
    shop.teacher().buy([*_texts(3), *_texts(1, "bad")])
    shop.cache.prune("fp_1")
    shop.vendor.spent |= shop.vendor.paid.keys()
    if noted:  # it was asked for again, and the run was killed before it was told
        batch = make_batch("run", "fp_1", (*_texts(3), *_texts(1, "bad")))
        assert batch.idempotency_key in shop.vendor.paid
        shop.cache.begin(batch)
    teacher = Buyer(shop.client, shop.cache, model=MODEL, run_id="run", budget=7, say=said.append)
    purchase = teacher.buy([*_texts(3), *_texts(1, "bad")])
    assert (purchase.bought, purchase.lost, said) == (3, 0, [])
    assert shop.cache.spending("run").queries == shop.vendor.charged == 6


def test_what_a_killed_run_asked_for_once_more_and_is_answered_no_more_is_not_counted_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)
    Buyer(shop.client, shop.cache, model=MODEL, run_id="killed", budget=None).buy(_texts(3))
    shop.cache.prune("fp_1")
    shop.vendor.spent |= shop.vendor.paid.keys()
    shop.cache.begin(make_batch("killed", "fp_1", tuple(_texts(3))))
    assert shop.teacher().buy(_texts(3)).bought == 3
    assert (shop.cache.spending("killed").queries, shop.cache.notes.of_run("killed")) == (3, [])


def test_a_damaged_entry_is_bought_again_without_being_pruned(shop: Shop) -> None:
    shop.teacher().buy(_texts(3))
    shop.cache._file.connection.execute("UPDATE embeddings SET checksum = 0 WHERE id = 1")
    assert Buyer(shop.client, shop.cache, model=MODEL, run_id="again", budget=None).buy(_texts(3)).bought == 1
    assert shop.cache.verify() == 0


def test_what_a_living_run_has_sent_is_left_alone_however_long_it_takes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)
    texts = _texts(3)
    slow = threading.Event()
    go = threading.Event()

    def wait_once() -> None:
        if not slow.is_set():
            slow.set()
            go.wait(20)

    shop.vendor.before = wait_once
    first = threading.Thread(target=shop.teacher().buy, args=(texts,))
    first.start()
    assert slow.wait(20)
    other = Buyer(shop.client, shop.cache, model=MODEL, run_id="other", budget=None)
    second = threading.Thread(target=other.buy, args=(texts,))
    second.start()
    time.sleep(0.5)
    assert shop.vendor.charged == 0
    go.set()
    first.join()
    second.join()
    assert shop.vendor.charged == 3
