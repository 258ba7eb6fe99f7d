"""Buying from the real vendor: each query is paid for once, whatever happens in between."""

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.cache import notes as pending
from client.cache.cache import EmbeddingCache
from client.errors import FingerprintChanged, KeyRefused, QuotaExhausted, VendorUnreachable
from client.purchase.buyer import Buyer
from client.purchase.result import PurchaseProgress
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from client.vendors.vendor import EmbedResult
from shared.embeddings import ModelCard
from tests.support.vendor_process import VendorProcess, wait_until
from vendor_service.money.replays import REPLAYS
from vendor_service.run.settings import Settings


class Customer:
    """A client of one vendor with one key and one cache."""

    def __init__(self, url: str, api_key: str, cache: Path, stack: ExitStack) -> None:
        self.client = stack.enter_context(VendorClient(url, api_key))
        self.cache = stack.enter_context(EmbeddingCache(cache))

    def teacher(self, budget: int | None = None, run_id: str = "run") -> Buyer:
        return Buyer(self.client, self.cache, model=self.client.model(), run_id=run_id, budget=budget)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _texts(count: int, start: int = 0) -> list[Query]:
    return [Query.text(f"a photo of number {i}") for i in range(start, start + count)]


def test_what_is_bought_is_not_bought_again(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key()
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    queries = _texts(100)
    seen: list[int] = []
    purchase = customer.teacher().buy([*queries, queries[0]], lambda progress: seen.append(progress.done))
    assert purchase.bought == 100
    assert purchase.cost_micros == 2000
    assert sorted(seen)[-1] == 100
    vectors, have = customer.teacher().lookup(queries)
    assert have.all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert customer.teacher(run_id="another").buy(queries).bought == 0
    assert vendor_process.charges(api_key).queries == 100


def test_the_budget_counts_over_resumptions_and_is_never_exceeded(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key()
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    for budget, expected in ((70, 70), (70, 70), (90, 90), (1000, 150)):
        teacher = customer.teacher(budget)
        purchase = teacher.buy(_texts(150))
        assert teacher.budget.spent.queries == expected
        assert purchase.out_of_budget is (expected == budget)
        assert vendor_process.charges(api_key).queries == expected


def test_a_quota_is_used_to_the_last_query_and_nothing_is_lost(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key(quota=75)
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    queries = _texts(200)
    with pytest.raises(QuotaExhausted, match="kept"):
        customer.teacher().buy(queries)
    assert vendor_process.charges(api_key).queries == 75
    assert int(customer.teacher().lookup(queries)[1].sum()) == 75
    assert not customer.cache.notes.of_run("run")


def test_coverage_is_used_to_the_last_bucket_and_nothing_is_lost(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key(coverage_limit=5)
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    queries = _texts(200)
    with pytest.raises(QuotaExhausted, match="coverage limit of 5"):
        customer.teacher().buy(queries)
    assert customer.client.account().buckets_covered == 5
    bought = vendor_process.charges(api_key).queries
    assert 5 <= bought < 200
    assert int(customer.teacher().lookup(queries)[1].sum()) == bought
    assert not customer.cache.notes.of_run("run")


def test_bad_images_are_named_and_not_charged(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key()
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (32, 32), "green").save(good)
    bad.write_text("not an image")
    gone = Query.image_file(good)
    queries = [Query.image_file(good), Query.image_file(bad), Query("image", "0" * 64, "gone.png", gone.read)]
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    purchase = customer.teacher().buy(queries)
    assert purchase.bought == 1
    assert {query.name: bool(reason) for query, reason in purchase.refused.items()} == {
        str(bad): True,
        "gone.png": True,
    }
    assert vendor_process.charges(api_key).images == 1


def test_requests_that_are_too_large_are_split(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.purchase.requests.BATCH_BYTES", 10**9)
    api_key = vendor_process.create_key()
    queries = []
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / f"{i}.png"
        noise = rng.integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, compress_level=0)  # which noise takes long for, and in vain
        queries.append(Query.image_file(path))
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    model = customer.client.model()
    assert (
        sum(path.stat().st_size for path in tmp_path.glob("*.png")) * 4 / 3 > model.limits.max_request_bytes
    )
    assert customer.teacher().buy(queries).bought == 6
    # A vendor whose limit is lower than it said: the batch is refused as a whole and halved.
    boast = model.limits.model_copy(update={"max_request_bytes": 10**9})
    boastful = model.model_copy(update={"limits": boast})
    other = stack.enter_context(EmbeddingCache(tmp_path / "other.db"))
    teacher = Buyer(customer.client, other, model=boastful, run_id="other", budget=6)
    assert teacher.buy(queries).bought == 6
    assert vendor_process.charges(api_key).images == 12


def test_a_wrong_key_stops_before_anything_is_owed(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    wrong = "tk_0123456789abcdef_" + "0" * 48
    customer = Customer(vendor_process.url, wrong, tmp_path / "cache.db", stack)
    with pytest.raises(KeyRefused, match="TUITION_API_KEY"):
        customer.teacher().buy(_texts(3))
    assert not customer.cache.notes.of_run("run")


def test_a_key_that_is_revoked_in_the_middle_loses_nothing_and_another_goes_on(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key()
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    successors: list[str] = []

    def revoke(_: PurchaseProgress) -> None:
        if not successors:
            successors.append(vendor_process.replace_key(api_key))

    with pytest.raises(KeyRefused, match="TUITION_API_KEY"):
        customer.teacher().buy(_texts(2000), revoke)
    charged = vendor_process.charges(api_key).queries
    assert 0 < charged == customer.cache.spending("run").queries < 2000
    assert not customer.cache.notes.of_run("run")
    again = Customer(vendor_process.url, successors[0], tmp_path / "cache.db", stack)
    again.teacher().buy(_texts(2000))
    assert vendor_process.charges(api_key).queries == again.cache.spending("run").queries == 2000


def test_another_model_is_noticed_free_of_charge(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key()
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    former = customer.client.model().model_copy(update={"fingerprint": "fp_former"})
    teacher = Buyer(customer.client, customer.cache, model=former, run_id="run", budget=None)
    with pytest.raises(FingerprintChanged):
        teacher.buy(_texts(3))
    assert vendor_process.charges(api_key).entries == 0


def test_a_vendor_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.vendors.transport.FIRST_DELAY", 0.001)
    with VendorClient("http://127.0.0.1:9", "tk_1") as client, pytest.raises(VendorUnreachable, match=":9"):
        client.models()


def test_a_name_that_nobody_knows_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.vendors.transport.FIRST_DELAY", 0.001)
    with (
        VendorClient("http://vendor.invalid", "tk_1") as client,
        pytest.raises(VendorUnreachable, match=r"--vendor \(or TUITION_VENDOR_URL\) right"),
    ):
        client.models()


def test_a_vendor_that_is_killed_and_restarted_costs_nothing_twice(tmp_path: Path, stack: ExitStack) -> None:
    with VendorProcess(tmp_path) as vendor:
        api_key = vendor.create_key(quota=600)
        customer = Customer(vendor.url, api_key, tmp_path / "cache.db", stack)
        teacher = customer.teacher(600)
        began = threading.Event()

        def restart() -> None:
            if not began.wait(60):
                return
            vendor.kill()
            time.sleep(0.5)
            vendor.start()

        disturbance = threading.Thread(target=restart, daemon=True)
        disturbance.start()
        purchase = teacher.buy(_texts(600), lambda _: began.set())
        disturbance.join()
        assert purchase.bought == 600
        assert vendor.charges(api_key).queries == 600
        assert customer.cache.spending("run").queries == 600
        assert vendor.open_holds() == 0


def test_an_answer_that_was_paid_and_lost_is_fetched_free_of_charge(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_key = vendor_process.create_key()
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    buy = VendorClient.embed

    def lose(
        self: VendorClient, queries: list[tuple[Query, bytes]], *, model: ModelCard, **options: Any
    ) -> EmbedResult:
        buy(self, queries, model=model, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(VendorClient, "embed", lose)
    with pytest.raises(KeyboardInterrupt):
        customer.teacher(40).buy(_texts(40))
    monkeypatch.setattr(VendorClient, "embed", buy)
    paid = vendor_process.charges(api_key).queries
    assert 0 < paid <= 40
    assert customer.cache.spending("run").queries == 0

    again = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    teacher = again.teacher(40)
    # Other queries come first now, so nothing but the note in the cache can name the lost batches.
    purchase = teacher.buy([*_texts(10, start=1000), *_texts(40)])
    assert purchase.out_of_budget
    assert vendor_process.charges(api_key).queries == 40
    assert again.cache.spending("run").queries == 40


_CRASHING_CLIENT = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from client.cache.cache import EmbeddingCache
    from client.vendors.query import Query
    from client.purchase.buyer import Buyer
    from client.vendors.teachers.tuition import VendorClient

    url, api_key, cache, die_after = sys.argv[1:]
    answered = 0
    buy = VendorClient.embed

    def die(self, *arguments, **options):
        global answered
        answer = buy(self, *arguments, **options)
        answered += 1
        if answered == int(die_after):
            os.kill(os.getpid(), 9)
        return answer

    VendorClient.embed = die
    with VendorClient(url, api_key) as client, EmbeddingCache(Path(cache)) as store:
        teacher = Buyer(client, store, model=client.model(), run_id="run", budget=320)
        teacher.buy([Query.text(f"a photo of number {i}") for i in range(320)])
    """
)


def test_a_client_that_is_killed_between_payment_and_storage_pays_once(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack
) -> None:
    api_key = vendor_process.create_key(quota=320)
    arguments = [vendor_process.url, api_key, str(tmp_path / "cache.db")]
    for die_after in ("1", "3", "2"):
        command = [sys.executable, "-c", _CRASHING_CLIENT, *arguments, die_after]
        assert subprocess.run(command, check=False).returncode == -9
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    customer.teacher(320).buy(_texts(320))
    assert customer.teacher().lookup(_texts(320))[1].all()
    assert vendor_process.charges(api_key).queries == 320
    assert customer.cache.spending("run").queries == 320


def test_what_a_killed_client_had_paid_for_is_free_for_any_other_run(
    vendor_process: VendorProcess, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_key = vendor_process.create_key(quota=320)
    command = [
        sys.executable,
        "-c",
        _CRASHING_CLIENT,
        vendor_process.url,
        api_key,
        str(tmp_path / "cache.db"),
        "2",
    ]
    assert subprocess.run(command, check=False).returncode == -9
    wait_until(lambda: vendor_process.open_holds() == 0)
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)  # not to wait for what was never charged
    customer = Customer(vendor_process.url, api_key, tmp_path / "cache.db", stack)
    customer.teacher(run_id="other").buy(_texts(320))
    assert customer.teacher().lookup(_texts(320))[1].all()
    assert vendor_process.charges(api_key).queries == customer.cache.paid().queries == 320
    assert customer.cache.spending("run").queries > 0


def test_a_client_gives_up_an_answer_no_sooner_than_a_vendor_that_is_set_to_nothing_else() -> None:
    """What is bought anew while a vendor may be answering it, or would answer it again, is paid for twice."""
    fields = Settings.model_fields
    assert fields["request_timeout_seconds"].default < pending.FRESH_SECONDS
    assert REPLAYS.window_seconds <= pending._REPLAY_SECONDS
