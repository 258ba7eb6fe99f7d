"""Packing, budget and owed answers, against a scripted vendor that keeps books of its own."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cache import notes as pending
from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer, make_batch
from client.errors import ClientError, PriceRaised, QuotaExhausted, RunBusy, VendorError
from client.purchase import requests
from client.purchase.buyer import Buyer
from client.purchase.concurrency import START
from client.purchase.lock import is_locked, run_lock
from client.purchase.plan import Tranche
from client.purchase.requests import BATCH_SIZE
from client.purchase.settlement import Settlement
from client.vendors import transport
from client.vendors.query import Query, Spending
from client.vendors.teachers.tuition import VendorClient
from shared.embeddings import Prices
from shared.receipts import KEYS_PATH
from tests.client.cards import MODEL
from tests.client.shop import LIMITS, Shop
from tests.client.shop import images as _images
from tests.client.shop import refusal as _refusal
from tests.client.shop import texts as _texts
from tests.support.forking import CONTEXT
from tests.support.vendor_process import wait_until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noted counts as sent so long ago that no vendor can be answering it any more."""
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)


def _image(content: bytes, name: str) -> Query:
    return Query("image", hashlib.sha256(content).hexdigest(), name, lambda: content)


def _noted(cache: EmbeddingCache, run_id: str) -> list[Batch]:
    return [note.batch for note in cache.notes.of_run(run_id)]


def _fail() -> None:
    raise httpx.ReadError("cut")


@settings(max_examples=40)
@given(
    budget=st.integers(0, 70),
    bad=st.lists(st.booleans(), min_size=40, max_size=120),
    quota=st.none() | st.integers(0, 70),
)
def test_whatever_is_refused_neither_budget_nor_quota_is_exceeded_or_left_unused(
    tmp_path_factory: pytest.TempPathFactory, budget: int, bad: list[bool], quota: int | None
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"), quota)
    queries = [Query.text(f"{'bad' if each else 'good'} {i}") for i, each in enumerate(bad)]
    good = bad.count(False)
    try:
        purchase = shop.teacher(budget).buy(queries)
        assert purchase.bought == min(good, budget)
        assert purchase.out_of_budget is (good > budget) or budget == good
    except QuotaExhausted:
        assert quota is not None
        assert min(good, budget) > quota
    assert shop.vendor.charged == min(good, budget, good if quota is None else quota)
    assert shop.cache.spending("run").queries == shop.vendor.charged
    assert not shop.cache.notes.of_run("run")
    shop.close()


def test_batches_keep_to_the_limits_of_count_and_bytes(shop: Shop, tmp_path: Path) -> None:
    queries = [*_texts(70), *_images(tmp_path / "images", [3000] * 9), Query.text('"' * 900)]
    assert shop.teacher().buy(queries).bought == len(queries)
    assert max(shop.vendor.sizes) == BATCH_SIZE
    assert max(shop.vendor.bytes) <= LIMITS.max_request_bytes
    assert (
        len(shop.vendor.sizes) == 9
    )  # three of texts, five of images, and one of a text again: a batch is of one kind


def test_an_image_that_the_vendor_would_not_take_is_not_sent(shop: Shop, tmp_path: Path) -> None:
    small, large = _images(tmp_path / "images", [400, 4400])
    purchase = shop.teacher().buy([large, small])
    assert list(purchase.refused) == [large]
    assert purchase.bought == shop.vendor.charged == 1


def test_another_run_knows_what_was_refused_and_keeps_its_own_refusals(shop: Shop) -> None:
    teacher, (first, second) = shop.teacher(), (Query.text("bad 1"), Query.text("bad 2"))
    teacher.buy([first])
    other = teacher.for_run("other", budget=None)
    other.buy([second])
    assert (set(teacher.refused), set(other.refused)) == ({first}, {first, second})


def test_what_is_too_large_alone_costs_no_budget(shop: Shop, tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"max_image_bytes": 10**6})
    queries = [*_images(tmp_path / "images", [11_000, 400, 12_000, 800]), *_texts(9)]
    purchase = shop.teacher(11, MODEL.model_copy(update={"limits": limits})).buy(queries)
    assert purchase.refused.keys() == {queries[0], queries[2]}
    assert purchase.bought == shop.vendor.charged == 11
    assert not shop.cache.notes.of_run("run")


def test_what_is_in_flight_when_the_quota_ends_is_kept(shop: Shop) -> None:
    shop.vendor.quota = 3 * BATCH_SIZE
    shop.vendor.after = lambda: time.sleep(0.05)
    with pytest.raises(QuotaExhausted):
        shop.teacher().buy(_texts(300))
    assert shop.cache.spending("run").queries == shop.vendor.charged == 3 * BATCH_SIZE


def test_answers_that_were_lost_are_owed_and_count_against_the_budget(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    shop.vendor.after = _fail
    with pytest.raises(VendorError):
        shop.teacher(64).buy(_texts(64))
    assert shop.vendor.charged > 0
    assert shop.cache.spending("run").queries == 0
    shop.vendor.after = lambda: None
    purchase = shop.teacher(64).buy(_texts(64, "good new"))
    assert shop.vendor.charged == 64
    assert purchase.out_of_budget
    assert shop.cache.spending("run").queries == 64


@pytest.mark.usefixtures("long_ago")
def test_a_batch_that_was_noted_and_never_charged_costs_nothing_and_binds_no_budget(shop: Shop) -> None:
    shop.cache.begin(make_batch("run", "fp_1", tuple(_texts(32, "good unwanted"))))
    assert shop.teacher(10).buy(_texts(32)).out_of_budget
    assert shop.vendor.charged == 10
    assert not shop.cache.notes.of_run("run")
    assert shop.teacher(32).buy(_texts(32)).bought == 22


def test_an_owed_batch_that_is_still_wanted_keeps_its_key(shop: Shop) -> None:
    """The vendor may be answering the first request only now; under another key it would charge both."""
    batch = make_batch("run", "fp_1", tuple(_texts(20)))
    shop.cache.begin(batch)
    assert shop.teacher().buy([*reversed(_texts(90))]).bought == 90
    assert shop.vendor.paid[batch.idempotency_key] == 20
    assert shop.vendor.charged == 90


def test_a_batch_that_may_still_be_charged_counts_though_it_is_not_wanted(shop: Shop) -> None:
    shop.cache.begin(make_batch("run", "fp_1", tuple(_texts(5, "good unwanted"))))
    assert shop.teacher(12).buy(_texts(32)).out_of_budget
    assert shop.vendor.charged == 7


@pytest.mark.usefixtures("long_ago")
def test_batches_that_were_charged_come_before_those_that_were_not(shop: Shop) -> None:
    batches = [make_batch("run", "fp_1", tuple(_texts(10, f"good {n}"))) for n in range(6)]
    for n, batch in enumerate(batches):
        shop.cache.begin(batch)
        if n % 2:
            shop.vendor.paid[batch.idempotency_key] = 10
    wanted = [query for batch in batches for query in batch.queries]
    assert shop.teacher(35).buy(wanted).out_of_budget
    assert shop.vendor.charged == shop.cache.spending("run").queries == 35
    assert not shop.cache.notes.of_run("run")


def test_an_owed_batch_whose_queries_are_bought_by_now_is_only_asked_after(shop: Shop) -> None:
    Buyer(shop.client, shop.cache, model=MODEL, run_id="other", budget=None).buy(_texts(20))
    shop.cache.begin(make_batch("run", "fp_1", tuple(_texts(10))))
    assert shop.teacher(20).buy(_texts(20)).bought == 0
    assert shop.vendor.charged == 20
    assert not shop.cache.notes.of_run("run")


def test_an_owed_batch_that_was_charged_is_had_for_nothing_whatever_the_budget(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    shop.vendor.after = _fail
    with pytest.raises(VendorError):
        shop.teacher(32).buy(_texts(32))
    shop.vendor.after = lambda: None
    assert shop.teacher(0).buy(_texts(32)).bought == 32
    assert shop.cache.spending("run").queries == shop.vendor.charged == 32


def test_an_owed_batch_is_found_again_where_the_folder_has_moved(shop: Shop, tmp_path: Path) -> None:
    before = _images(tmp_path / "before", [400] * 3)
    batch = make_batch("run", "fp_1", tuple(before))
    shop.cache.begin(batch)
    shop.vendor.paid[batch.idempotency_key] = 3
    (tmp_path / "before").rename(tmp_path / "after")
    after = [Query.image_file(tmp_path / "after" / Path(query.name).name) for query in before]
    assert shop.teacher().buy(after).bought == 3
    assert list(shop.vendor.paid) == [batch.idempotency_key]
    assert not shop.cache.notes.of_run("run")


@pytest.mark.usefixtures("long_ago")
def test_an_owed_batch_is_found_again_from_another_folder(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were named from the folder of that time, and not all of them are asked about now."""
    _images(tmp_path / "images", [400] * 3)
    monkeypatch.chdir(tmp_path)
    named = [Path("images") / f"{number}.png" for number in range(3)]
    batch = make_batch("run", "fp_1", tuple(map(Query.image_file, named)))
    shop.cache.begin(batch)
    shop.vendor.paid[batch.idempotency_key] = 3
    monkeypatch.chdir("images")
    assert shop.teacher().buy([Query.image_file(tmp_path / named[0])]).bought == 3
    assert list(shop.vendor.paid) == [batch.idempotency_key]
    assert not shop.cache.notes.of_run("run")


def test_an_image_that_is_no_file_is_noted_although_the_folder_is_gone(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server may find it whose release was deleted while it runs."""
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    batch = make_batch("run", "fp_1", (_image(b"sent", "an image"),))
    shop.cache.begin(batch)
    assert _noted(shop.cache, "run") == [batch]


def test_an_owed_batch_whose_file_has_changed_stays_owed_and_the_others_are_bought(
    shop: Shop, tmp_path: Path
) -> None:
    queries = _images(tmp_path / "images", [400] * 3)
    shop.cache.begin(make_batch("run", "fp_1", tuple(queries)))
    Path(queries[0].name).write_bytes(b"something else")
    purchase = shop.teacher(5).buy(queries)
    assert (purchase.bought, list(purchase.refused)) == (2, [queries[0]])
    assert len(shop.cache.notes.of_run("run")) == 1


def test_an_owed_batch_whose_file_is_gone_counts_as_lost_once_its_answer_is_not_to_be_had(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = _images(tmp_path / "images", [400] * 3)
    shop.cache.begin(make_batch("run", "fp_1", tuple(gone)))
    Path(gone[0].name).unlink()
    monkeypatch.setattr("client.cache.notes._REPLAY_SECONDS", -1)
    purchase = shop.teacher(5).buy(_texts(3))
    assert (purchase.bought, purchase.lost, purchase.out_of_budget) == (2, 3, True)
    assert shop.cache.notes.of_run("run") == []
    assert shop.cache.spending("run").queries == 5


@pytest.mark.usefixtures("long_ago")
def test_a_batch_of_a_former_model_counts_only_if_it_was_charged(shop: Shop) -> None:
    charged, noted = (
        make_batch("run", "fp_0", tuple(_texts(3, word))) for word in ("good old", "good older")
    )
    for batch in (charged, noted):
        shop.cache.begin(batch)
    shop.vendor.paid[charged.idempotency_key] = 3
    shop.vendor.former.add(charged.idempotency_key)
    assert shop.teacher(8).buy(_texts(9)).bought == 5
    assert _noted(shop.cache, "run") == [charged]


def test_what_another_run_buys_meanwhile_is_not_bought_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.purchase.requests.LARGEST", 1)  # so that nothing else is in flight
    other = Buyer(shop.client, shop.cache, model=MODEL, run_id="other", budget=None)
    texts = _texts(40 * BATCH_SIZE)
    first = threading.Event()

    def let_the_other_run_pass() -> None:
        if not first.is_set():
            first.set()
            other.buy(texts[20 * BATCH_SIZE :])

    shop.vendor.before = let_the_other_run_pass
    purchase = shop.teacher().buy(texts)
    assert shop.vendor.charged == len(texts)
    assert purchase.bought == 20 * BATCH_SIZE


def test_runs_that_buy_the_same_at_the_same_time_pay_once_between_them(shop: Shop, tmp_path: Path) -> None:
    shop.vendor.after = lambda: time.sleep(0.02)
    texts = _texts(20 * BATCH_SIZE)

    def buy(run: str) -> int:
        with EmbeddingCache(tmp_path / "cache.db") as cache:
            wanted = random.Random(run).sample(texts, len(texts))
            teacher = Buyer(shop.client, cache, model=MODEL, run_id=run, budget=None)
            bought = teacher.buy(wanted).bought
            assert teacher.lookup(texts)[1].all()
            return bought

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(buy, "abc")) == len(texts)
    assert shop.vendor.charged == len(texts)


def test_what_another_process_buys_for_the_run_before_it_has_its_turn_counts_in_the_budget(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover, others = Settlement.recover, iter([_texts(20, "good other")])

    def meanwhile(self: Settlement, *given: Any, **named: Any) -> None:
        for queries in others:
            shop.teacher(30).buy(queries)
        recover(self, *given, **named)

    monkeypatch.setattr(Settlement, "recover", meanwhile)
    purchase = shop.teacher(30).buy(_texts(30))
    assert (purchase.bought, purchase.out_of_budget, shop.vendor.charged) == (10, True, 30)


def test_what_a_killed_run_was_buying_is_bought_in_the_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.cache.begin(make_batch("killed", "fp_1", tuple(_texts(3))))
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.5)
    assert shop.teacher().buy(_texts(100)).bought == 100
    # The vendor had not charged it, and cannot be answering it.
    assert not shop.cache.notes.of_run("killed")


@pytest.mark.parametrize("charged", [True, False])
def test_what_a_run_had_paid_for_that_is_killed_meanwhile_is_not_paid_for_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, charged: bool
) -> None:
    texts = _texts(100)
    batch = make_batch("other", "fp_1", tuple(texts[:3]))
    shop.cache.begin(batch)
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.5)
    with ThreadPoolExecutor(1) as pool:
        with run_lock(shop.cache.path, "other"):  # it is alive, and its request in flight
            purchase = pool.submit(shop.teacher().buy, texts)
            wait_until(lambda: shop.vendor.charged == 97)
            shop.vendor.paid |= {batch.idempotency_key: 3} if charged else {}
        assert purchase.result(timeout=20).bought == (97 if charged else 100)
    assert shop.vendor.charged == 100
    assert shop.cache.known("fp_1", texts) == set(texts)


def test_what_another_run_is_buying_is_bought_in_the_end_from_files_of_our_own(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note has no more than a file's name, and an image may be sent as something else than its bytes."""
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.5)
    shop.cache.begin(make_batch("killed", "fp_1", (_image(b"as it is sent", "images/a.gif"),)))
    purchase = shop.teacher().buy([_image(b"as it is sent", "images/a.gif"), *_texts(3)])
    assert (purchase.bought, purchase.refused) == (4, {})


def test_images_that_a_killed_run_had_paid_for_and_this_one_does_not_want_are_sent_as_they_were(
    tmp_path: Path,
) -> None:
    sent = {"ours.png": b"ours", "theirs.gif": b"theirs, as it was sent"}
    ours, theirs = (_image(content, name) for name, content in sent.items())
    shop = Shop(tmp_path, content_of=lambda path, _: sent[Path(path).name])
    batch = make_batch("killed", "fp_1", (ours, theirs))
    shop.cache.begin(batch)
    shop.vendor.paid[batch.idempotency_key] = 2
    assert shop.teacher().buy([ours]).bought == 0
    assert shop.cache.known("fp_1", [ours, theirs]) == {ours, theirs}
    assert shop.vendor.charged == 2
    shop.close()


def test_what_nobody_can_ask_after_is_bought_again_with_a_word(
    shop: Shop, long_ago: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, gone = _image(b"ours", "ours.png"), _image(b"gone", "gone.png")
    shop.cache.begin(make_batch("killed", "fp_1", (ours, gone)))
    teacher = Buyer(shop.client, shop.cache, model=MODEL, run_id="run", budget=None, say=print)
    assert teacher.buy([ours]).bought == 1
    assert "bought 1 of these queries. They may be paid for" in capsys.readouterr().out
    assert teacher.buy([ours]).bought == 0


def test_a_killed_runs_batch_of_which_the_vendor_does_not_tell_is_left_out(
    shop: Shop, long_ago: None
) -> None:
    texts = _texts(100)
    batch = make_batch("killed", "fp_1", tuple(texts[:3]))
    shop.cache.begin(batch)
    with ThreadPoolExecutor(1) as pool:
        with run_lock(shop.cache.path, "killed"):
            purchase = pool.submit(shop.teacher().buy, texts)
            wait_until(lambda: shop.vendor.charged == 97)
            shop.vendor.former.add(batch.idempotency_key)
        with pytest.raises(VendorError, match="3 queries were sent before and never answered"):
            purchase.result(timeout=20)
    assert shop.vendor.charged == 97


@pytest.mark.parametrize(
    ("url", "key", "stays"),
    [
        ("http://other", "tk_a_secret", True),
        ("http://vendor", "tk_b_secret", True),
        ("http://vendor", "tk_a_secret", False),
    ],
)
@pytest.mark.parametrize("is_spent", [True, False])
def test_a_killed_runs_note_goes_only_if_its_own_vendor_and_account_tell_of_it(
    shop: Shop, long_ago: None, url: str, key: str, stays: bool, is_spent: bool
) -> None:
    batch, texts = make_batch("killed", "fp_1", tuple(_texts(3))), _texts(10)
    shop.cache.begin(batch, payer=Payer("http://vendor:80", "a"))
    shop.vendor.spent |= {batch.idempotency_key} if is_spent else set()
    with VendorClient(url, key, transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=None)
        assert teacher.buy(texts).bought == 10  # elsewhere, nothing is known of what was paid
    assert _noted(shop.cache, "killed") == ([batch] if stays else [])
    assert shop.cache.spending("killed").queries == (3 if is_spent and not stays else 0)


@pytest.mark.parametrize(
    ("url", "key", "is_told"),
    [
        ("http://vendor", "tk_a_secret", True),
        ("http://other", "tk_a_secret", False),
        ("http://vendor", "tk_b_secret", False),
    ],
)
def test_an_own_note_counts_as_paid_where_another_vendor_or_account_does_not_know_of_it(
    shop: Shop, long_ago: None, url: str, key: str, is_told: bool
) -> None:
    texts, dear, said = _texts(100), 10_000, list[str]()
    prices = Prices(image_micros=0, text_micros=dear // 4)
    charged, owed = (make_batch("run", "fp_1", tuple(queries)) for queries in (texts[:5], texts[5:9]))
    for batch in (charged, owed):
        shop.cache.begin(batch, payer=Payer("http://vendor:80", "a"), prices=prices)
    shop.vendor.paid[charged.idempotency_key] = 5  # whoever tells of a charge is believed
    with VendorClient(url, key, transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=30, say=said.append)
        assert teacher.buy(texts).bought == (30 if is_told else 26)
        assert ("4 queries of the budget are set aside" in " ".join(said)) == (not is_told)
        wanted = Tranche("texts", texts)
        assert (teacher.plan([wanted]).budget_left, teacher.plan([wanted]).to_buy) == (0, ())
        assert shop.cache.known("fp_1", owed.queries) == set(owed.queries)
        poor = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=None, max_spend_micros=dear)
        assert poor.buy(texts).out_of_budget == (not is_told)
    assert _noted(shop.cache, "run") == ([] if is_told else [owed])
    shop.vendor.paid[owed.idempotency_key] = 4
    assert shop.teacher().buy(texts).bought == (0 if is_told else 4 + 74)
    assert not shop.cache.notes.of_run("run")


@pytest.mark.parametrize(("url", "key"), [("http://other", "tk_a_secret"), ("http://vendor", "tk_b_secret")])
def test_an_own_note_stays_where_another_vendor_or_account_has_spent_its_key(
    shop: Shop, long_ago: None, url: str, key: str
) -> None:
    batch = make_batch("run", "fp_1", tuple(_texts(5)))
    shop.cache.begin(batch, payer=Payer("http://vendor:80", "a"))
    shop.vendor.spent.add(batch.idempotency_key)
    with VendorClient(url, key, transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=9)
        purchase = teacher.buy(_texts(5))
        assert (purchase.bought, purchase.lost, purchase.out_of_budget) == (4, 0, True)
    assert _noted(shop.cache, "run") == [batch]
    shop.vendor.spent.clear()
    shop.vendor.paid[batch.idempotency_key] = 5
    with VendorClient("http://vendor", "tk_a_secret", transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=9)
        assert teacher.buy(_texts(5)).bought == 5  # its own vendor and account are asked after all
    assert not shop.cache.notes.of_run("run")
    assert shop.cache.spending("run").queries == shop.vendor.charged == 9


def test_a_note_of_another_vendor_is_not_shown_to_this_one_unless_it_asks_the_same(
    shop: Shop, long_ago: None
) -> None:
    batch = make_batch("run", "fp_1", tuple(_texts(5)))
    shop.cache.begin(batch, payer=Payer("http://other:80", "a"))
    with VendorClient("http://vendor", "tk_a_secret", transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=30)
        assert teacher.buy(_texts(40, "good of this one")).bought == 25
    assert sum(shop.vendor.sizes) == 25
    assert _noted(shop.cache, "run") == [batch]


def test_what_another_key_may_still_be_charged_for_is_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch("run", "fp_1", tuple(_texts(5)))
    shop.cache.begin(batch, payer=Payer("http://vendor:80", "a"))

    def say(note: str) -> None:
        assert note.startswith("Waiting")
        shop.vendor.paid[batch.idempotency_key] = 5  # the first request is charged after all

    monkeypatch.setattr(pending, "FRESH_SECONDS", 0.5)
    with VendorClient("http://vendor", "tk_b_secret", transport=shop.vendor) as client:
        teacher = Buyer(client, shop.cache, model=MODEL, run_id="run", budget=None, say=say)
        assert teacher.buy(_texts(5)).bought == 5
    assert shop.vendor.charged == 5


def _buy_in_a_process(folder: Path, outcome: "Queue[str]") -> None:
    shop = Shop(folder)
    try:
        shop.teacher().buy(_texts(3))
    except ClientError as error:
        outcome.put(str(error))
    else:
        outcome.put("bought")
    shop.close()


def test_what_a_killed_run_had_paid_for_is_not_paid_for_again_by_another(shop: Shop) -> None:
    texts = _texts(100)
    paid, unpaid, unwanted = (
        make_batch("killed", "fp_1", tuple(queries))
        for queries in (texts[:32], texts[32:40], _texts(9, "good old"))
    )
    for batch in (paid, unpaid, unwanted):
        shop.cache.begin(batch)
    shop.vendor.paid |= {paid.idempotency_key: 32, unwanted.idempotency_key: 9}
    with run_lock(shop.cache.path, "killed"):  # as long as it lives, it is left alone
        shop.settlement(texts).recover(texts)
    assert not shop.vendor.sizes
    shop.settlement(texts).recover(texts)
    assert shop.cache.known("fp_1", texts) == set(texts[:32])
    assert (shop.cache.spending("killed").queries, shop.cache.spending("run").queries) == (32, 0)
    assert {batch.idempotency_key for batch in _noted(shop.cache, "killed")} == {
        unpaid.idempotency_key,
        unwanted.idempotency_key,
    }
    assert shop.teacher(60).buy([*texts[:32], *texts[40:]]).bought == 60
    assert shop.vendor.charged == 32 + 9 + 60


def test_threads_do_not_buy_for_one_run_at_once_and_one_that_ends_frees_nobody_else(tmp_path: Path) -> None:
    cache = tmp_path / "cache.db"
    with run_lock(cache, "run"):
        with run_lock(cache, "other"):
            pass
        with pytest.raises(RunBusy), run_lock(cache, "run"):
            raise AssertionError
        outcome: Queue[str] = CONTEXT.Queue()
        process = CONTEXT.Process(target=_buy_in_a_process, args=(tmp_path, outcome))
        process.start()
        assert "Another process" in outcome.get(timeout=60)
        process.join()


def test_two_processes_do_not_buy_for_one_run_at_once(shop: Shop, tmp_path: Path) -> None:
    outcome: Queue[str] = CONTEXT.Queue()
    for claimed in (True, False):
        with run_lock(shop.cache.path, "run") if claimed else nullcontext():
            process = CONTEXT.Process(target=_buy_in_a_process, args=(tmp_path, outcome))
            process.start()
            assert ("Another process" in outcome.get(timeout=60)) is claimed
            process.join()


@pytest.mark.parametrize("asks", [True, False])
def test_a_run_waits_for_whoever_only_looks_at_it_and_is_not_busy(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    """Two runs were killed and are restarted at the same moment, and one asks after the other's notes."""
    batch, texts = make_batch("killed", "fp_1", tuple(_texts(3))), _texts(3)
    shop.cache.begin(batch)
    shop.vendor.paid[batch.idempotency_key] = 3
    killed, looks = shop.teacher().for_run("killed", budget=None), threading.Event()
    locks = shop.cache.path.with_name("cache.db.locks")

    def restart() -> int:
        assert looks.wait(20)
        return killed.buy(texts).bought

    with ThreadPoolExecutor(1) as pool:
        restarted = pool.submit(restart)

        class Lingering(FileLock):
            def release(self, force: bool = False) -> None:
                if not looks.is_set():  # until the run has locked a second file, or has ended
                    looks.set()
                    wait_until(lambda: restarted.done() or len(list(locks.iterdir())) == 2, 20)
                super().release(force)

        monkeypatch.setattr("client.purchase.lock.FileLock", Lingering)
        if asks:
            assert shop.teacher().buy(texts).bought == 0
        else:
            assert not is_locked(shop.cache.path, "killed")
        assert restarted.result(timeout=20) == (0 if asks else 3)
    assert shop.vendor.charged == 3


def test_the_price_is_a_cap(shop: Shop) -> None:
    cheap = MODEL.model_copy(update={"prices": Prices(image_micros=100, text_micros=19)})
    with pytest.raises(PriceRaised, match="price"):
        shop.teacher(model=cheap).buy(_texts(40))
    assert shop.vendor.charged == 0
    assert not shop.cache.notes.of_run("run")


def test_what_is_charged_late_at_the_price_of_its_time_is_taken_though_prices_fell(shop: Shop) -> None:
    """It was noted at 20 micros a text. As it is sent once more, for half of that, it is charged."""
    batch, asked = make_batch("run", "fp_1", tuple(_texts(5))), list[int]()
    shop.cache.begin(batch, prices=MODEL.prices)

    def charge_late() -> None:
        asked.append(len(asked))
        if len(asked) == 2:
            shop.vendor.paid[batch.idempotency_key] = 5

    shop.vendor.before = charge_late
    cheap = MODEL.model_copy(update={"prices": Prices(image_micros=100, text_micros=10)})
    purchase = shop.teacher(model=cheap).buy(_texts(5))
    assert (purchase.bought, purchase.cost_micros) == (5, 100)
    assert shop.cache.spending("run") == Spending(5, 100)
    assert shop.vendor.charged == 5
    assert not shop.cache.notes.of_run("run")


def test_what_was_agreed_stays_noted_while_an_answer_is_owed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again at half of its price, it may yet be charged at the whole; the next command accepts that."""
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    batch = make_batch("run", "fp_1", tuple(_texts(5)))
    shop.cache.begin(batch, prices=MODEL.prices)
    answer, asked = shop.vendor.handle_request, list[httpx.Request]()

    def lose_what_is_bought(request: httpx.Request) -> httpx.Response:
        if request.headers.get("x-max-cost-micros", "0") != "0":
            asked.append(request)
            raise httpx.ReadError("cut")
        return answer(request)

    cheap = MODEL.model_copy(update={"prices": Prices(image_micros=100, text_micros=10)})
    with monkeypatch.context() as patch:
        patch.setattr(shop.vendor, "handle_request", lose_what_is_bought)
        with pytest.raises(VendorError):
            shop.teacher(model=cheap).buy(_texts(5))
    assert asked
    (note,) = shop.cache.notes.of_run("run")
    assert note.prices == MODEL.prices
    shop.vendor.paid[batch.idempotency_key] = 5
    assert shop.teacher(model=cheap).buy(_texts(5)).cost_micros == 100
    assert shop.vendor.charged == 5


def test_money_ends_a_purchase_to_the_micro(shop: Shop) -> None:
    teacher = Buyer(
        shop.client, shop.cache, model=MODEL, run_id="run", budget=None, max_spend_micros=20 * 50 + 19
    )
    purchase = teacher.buy(_texts(80))
    assert purchase.out_of_budget
    assert (purchase.bought, purchase.cost_micros) == (50, 1000)
    assert teacher.buy(_texts(80)).bought == 0


def test_a_vendor_that_pushes_back_has_fewer_requests_in_flight(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    # For a second after a refusal others count for nothing: no more is tried meanwhile.
    monkeypatch.setattr("client.purchase.concurrency._PATIENCE", 60)
    busy, most = 0, [0]
    lock, refused = threading.Lock(), threading.Event()
    answer = shop.vendor.handle_request

    def answer_one_at_a_time(request: httpx.Request) -> httpx.Response:
        nonlocal busy
        if request.url.path == KEYS_PATH:
            return answer(request)
        with lock:
            busy += 1
            alone = busy == 1
            most[0] = max(most[0], busy)
        if alone:
            refused.wait(20)  # or more would be tried before anything is refused
        else:
            refused.set()
        time.sleep(0.01)
        response = answer(request) if alone else _refusal(503, "overloaded")
        with lock:
            busy -= 1
        return response

    monkeypatch.setattr(shop.vendor, "handle_request", answer_one_at_a_time)
    assert shop.teacher().buy(_texts(60 * BATCH_SIZE)).bought == 60 * BATCH_SIZE
    assert most[0] <= START


def test_memory_holds_a_few_batches_however_large_the_images(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BATCH_BYTES", 4000)
    assert shop.teacher().buy(_images(tmp_path / "images", [1200] * 12)).bought == 12
    assert set(shop.vendor.sizes) == {2}


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Once it is set, waiting for the threads that buy is interrupted as by Ctrl-C."""
    event = threading.Event()
    join = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if timeout is None:
            event.wait(10)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    yield event
    monkeypatch.undo()
    for thread in threading.enumerate():
        if "_work" in thread.name:
            thread.join(10)


def test_an_interruption_ends_soon_though_the_vendor_hangs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, interrupt: threading.Event
) -> None:
    monkeypatch.setattr("client.purchase.purchase._GRACE", 0.2)
    released = threading.Event()

    def hang() -> None:
        interrupt.set()
        released.wait(10)

    shop.vendor.before = hang
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shop.teacher().buy(_texts(300))
    assert time.monotonic() - started < 5
    owed = shop.cache.notes.of_run("run")
    released.set()
    assert owed


def test_an_interruption_ends_soon_though_the_vendor_says_to_wait(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, interrupt: threading.Event
) -> None:
    monkeypatch.setattr("client.purchase.purchase._GRACE", 9.0)

    def wait(request: httpx.Request) -> httpx.Response:
        if request.url.path == KEYS_PATH:
            return _refusal(404, "not_found")
        interrupt.set()
        return _refusal(503, "overloaded", **{"retry-after": "3600"})

    monkeypatch.setattr(shop.vendor, "handle_request", wait)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shop.teacher().buy(_texts(300))
    assert time.monotonic() - started < 5
    assert shop.cache.notes.of_run("run")
