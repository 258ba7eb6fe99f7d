"""`client embed --batch` and the real vendor: half the price, at whatever moment either side is stopped."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer
from client.cache.origins import origin_of
from client.cache.receipts import Paid
from client.errors import JobRunning, RequestTooLarge, VendorError
from client.purchase.budget import Budget
from client.purchase.checkout import Checkout
from client.purchase.lock import is_locked, run_lock
from client.purchase.purchase import Purchase
from client.purchase.result import PurchaseProgress
from client.purchase.vendor_check import CANARIES
from client.runs.embedding import run_id_of
from client.vendors.bulk_api import KEY_LABEL, BulkApi
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.batches import BatchObject, FileObject
from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import wait_until
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.local_vendor import LocalVendor


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as local:
        yield local


@pytest.fixture
def client(vendor: LocalVendor, tmp_path: Path) -> Command:
    return Command(tmp_path, f"http://127.0.0.1:{vendor.port}", vendor.key())


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldModel]:
    held = HeldModel(monkeypatch)
    yield held
    held.go()


def texts(*words: str) -> list[str]:
    return [each for word in words for each in ("--text", word)]


def purchase(api: VendorClient, cache: EmbeddingCache, run: str, budget: int | None, **how: Any) -> Purchase:
    """A purchase by bulk jobs, unless it is said how."""
    checkout = Checkout(api, cache, api.model(), run, Budget(budget))
    return Purchase(checkout, **{"by_jobs": True} | how)


def note_a_job(api: VendorClient, cache: EmbeddingCache, run: str, queries: Sequence[Query]) -> None:
    """Note a job, as a run does that is killed before it sends it."""
    model, payer = api.model(), Payer(origin_of(api.url), api.key_id)
    batch = Batch("bulk-1", run, model.fingerprint, tuple(queries), (len(queries),))
    assert not cache.begin(batch, payer=payer, prices=model.batch_prices)


MANY = texts(*(f"number {place}" for place in range(100)))
BY_REQUESTS = {"by_jobs": False}
OUT = ("--out", "out.npy")


def jobs(client: Command) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(client("batches", "--json").stdout)
    return found


def test_a_job_brings_what_requests_would_for_half(client: Command, vendor: LocalVendor) -> None:
    for name, colour in (("a", "red"), ("b", "green")):
        Image.new("RGB", (32, 32), colour).save(client.folder / f"{name}.png")
    (client.folder / "cut.png").write_bytes((client.folder / "a.png").read_bytes()[:60])
    inputs = [*texts("a cat", "a dog", "  "), "--images", "*.png"]
    said = client("embed", *inputs, *OUT, "--batch", "--json", code=1)
    told = json.loads(said.stdout)
    assert (told["embedded"], told["queries_bought"], told["cost_micros"]) == (4, 4, 120)
    assert set(told["skipped"]) == {"cut.png", "  "}
    assert vendor.account(client.api_key).spent_micros == 120
    rows = np.load(client.folder / "out.npy")
    other = Command(client.folder, client.url, vendor.key())
    other("embed", *inputs, "--out", "others.npy", "--cache", "other.db", code=1)
    assert np.allclose(rows, np.load(client.folder / "others.npy"), atol=1e-5, equal_nan=True)
    assert "completed" in client("batches").stdout
    assert vendor.get("/v1/files", client.api_key)["data"] == []  # all is stored, and the rest needs none
    assert "50 and 10" in client("models").stdout
    assert "differences: 0" in client("usage", "--reconcile").stdout
    client("receipts", "verify")


def test_a_job_that_is_not_waited_for_is_fetched_later_and_paid_for_once(
    client: Command, vendor: LocalVendor, model: HeldModel
) -> None:
    model.stop_at("number 7")
    said = client("embed", *MANY, *OUT, "--batch", "--no-wait", code=3)
    assert "goes on at the vendor" in said.stderr
    assert "goes on at the vendor" in client("embed", *MANY, *OUT, "--batch", "--no-wait", code=3).stderr
    assert "being bought by the bulk job" in client("embed", *MANY, *OUT, code=3).stderr
    client("embed", *texts("something else"), *OUT)
    model.go()
    wait_until(lambda: jobs(client)[0]["status"] == "completed")
    client("embed", *MANY, *OUT)  # without --batch, and with nothing left to buy
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert (len(jobs(client)), vendor.account(client.api_key).spent_micros) == (1, 100 * 10 + 20)
    assert "differences: 0" in client("usage", "--reconcile").stdout


@pytest.mark.parametrize("fails", ["name", "store"])
def test_a_client_that_is_stopped_at_a_bad_moment_pays_once(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """It is stopped before it knows what its job is called, or with a part of the answers stored."""
    calls = []

    def stop(*given: Any, **named: Any) -> Paid:
        calls.append(given)
        if fails == "name" or len(calls) == 2:
            raise KeyboardInterrupt
        return store(*given, **named)

    store = EmbeddingCache.commit
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingCache, "name_job" if fails == "name" else "commit", stop)
        client("embed", *MANY, *OUT, "--batch", code=130)
    client("embed", *MANY, *OUT, "--batch")
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert (len(jobs(client)), vendor.account(client.api_key).spent_micros) == (1, 1000)
    assert "differences: 0" in client("usage", "--reconcile").stdout


def test_what_was_stored_of_a_job_before_it_was_stopped_counts_once(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the 90 that its budget allows, a first chunk of 64 is stored; then ten more are to be bought."""
    calls = []

    def stop(*given: Any, **named: Any) -> Paid:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return store(*given, **named)

    store = EmbeddingCache.commit
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingCache, "commit", stop)
        client("embed", *MANY, *OUT, "--batch", "--budget", "90", code=130)
    told = json.loads(client("embed", *MANY, *OUT, "--batch", "--budget", "100", "--json").stdout)
    assert (told["queries_bought"], told["cost_micros"]) == (26 + 10, 360)
    assert vendor.account(client.api_key).queries_used == 100


def test_a_job_that_another_run_fetches_counts_in_the_budget_of_the_run_that_began_it(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, others = BulkApi.get, iter([MANY[:20]])

    def meanwhile(self: BulkApi, batch_id: str) -> BatchObject:
        for inputs in others:
            wait_until(lambda: jobs(client)[0]["status"] == "completed")
            client("embed", *inputs, "--out", "more.npy")
        return get(self, batch_id)

    monkeypatch.setattr(BulkApi, "get", meanwhile)
    client("embed", *MANY, *OUT, "--batch", "--budget", "60", code=3)
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 60)


def test_a_job_of_the_run_counts_in_its_budget_whatever_is_wanted_by_now(
    client: Command, vendor: LocalVendor, model: HeldModel
) -> None:
    words = [Query.text(word) for word in MANY[1::2]]
    model.stop_at("number 7")
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
    ):
        for wanted, how in (
            (words[:50], {"wait": False}),
            (words[50:], {"wait": False}),
            (words[50:], BY_REQUESTS),
        ):
            with pytest.raises(JobRunning):
                purchase(api, cache, "run", 60, **how).run(wanted, wanted)
        model.go()
        done = purchase(api, cache, "run", 60).run(words[50:], words)
        assert (done.bought, done.out_of_budget, cache.notes.of_run()) == (60, True, [])
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (2, 60)


def test_a_job_that_its_run_never_sent_and_no_longer_wants_is_not_sent(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [Query.text(word) for word in MANY[1::2]]
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
    ):
        note_a_job(api, cache, "run", words[:9])
        assert purchase(api, cache, "run", 12).run(words[10:14], words).out_of_budget
        assert len(cache.notes.of_run()) == 1  # it may be beginning, and counts
        assert vendor.account(client.api_key).queries_used == 3
        monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)
        purchase(api, cache, "run", 12).run(words[10:16], words)
        assert not cache.notes.of_run()
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (2, 6)


@pytest.mark.parametrize("how", [{}, BY_REQUESTS])
def test_a_job_that_may_be_beginning_is_sent_again_within_the_budget_or_else_waited_for(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    words, said = [Query.text(word) for word in MANY[1:19:2]], list[str]()
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 1.0)
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
    ):
        note_a_job(api, cache, "run", words)
        assert purchase(api, cache, "run", 5, say=said.append, **how).run(words, words).bought == 5
        assert [each.startswith("Waiting") for each in said[:1]] == [True]
        assert not cache.notes.of_run()
        note_a_job(api, cache, "other", more := [Query.text("one"), Query.text("more")])
        assert purchase(api, cache, "other", 2, say=said.append, **how).run(more, more).bought == 2
    assert len(jobs(client)) == (0 if how else 2)
    assert ({KEY_LABEL: "bulk-1"} in [job["metadata"] for job in jobs(client)]) == (not how)
    assert vendor.account(client.api_key).queries_used == 7


def test_a_job_whose_file_never_came_through_is_forgotten(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> FileObject:
        raise VendorError("status 504")

    with monkeypatch.context() as patched:
        patched.setattr(BulkApi, "send_file", cut_off)
        assert "504" in client("embed", *MANY, *OUT, "--batch", code=1).stderr
    client("embed", *MANY, *OUT)
    assert vendor.account(client.api_key).queries_used == 100


def test_what_requests_had_paid_for_is_not_paid_for_by_a_job(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are charged, and the client is killed before it stores the answers; it goes on by jobs."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingCache, "commit", stop)
        client("embed", *MANY, *OUT, "--budget", "100", code=130)
    paid = vendor.account(client.api_key).queries_used
    assert paid > 0
    client("embed", *MANY, *OUT, "--batch", "--budget", "100")
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert vendor.account(client.api_key).spent_micros == 20 * paid + 10 * (100 - paid)
    assert "differences: 0" in client("usage", "--reconcile").stdout


def test_a_new_vendor_is_asked_known_queries_only_before_it_sells_and_in_the_turn_of_the_run(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same vendor under another name has sold what is known."""
    compare, cache = Purchase._compare, client.folder / "cache.db"
    more = [*MANY, *texts("one more")]
    run = run_id_of([Query.text(word) for word in more[1::2]])
    turns: list[bool] = []

    def noted(self: Purchase, sample: Sequence[Query]) -> bool:
        turns.append(is_locked(cache, run))
        return compare(self, sample)

    monkeypatch.setattr(Purchase, "_compare", noted)
    Command(client.folder, f"http://localhost:{vendor.port}", vendor.key())("embed", *MANY, *OUT)
    client("embed", *MANY, *OUT, "--batch")
    with run_lock(cache, run):
        assert "Another process" in client("embed", *more, *OUT, "--batch", code=1).stderr
    assert (vendor.account(client.api_key).spent_micros, turns) == (0, [])
    client("embed", *more, *OUT, "--batch")
    assert (vendor.account(client.api_key).spent_micros, turns) == (CANARIES * 20 + 10, [True])


def test_a_job_of_before_is_fetched_before_a_new_vendor_is_asked_known_queries(
    client: Command, vendor: LocalVendor
) -> None:
    client("embed", *MANY, *OUT, "--batch", "--no-wait", "--budget", "100", code=3)
    other = Command(client.folder, f"http://localhost:{vendor.port}", vendor.key())
    other("embed", *MANY[:20], "--out", "more.npy")
    client("embed", *MANY, *OUT, "--batch", "--budget", "100")
    assert vendor.account(client.api_key).queries_used == 100


@pytest.mark.parametrize("then", [(), ("--batch", "--no-wait")])
def test_a_job_that_its_run_is_sending_is_left_to_that_run(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch, then: tuple[str, ...]
) -> None:
    send_file, others, sent = BulkApi.send_file, iter([then]), []

    def meanwhile(self: BulkApi, file: BinaryIO) -> FileObject:
        sent.append(file)
        for options in others:
            said = client("embed", *MANY, *texts("one more"), "--out", "more.npy", *options, code=3).stderr
            assert ("is sending a bulk job" if options else "being bought by a bulk job") in said
        return send_file(self, file)

    monkeypatch.setattr(BulkApi, "send_file", meanwhile)
    client("embed", *MANY, *OUT, "--batch")
    assert (len(sent), len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 1, 100)


def test_a_job_that_its_run_is_sending_is_waited_for(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [Query.text(word) for word in MANY[1::2]]
    sending, go, send_file = threading.Event(), threading.Event(), BulkApi.send_file

    def held(self: BulkApi, file: BinaryIO) -> FileObject:
        sending.set()
        assert go.wait(20)
        return send_file(self, file)

    def busy(*given: Any) -> bool:
        go.set()
        return is_locked(*given)

    monkeypatch.setattr("client.purchase.jobs.is_locked", busy)
    monkeypatch.setattr(BulkApi, "send_file", held)
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(purchase(api, cache, "first", 100).run, queries, queries)
        assert sending.wait(20)
        purchase(api, cache, "second", 100).run(queries, queries)
        first.result(timeout=20)
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 100)


def test_a_job_whose_note_is_gone_when_it_is_begun_is_waited_for_and_not_begun_again(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = BulkApi.begin

    def meanwhile(self: BulkApi, *given: Any, **named: Any) -> BatchObject:
        with closing(sqlite3.connect(client.folder / "cache.db")) as cache, cache:
            cache.execute("DELETE FROM notes")
        return begin(self, *given, **named)

    monkeypatch.setattr(BulkApi, "begin", meanwhile)
    client("embed", *MANY, *OUT, "--batch")
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 100)


def test_a_job_that_is_refused_binds_no_budget_and_another_runs_is_left_alone_while_it_may_begin(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> BatchObject:
        raise RequestTooLarge

    ours, theirs = [Query.text("ours")], [Query.text("theirs")]
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
    ):
        note_a_job(api, cache, "killed", theirs)
        with monkeypatch.context() as patched:
            patched.setattr(BulkApi, "begin", refuse)
            with pytest.raises(RequestTooLarge):
                purchase(api, cache, "run", 1).run(ours, ours)
        assert [note.batch.run_id for note in cache.notes.of_run()] == ["killed"]
        monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)
        assert purchase(api, cache, "run", 1).run(theirs, theirs).bought == 1
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 1)


@pytest.mark.parametrize("then", [(), ("--no-wait",)])
def test_runs_that_buy_the_same_by_jobs_at_once_pay_once(
    client: Command,
    vendor: LocalVendor,
    model: HeldModel,
    monkeypatch: pytest.MonkeyPatch,
    then: tuple[str, ...],
) -> None:
    """While one is about to begin its job, the other buys the same, or begins a job for it."""
    model.stop_at("number 7")
    begin, others = EmbeddingCache.begin, iter([(*MANY, *texts("one more"))])

    def meanwhile(self: EmbeddingCache, *given: Any, **named: Any) -> set[Query]:
        for inputs in others:
            if not then:
                model.go()
            client("embed", *inputs, "--out", "more.npy", "--batch", *then, code=3 if then else 0)
            model.go()
        return begin(self, *given, **named)

    monkeypatch.setattr(EmbeddingCache, "begin", meanwhile)
    client("embed", *MANY, *OUT, "--batch")
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 101)


def test_requests_leave_to_a_job_what_was_begun_meanwhile(
    client: Command, vendor: LocalVendor, model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.stop_at("number 7")
    begin, others = EmbeddingCache.begin, iter([MANY])

    def meanwhile(self: EmbeddingCache, *given: Any, **named: Any) -> set[Query]:
        for inputs in others:
            client("embed", *inputs, *OUT, "--batch", "--no-wait", code=3)
        return begin(self, *given, **named)

    monkeypatch.setattr(EmbeddingCache, "begin", meanwhile)
    both = [*MANY, *texts("one more"), "--out", "more.npy"]
    assert "being bought by the bulk job" in client("embed", *both, code=3).stderr
    model.go()
    wait_until(lambda: jobs(client)[0]["status"] == "completed")
    client("embed", *both)
    assert vendor.account(client.api_key).queries_used == 101


@pytest.mark.parametrize("then", [(), ("--batch",)])
def test_what_a_job_brought_that_is_gone_counts_as_paid_and_is_bought_again(
    client: Command, vendor: LocalVendor, then: tuple[str, ...]
) -> None:
    client("embed", *MANY, *OUT, "--batch", "--no-wait", code=3)
    wait_until(lambda: jobs(client)[0]["status"] == "completed")
    headers = {"authorization": f"Bearer {client.api_key}"}
    vendor.http.delete(f"/v1/files/{jobs(client)[0]['output_file_id']}", headers=headers).raise_for_status()
    said = client("embed", *MANY, *OUT, *then, "--budget", "150", code=3).stderr
    assert "100 of its queries have no receipt, and count as paid" in said
    assert vendor.account(client.api_key).queries_used == 150
    client("embed", *MANY, *OUT, *then)
    assert vendor.account(client.api_key).queries_used == 200
    assert "differences: 0" in client("usage", "--reconcile").stdout


@pytest.mark.parametrize("then", [(), ("--batch",)])
def test_a_job_of_another_account_is_passed_over(
    client: Command, vendor: LocalVendor, model: HeldModel, then: tuple[str, ...]
) -> None:
    other = Command(client.folder, client.url, vendor.key())
    client("embed", *MANY, *OUT, "--batch", "--no-wait", code=3)
    assert "begun with another key" in other("embed", *MANY, *OUT, *then).stderr
    assert vendor.account(other.api_key).queries_used == 100
    client("embed", *MANY, *OUT, "--batch")
    assert (len(jobs(client)), vendor.account(client.api_key).queries_used) == (1, 100)


@pytest.mark.parametrize("then", [(), ("--batch",)])
def test_a_job_of_another_account_counts_in_the_budget_of_its_run(
    client: Command, vendor: LocalVendor, then: tuple[str, ...]
) -> None:
    other = Command(client.folder, client.url, vendor.key())
    client("embed", *MANY, *OUT, "--batch", "--no-wait", "--budget", "60", code=3)
    other("embed", *MANY, *OUT, *then, "--budget", "100", code=3)
    assert vendor.account(other.api_key).queries_used == 40


def test_a_job_that_another_account_may_have_begun_is_not_begun_by_this_one(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> BatchObject:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BulkApi, "begin", stop)
        client("embed", *MANY, *OUT, "--batch", code=130)
    other = Command(client.folder, client.url, vendor.key())
    few = texts("number 1", "number 2")
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 1.0)
    other("embed", *few, *OUT, "--batch")
    assert (len(jobs(other)), vendor.account(other.api_key).queries_used) == (1, 2)


def test_files_of_jobs_that_are_refused_or_were_begun_before_are_deleted(
    client: Command, vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(key: str) -> list[object]:
        found: list[object] = vendor.get("/v1/files", key)["data"]
        return found

    poor = Command(client.folder, client.url, vendor.key(quota=10))
    poor("embed", *MANY, *OUT, "--batch", "--cache", "other.db", code=3)
    assert files(poor.api_key) == []
    begin = BulkApi.begin

    def begin_twice(self: BulkApi, file_id: str, **terms: Any) -> BatchObject:
        again = BytesIO()
        self.download(file_id, again, 10**6)
        begin(self, self.send_file(again).id, **terms)
        return begin(self, file_id, **terms)

    monkeypatch.setattr(BulkApi, "begin", begin_twice)
    client("embed", *MANY, *OUT, "--batch")
    assert (len(jobs(client)), files(client.api_key)) == (1, [])


def test_progress_ends_at_all_that_is_bought_whoever_began_the_job(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[PurchaseProgress] = []
    get, running = BulkApi.get, [True]

    def almost_done(self: BulkApi, batch_id: str) -> BatchObject:
        """All lines are done, and the job has not ended; then as it is."""
        job = get(self, batch_id)
        if not running.pop():
            return job
        counts = job.request_counts.model_copy(update={"completed": job.request_counts.total})
        return job.model_copy(update={"status": "in_progress", "request_counts": counts})

    client("embed", *MANY[:80], *OUT, "--batch", "--no-wait", code=3)  # of 40 queries
    wait_until(lambda: jobs(client)[0]["status"] == "completed")
    monkeypatch.setattr(BulkApi, "get", almost_done)
    running += [False, True] * 2
    with (
        VendorClient(client.url, client.api_key) as api,
        EmbeddingCache(client.folder / "cache.db") as cache,
    ):
        wanted = [Query.text(word) for word in (*MANY[1:20:2], *MANY[81:120:2])]
        purchase(api, cache, "run", None, on_progress=told.append).run(wanted, wanted)
    assert [(each.bought, each.total) for each in told] == [(40, 60), (40, 60), (60, 60), (60, 60)]


def test_the_budget_bounds_a_job_and_the_rest_is_bought_later(client: Command, vendor: LocalVendor) -> None:
    client("embed", *MANY, *OUT, "--batch", "--budget", "60", code=3)
    assert vendor.account(client.api_key).queries_used == 60
    client("embed", *MANY, *OUT, "--batch", "--max-spend", "1000")
    assert vendor.account(client.api_key).spent_micros == 1000


@pytest.mark.slow
def test_what_a_cancelled_job_had_not_done_is_bought_anew(
    client: Command, vendor: LocalVendor, model: HeldModel
) -> None:
    model.stop_at("number 99")
    client("embed", *MANY, *OUT, "--batch", "--no-wait", code=3)
    wait_until(lambda: vendor.account(client.api_key).spent_micros == 640)
    (job,) = jobs(client)
    client("batches", "--cancel", str(job["id"]))
    model.go()
    assert "was cancelled" in client("embed", *MANY, *OUT, "--batch", code=1).stderr
    client("embed", *MANY, *OUT, "--batch")
    assert (len(jobs(client)), vendor.account(client.api_key).spent_micros) == (2, 1000)


def test_a_plan_says_what_jobs_are_to_bring(client: Command, vendor: LocalVendor, model: HeldModel) -> None:
    make_folder(client.folder / "toys", images=4)
    model.stop_at("a photo of a circle")
    asked = texts("a photo of a circle", "a photo of a square", "something else")
    client("embed", *asked, *OUT, "--batch", "--no-wait", code=3)
    plan = ("distill", "--data", "toys", "--budget", "1000", *TINY, "--image-size", "32", "--dry-run")
    assert "2 of the queries to buy are in bulk jobs" in client(*plan).stderr
    other = Command(client.folder, client.url, vendor.key())
    assert "in bulk jobs" not in other(*plan).stderr  # they are another account's


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
def test_a_student_is_distilled_from_what_jobs_bring(client: Command, vendor: LocalVendor) -> None:
    make_folder(client.folder / "toys", images=4)
    small = (*TINY, "--image-size", "32", "--steps", "3", "--out", "run")
    command = ["distill", "--data", "toys", "--budget", "1000", *small, "--batch"]
    said = client(*command, "--no-wait", code=3)  # its images are the one job
    assert "goes on at the vendor" in said.stderr
    wait_until(lambda: jobs(client)[0]["status"] == "completed")
    client(*command)
    assert (client.folder / "run" / "student.onnx").exists()
    charges = vendor.get("/v1/usage", client.api_key, group_by="kind")["rows"]
    assert [each["cost_micros"] for each in charges] == [50 * charges[0]["images"], 20 * charges[1]["texts"]]
    assert "differences: 0" in client("usage", "--reconcile").stdout
