"""Charged exactly once and never over quota: two processes, kills, cut connections, callers that go."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from client.cache.cache import EmbeddingCache
from client.errors import VendorUnreachable
from client.proofs.reconciliation import reconcile
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres import Postgres
from tests.support.vendor_process import VendorProcess, wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that tries again at once and asks for little at a time, to be hit in the middle more often."""
    monkeypatch.setattr("client.vendors.transport.FIRST_DELAY", 0.02)
    monkeypatch.setattr("client.vendors.transport.LONGEST_DELAY", 0.5)
    monkeypatch.setattr("client.purchase.requests.BATCH_SIZE", 3)


# On SQLite, two workers of one vendor are in tests/vendor_service/run/test_workers.py.
@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"])
def two_vendors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[VendorProcess]]:
    """Two processes with one database, of each kind that there is."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    url = f"sqlite:///{folders[0] / 'shared.db'}"
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create_database()
    with ExitStack() as stack:
        yield [
            stack.enter_context(VendorProcess(folder, "--migrate", database_url=url)) for folder in folders
        ]


def texts(count: int, start: int = 0) -> list[Query]:
    return [Query.text(f"a photo of number {number}") for number in range(start, start + count)]


def assert_receipts_are_the_ledger(client: VendorClient, cache: EmbeddingCache) -> int:
    """How many receipts there are, and each of them is a charge, and each charge is one of them."""
    found = reconcile(client.ledger(), cache.receipts(), client.key_id)
    assert found.differences == []
    assert found.elsewhere.charges == found.lost == found.of_other_accounts == 0
    assert not cache.notes.of_run()
    return found.matched


def test_two_processes_serve_exactly_the_quota(two_vendors: list[VendorProcess]) -> None:
    def ask(number: int) -> int:
        answer = clients[number % 2].post("/embed", json={"inputs": [{"text": "a cat"}]}, headers=headers)
        return answer.status_code

    with ExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        clients = [
            stack.enter_context(httpx.Client(base_url=each.url, timeout=60, limits=limits))
            for each in two_vendors
        ]
        pool = stack.enter_context(ThreadPoolExecutor(32))
        for quota, requests in ((1, 40), (19, 64), (45, 64)):
            key = two_vendors[0].create_key(quota=quota)
            headers = {"authorization": f"Bearer {key}"}
            assert Counter(pool.map(ask, range(requests))) == {200: quota, 402: requests - quota}
            assert two_vendors[0].charges(key).queries == quota
            assert two_vendors[0].problem(key) is None
    assert two_vendors[0].open_holds() == 0


def test_twins_of_one_request_on_two_processes_are_charged_once(two_vendors: list[VendorProcess]) -> None:
    key = two_vendors[0].create_key()
    headers = {"authorization": f"Bearer {key}", "idempotency-key": "twin"}

    def ask(number: int) -> httpx.Response:
        url = f"{two_vendors[number % 2].url}/embed"
        return httpx.post(url, json={"inputs": [{"text": "a cat"}]}, headers=headers, timeout=60)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(33)))  # as often as a paid request is answered again, and once
    assert {answer.status_code for answer in answers} <= {200, 409}
    answered = [answer.json() for answer in answers if answer.status_code == 200]
    assert len({answer["id"] for answer in answered}) == 1
    assert [answer["replayed"] for answer in answered].count(False) == 1
    assert two_vendors[0].charges(key).entries == 1


def _survive_kills(vendor: VendorProcess, rounds: int, folder: Path) -> None:
    """Kill the vendor again and again while a client buys; then every receipt is a charge and no more."""
    key = vendor.create_key()
    dice = random.Random(rounds)

    def kill_and_restart() -> None:
        for _ in range(rounds):
            time.sleep(dice.uniform(0.02, 0.8))
            vendor.kill()
            vendor.start()

    with (
        VendorClient(vendor.url, key) as client,
        EmbeddingCache(folder / "cache.db") as cache,
        ThreadPoolExecutor(1) as killer,
    ):
        teacher = Buyer(client, cache, model=client.model(), run_id="run", budget=None)
        killing = killer.submit(kill_and_restart)
        wanted: list[Query] = []
        while not killing.done():
            wanted += texts(60, start=len(wanted))
            with suppress(VendorUnreachable):  # the same purchase goes on where it stopped
                teacher.buy(wanted)
        killing.result()
        teacher.buy(wanted)
        assert teacher.lookup(wanted)[1].all()
        assert assert_receipts_are_the_ledger(client, cache) >= rounds
        # What was held for a killed process and never asked for again is released.
        wait_until(lambda: vendor.open_holds() == 0, seconds=40)
        assert vendor.charges(key).queries == len(wanted)
        assert vendor.problem(key) is None


@contextmanager
def _started(folder: Path, database_url: str | None = None) -> Iterator[VendorProcess]:
    vendor = VendorProcess(folder, "--migrate", database_url=database_url).start()
    try:
        yield vendor
    finally:
        vendor.kill()


@pytest.mark.usefixtures("impatient")
def test_a_vendor_killed_again_and_again_charges_what_it_answered(tmp_path: Path) -> None:
    with _started(tmp_path) as vendor:
        _survive_kills(vendor, 5, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("kind", "rounds"), [("sqlite", 100), ("postgresql", 20)])
def test_a_hundred_kills_change_nothing(kind: str, rounds: int, tmp_path: Path, postgres: Postgres) -> None:
    with _started(tmp_path, None if kind == "sqlite" else postgres.create_database()) as vendor:
        _survive_kills(vendor, rounds, tmp_path)


@pytest.mark.usefixtures("impatient")
def test_connections_that_are_cut_anywhere_cost_nothing_twice(
    vendor_process: VendorProcess, tmp_path: Path
) -> None:
    key = vendor_process.create_key(quota=400)
    port = int(vendor_process.url.rpartition(":")[2])
    with (
        CuttingProxy(port, seed=1) as proxy,
        VendorClient(proxy.url, key) as client,
        VendorClient(vendor_process.url, key) as direct,
        EmbeddingCache(tmp_path / "cache.db") as cache,
    ):
        Buyer(client, cache, model=direct.model(), run_id="run", budget=None).buy(texts(400))
        assert min(proxy.cuts.values()) >= 3, proxy.cuts
        assert assert_receipts_are_the_ledger(direct, cache) > 100
    assert vendor_process.charges(key).queries == 400
    assert vendor_process.problem(key) is None


def test_callers_that_hang_up_at_any_moment_are_settled_or_released(vendor_process: VendorProcess) -> None:
    key = vendor_process.create_key()
    headers = {"authorization": f"Bearer {key}"}
    dice = random.Random(7)
    # Some are sure to be answered, and some to be gone long before their many texts could be.
    callers = [(dice.uniform(0.001, 0.06), 4) for _ in range(160)] + 20 * [(30.0, 4)] + 20 * [(0.02, 256)]

    def ask(caller: tuple[float, int]) -> bool:
        seconds, count = caller
        which = f"sofas of {dice.random()} colours"  # a text that was asked before is answered at once
        body = {"inputs": [{"text": f"a cat that sleeps on {n} {which}"} for n in range(count)]}
        with suppress(httpx.TimeoutException):
            asked = httpx.post(f"{vendor_process.url}/embed", json=body, headers=headers, timeout=seconds)
            return asked.status_code == 200
        return False

    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(ask, callers))
    wait_until(lambda: vendor_process.open_holds() == 0)
    assert 20 <= answered <= vendor_process.charges(key).entries < len(callers)
    assert vendor_process.problem(key) is None
