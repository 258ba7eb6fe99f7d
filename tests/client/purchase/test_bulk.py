"""Bulk jobs of the real vendor, at the worst moments and by the worst answers."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import httpx
import pytest

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Note, Payer
from client.cache.origins import origin_of
from client.errors import (
    AnswerRejected,
    ClientError,
    NotFound,
    NotOffered,
    QuotaExhausted,
    RequestTooLarge,
    VendorError,
)
from client.purchase import jobs
from client.purchase.budget import Budget
from client.purchase.checkout import Checkout
from client.purchase.purchase import Purchase
from client.purchase.result import PurchaseResult
from client.vendors import transport
from client.vendors.bulk_api import KEY_LABEL, BulkApi
from client.vendors.bulk_lines import write_line
from client.vendors.query import Query, Spending
from client.vendors.teachers.tuition import VendorClient
from shared.batches import BatchObject, ChunkReceipt
from shared.embeddings import ModelCard
from shared.errors import ErrorBody, ErrorCode, ErrorDetail
from tests.client.cards import MODEL
from tests.client.proofs.test_receipts import signed_as
from tests.vendor_service.local_vendor import LocalVendor

WORDS = [Query.text(f"word {number}") for number in range(20)]
BEGIN = ("POST", "/v1/batches")

Step = Callable[[], httpx.Response]


class Edge(httpx.BaseTransport):
    """The way to the vendor, where the first requests of each kind come to something else."""

    def __init__(self, network: httpx.BaseTransport) -> None:
        self.steps: dict[tuple[str, str], list[Step]] = {}
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        steps = self.steps.get((request.method, request.url.path))
        if not steps:
            return self._network.handle_request(request)
        assert isinstance(request.stream, httpx.SyncByteStream)
        for _ in request.stream:  # it left this machine whole
            pass
        return steps.pop(0)()


@dataclass
class Customer:
    """A new account at the vendor, a cache, and the way between them."""

    client: VendorClient
    cache: EmbeddingCache
    edge: Edge

    def buy(self, run: str = "run", budget: int | None = None) -> PurchaseResult:
        checkout = Checkout(self.client, self.cache, self.client.model(), run, Budget(budget))
        return Purchase(checkout, by_jobs=True).run(WORDS, WORDS)

    def note_a_job(self) -> Note:
        """Note that a job is about to be begun, as a run does that is killed then."""
        model, payer = self.client.model(), Payer(origin_of(self.client.url), self.client.key_id)
        batch = Batch("bulk-1", "run", model.fingerprint, tuple(WORDS), (len(WORDS),))
        assert not self.cache.begin(batch, payer=payer, prices=model.batch_prices)
        return self.notes[0]

    def age_notes(self) -> None:
        """Let the notes of jobs be of long ago."""
        with closing(sqlite3.connect(self.cache.path)) as file, file:
            file.execute("UPDATE notes SET noted_at = 0")

    @property
    def notes(self) -> list[Note]:
        return self.cache.notes.of_run("run")

    @property
    def jobs(self) -> list[BatchObject]:
        return list(self.client.bulk.jobs())

    @property
    def charged(self) -> int:
        """The queries that the vendor has charged."""
        return sum(entry.images + entry.texts for entry in self.client.ledger())


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as local:
        yield local


@pytest.fixture
def customer(vendor: LocalVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    with httpx.HTTPTransport() as network, EmbeddingCache(tmp_path / "cache.db") as cache:
        edge = Edge(network)
        with VendorClient(f"http://127.0.0.1:{vendor.port}", vendor.key(), transport=edge) as client:
            yield Customer(client, cache, edge)


def test_a_job_is_bought_for_a_cache_whose_path_is_not_utf_8(customer: Customer) -> None:
    path = customer.cache.path.parent / os.fsdecode(b"caf\xe9") / "cache.db"
    with EmbeddingCache(path) as cache:
        replace(customer, cache=cache).buy()
        assert cache.spending("run").queries == len(WORDS)


def test_several_jobs_are_begun_before_one_is_waited_for_and_none_is_left_where_the_next_is_refused(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purchase is as many jobs as its size takes, and each may take a day."""
    monkeypatch.setattr(jobs, "_JOB_QUERIES", 4)
    monkeypatch.setattr(jobs, "_JOBS_AT_ONCE", 2)
    monkeypatch.setattr(jobs, "_FIRST_LOOK", 0.02)
    begun, steps = list[str](), list[str]()
    begin, get = BulkApi.begin, BulkApi.get

    def watched(api: BulkApi, *asked: Any, **options: Any) -> BatchObject:
        if len(begun) == 4:
            raise QuotaExhausted("The account may spend no more.")
        job = begin(api, *asked, **options)
        steps.append(f"begin {len(begun)}")
        begun.append(job.id)
        return job

    def looked_at(api: BulkApi, name: str) -> BatchObject:
        steps.append(f"wait for {begun.index(name)}")
        return get(api, name)

    with monkeypatch.context() as patched:
        patched.setattr(BulkApi, "begin", watched)
        patched.setattr(BulkApi, "get", looked_at)
        with pytest.raises(QuotaExhausted):
            customer.buy()
    assert list(dict.fromkeys(steps)) == [
        *("begin 0", "begin 1", "wait for 0", "begin 2", "wait for 1", "begin 3", "wait for 2", "wait for 3")
    ]
    assert (customer.cache.spending("run").queries, customer.notes) == (16, [])
    assert customer.buy().bought == 4


def status(code: int) -> httpx.Response:
    """A proxy's answer."""
    return httpx.Response(code, html="<html>no</html>")


def busy() -> httpx.Response:
    """The vendor's own word that it has not served a request."""
    detail = ErrorDetail(
        code=ErrorCode.RATE_LIMITED, type="t", message="no", request_id="req_1", retryable=True
    )
    return httpx.Response(429, json=ErrorBody(error=detail).model_dump())


@pytest.mark.parametrize("killed", [True, False])
def test_a_job_that_may_be_beginning_is_known_from_its_last_try_on_and_begun_once(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Between two tries, whether the vendor refused or did not answer, more time goes by than notes last."""
    monkeypatch.setattr(transport, "TRIES", 3)
    fresh: list[bool] = []

    def answers(code: int) -> Step:
        def step() -> httpx.Response:
            fresh.extend(note.seconds_left > 0 for note in customer.notes)
            customer.age_notes()
            return busy() if code == 429 else status(code)

        return step

    def dies() -> httpx.Response:
        fresh.extend(note.seconds_left > 0 for note in customer.notes)
        raise KeyboardInterrupt

    customer.edge.steps[BEGIN] = [answers(504), answers(429), dies if killed else answers(504)]
    with pytest.raises(KeyboardInterrupt if killed else VendorError):
        customer.buy()
    (note,) = customer.notes
    assert [*fresh, note.seconds_left > 0] == [True] * 4
    assert customer.buy().bought == len(WORDS)
    assert [job.metadata for job in customer.jobs] == [{KEY_LABEL: note.batch.idempotency_key}]
    assert (customer.charged, customer.notes) == (len(WORDS), [])


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_a_refusal_of_a_second_try_does_not_prove_that_the_first_began_no_job(
    customer: Customer, path: str
) -> None:
    note = customer.note_a_job()
    customer.edge.steps["POST", path] = [lambda: status(413)]
    with pytest.raises(RequestTooLarge):
        customer.buy()
    assert [each.batch.idempotency_key for each in customer.notes] == [note.batch.idempotency_key]
    assert customer.buy().bought == len(WORDS)
    assert (len(customer.jobs), customer.charged) == (1, len(WORDS))


def change_what_ended(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Have the vendor say something else of every job that has ended."""
    get = BulkApi.get

    def changed(self: BulkApi, batch_id: str) -> BatchObject:
        job = get(self, batch_id)
        return job if job.status == "in_progress" else job.model_copy(update=changes)

    monkeypatch.setattr(BulkApi, "get", changed)


@pytest.mark.parametrize("has_files", [True, False])
def test_a_completed_job_that_brings_nothing_counts_as_paid_and_no_other_is_begun(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, has_files: bool
) -> None:
    if has_files:
        monkeypatch.setattr(BulkApi, "download", lambda *_: None)
        monkeypatch.setattr(BulkApi, "receipts", lambda *_: iter(()))
    else:
        change_what_ended(monkeypatch, output_file_id=None, error_file_id=None)
    begin = BulkApi.begin

    def not_without_end(self: BulkApi, *given: Any, **named: Any) -> BatchObject:
        assert len(customer.jobs) < 3
        return begin(self, *given, **named)

    monkeypatch.setattr(BulkApi, "begin", not_without_end)
    for begun, paid in ((1, 20), (2, 30)):
        with pytest.raises(VendorError, match=f"{paid % 20 or 20} of its queries were neither answered nor"):
            customer.buy(budget=30)
        assert (len(customer.jobs), customer.charged, customer.notes) == (begun, paid, [])
        assert customer.cache.spending("run") == Spending(paid, 10 * paid)
    assert customer.buy(budget=30).out_of_budget
    assert len(customer.jobs) == 2


def test_a_job_of_now_whose_answers_are_gone_counts_as_paid_and_no_other_is_begun(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        assert len(customer.jobs) < 3
        raise NotFound("there is no such file")

    monkeypatch.setattr(BulkApi, "download", gone)
    for begun in (1, 2):
        with pytest.raises(VendorError, match="20 of its queries have no receipt"):
            customer.buy()
        assert (len(customer.jobs), customer.charged, customer.notes) == (begun, 20 * begun, [])
        assert customer.cache.spending("run") == Spending(20 * begun, 200 * begun)


@pytest.mark.parametrize(
    ("changes", "stored", "cost"),
    [
        ({"status": "cancelled", "output_file_id": None}, 0, 200),
        ({"status": "expired", "output_file_id": None, "cost_micros": 1000}, 0, 1000),
        ({"cost_micros": 210}, 20, 210),
        ({"cost_micros": 10**30}, 20, 10**15 + 200),
    ],
)
def test_what_a_job_cost_more_than_its_receipts_say_counts_as_paid_and_is_told(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], stored: int, cost: int
) -> None:
    change_what_ended(monkeypatch, **changes)
    told = f"cost {changes.get('cost_micros', 200)} micros. Its receipts come to {10 * stored} micros"
    with pytest.raises(VendorError, match=told):
        customer.buy()
    (job,) = customer.jobs
    assert len(customer.cache.known(job.model_fingerprint, WORDS)) == stored
    assert customer.cache.spending("run") == Spending(len(WORDS), cost)
    assert customer.notes == []


def test_a_receipt_by_a_key_whose_id_is_none_is_refused_and_its_bill_noted(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = BulkApi.receipts

    def forged(self: BulkApi, batch_id: str) -> Iterator[ChunkReceipt]:
        for each in receipts(self, batch_id):
            yield each.model_copy(update={"receipt": signed_as("\ud800")})

    monkeypatch.setattr(BulkApi, "receipts", forged)
    with pytest.raises(AnswerRejected, match="whose id is not its thumbprint"):
        customer.buy()
    (receipt,) = customer.cache.receipts()
    assert (receipt.fault, receipt.cost_micros) == ("signed by a key whose id is not its thumbprint", 200)


@pytest.mark.parametrize(
    "lies", [{"lines": 1}, {"first_line": -2, "lines": 4}, {"lines": 0}, {"lines": 10**6}, {"first_line": 2}]
)
def test_receipts_of_a_job_overlap_nowhere_and_are_of_lines_that_it_has(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, lies: dict[str, int]
) -> None:
    receipts = BulkApi.receipts

    def lying(self: BulkApi, batch_id: str) -> Iterator[ChunkReceipt]:
        for each in receipts(self, batch_id):
            if lies == {"lines": 1}:
                yield each  # the other one would take its place, and cost nothing
            yield each.model_copy(update=lies)

    monkeypatch.setattr(BulkApi, "receipts", lying)
    with pytest.raises(VendorError, match="overlap"):
        customer.buy()


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_file_of_a_job_has_no_name_so_that_nothing_of_it_is_left_where_the_client_is_killed(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[set[str]] = []

    def looking(*given: Any) -> None:
        write_line(*given)
        named.append({each.name for each in customer.cache.path.parent.iterdir()})

    monkeypatch.setattr(jobs, "write_line", looking)
    customer.buy()
    assert named
    assert set.union(*named) == {"cache.db", "cache.db-shm", "cache.db-wal", "cache.db.locks"}


class OnAFullDisk(BytesIO):
    """A file that takes nothing."""

    write = full


@pytest.mark.parametrize("place", ["file", "line", "answers", "what they say"])
def test_a_full_disk_is_said_to_be_one_and_the_same_command_goes_on(
    customer: Customer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as patched:
        if place == "line":
            patched.setattr(jobs, "write_line", full)
        else:
            number = count(1)

            def on_a_full_disk(**given: Any) -> Any:
                if next(number) != (1 if place == "file" else 2):
                    return TemporaryFile(**given)
                return OnAFullDisk() if place == "what they say" else full()

            patched.setattr(jobs, "TemporaryFile", on_a_full_disk)
        with pytest.raises(ClientError, match="cannot be written: the disk is full"):
            customer.buy(budget=20)
    assert customer.buy(budget=20).bought == len(WORDS)
    assert (len(customer.jobs), customer.charged, customer.notes) == (1, len(WORDS), [])


@dataclass
class Left:
    """A cache that has the note of a job at a vendor that runs none any more."""

    client: VendorClient
    cache: EmbeddingCache
    said: list[str]

    def note(self, *, days: float, key_id: str = "1", batch_id: str | None = None) -> None:
        batch = Batch("bulk-1", "run", MODEL.fingerprint, tuple(WORDS), (len(WORDS),))
        payer, noted_at = Payer(origin_of(self.client.url), key_id), time.time() - days * 86400
        self.cache.notes.put(Note(batch, noted_at, payer, MODEL.prices, batch_id))

    def fetch(self, run: str, model: ModelCard = MODEL) -> PurchaseResult:
        """Fetch what the job brought, and buy nothing."""
        checkout = Checkout(self.client, self.cache, model, run, Budget(0))
        return Purchase(checkout, say=self.said.append).run(WORDS, WORDS)


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    detail = ErrorDetail(
        code=ErrorCode.NOT_FOUND, type="t", message="no", request_id="req_1", retryable=False
    )
    edge = httpx.MockTransport(lambda _: httpx.Response(404, json=ErrorBody(error=detail).model_dump()))
    with (
        EmbeddingCache(tmp_path / "cache.db") as cache,
        VendorClient("http://vendor", "tk_1_s", transport=edge) as client,
    ):
        yield Left(client, cache, [])


@pytest.mark.parametrize("batch_id", ["batch_1", None])
@pytest.mark.parametrize("run", ["run", "another run"])
def test_a_job_at_a_vendor_that_runs_none_any_more_counts_as_paid_once_its_day_is_over(
    left: Left, run: str, batch_id: str | None
) -> None:
    left.note(days=1.1, batch_id=batch_id)
    left.fetch(run)
    assert left.cache.notes.of_run() == []
    assert left.cache.spending("run") == Spending(len(WORDS), 20 * len(WORDS))
    assert ["no longer has" in each for each in left.said] == [True]


@pytest.mark.parametrize("batch_id", ["batch_1", None])
def test_a_job_at_a_vendor_that_runs_none_at_present_is_kept_for_its_day(
    left: Left, batch_id: str | None
) -> None:
    left.note(days=0.9, batch_id=batch_id)
    with pytest.raises(VendorError, match="runs no bulk jobs at present"):
        left.fetch("run")
    assert (len(left.cache.notes.of_run()), left.cache.spending("run")) == (1, Spending(0, 0))


def test_a_job_of_another_key_at_a_vendor_that_runs_none_any_more_is_left_to_that_key(left: Left) -> None:
    left.note(days=40, key_id="2", batch_id="batch_1")
    left.fetch("another run")
    assert (len(left.cache.notes.of_run()), left.cache.spending("run")) == (1, Spending(0, 0))
    assert ["has no such bulk job" in each for each in left.said] == [True]


def test_a_vendor_that_sells_bulk_jobs_and_denies_them_is_not_believed(left: Left) -> None:
    left.note(days=40, batch_id="batch_1")
    with pytest.raises(NotOffered):
        left.fetch("run", MODEL.model_copy(update={"batch_prices": MODEL.prices}))
    assert len(left.cache.notes.of_run()) == 1
