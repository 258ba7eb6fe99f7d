"""Whatever became of the first try, and whatever the second one got: by the real books, all is paid once."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from _pytest.mark import ParameterSet

from client.cache.cache import EmbeddingCache
from client.errors import ClientError
from client.proofs.reconciliation import reconcile
from client.purchase import requests
from client.purchase.buyer import Buyer
from client.vendors import transport
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.embeddings import ModelCard
from tests.client.purchase.faulty_edge import FIRST, SECOND, FaultyEdge, Step, refusing
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import Scope

WORDS = [Query.text(f"word {number}") for number in range(3)]
LONGER = [Query.text("another word"), *WORDS]
WAYS = ("under a new key", "with a longer list", "by another run")
REPEATED = 6  # a person who starts it again, as the message says


def _cases() -> list[ParameterSet]:
    """Every pair, repeated in each way; eleven of twelve are for `make test-slow`."""
    return [
        pytest.param(first, second, way, marks=[pytest.mark.slow] if (i + 3 * j + 4 * k) % 12 else [])
        for i, first in enumerate(FIRST)
        for j, second in enumerate(SECOND)
        for k, way in enumerate(WAYS)
    ]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, tried twice; and no note is so fresh that it is waited for."""
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "TRIES", 2)
    monkeypatch.setattr(requests, "LARGEST", 1)
    monkeypatch.setattr(requests, "BATCH_SIZE", 2)
    monkeypatch.setattr("client.cache.notes.FRESH_SECONDS", 0.0)


@dataclass
class Customer:
    """One account at the vendor, one cache, and an edge between them."""

    vendor: LocalVendor
    cache: EmbeddingCache
    edge: FaultyEdge
    api_key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.vendor.port}"

    def buy(self, queries: list[Query], run: str, model: ModelCard, budget: int | None = None) -> None:
        """One command."""
        with VendorClient(self.url, self.api_key, transport=self.edge) as client:
            Buyer(client, self.cache, model=model, run_id=run, budget=budget).buy(queries)

    def check(self, wanted: list[Query], model: ModelCard, lost: int = 0) -> None:
        """Every charge is a receipt, and every query was charged once, but for those that are lost."""
        with VendorClient(self.url, self.api_key, transport=self.edge) as client:
            ledger = list(client.ledger())
            notes, refused = self.cache.notes.of_run(), self.cache.billed.refused()
            found = reconcile(ledger, self.cache.receipts(), client.key_id, owed=notes, refused=refused)
        assert found.differences == []
        assert found.elsewhere.charges == found.of_other_accounts == 0
        charged = sum(entry.images + entry.texts for entry in ledger)
        assert charged == len(wanted) + lost
        assert self.cache.paid().queries == charged
        assert self.cache.known(model.fingerprint, wanted) == set(wanted)


class Market:
    """The real vendor, the way to it, and its model."""

    def __init__(self, vendor: LocalVendor, network: httpx.BaseTransport) -> None:
        self.vendor = vendor
        self._network = network
        with VendorClient(f"http://127.0.0.1:{vendor.port}", None) as client:
            self.model = client.model()

    @contextmanager
    def customer(self, folder: Path, *steps: Step) -> Iterator[Customer]:
        """A new customer with a new account, whose first requests have these steps."""
        with EmbeddingCache(folder / "cache.db") as cache:
            yield Customer(self.vendor, cache, FaultyEdge(self._network, *steps), self.vendor.key())


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with LocalVendor(tmp_path_factory.mktemp("vendor")) as vendor, httpx.HTTPTransport() as network:
        yield Market(vendor, network)


@pytest.mark.parametrize(("first", "second", "repeated"), _cases())
def test_no_pair_of_faults_is_paid_for_twice(
    market: Market, tmp_path: Path, first: str, second: str, repeated: str
) -> None:
    with market.customer(tmp_path, FIRST[first], SECOND[second]) as customer:
        wanted, run = (WORDS, "run")
        with suppress(ClientError):
            customer.buy(wanted, run, market.model)
        if repeated == "under a new key":
            customer.api_key = market.vendor.another_key(customer.api_key, Scope.EMBED, Scope.READ_USAGE)
        elif repeated == "with a longer list":
            wanted = LONGER
        else:
            run = "other"
        for attempt in range(REPEATED):
            try:
                customer.buy(wanted, run, market.model)
            except ClientError:
                assert attempt + 1 < REPEATED
            else:
                break
        assert not customer.edge.steps
        customer.check(wanted, market.model)


@pytest.mark.parametrize("status", [409, 412])
def test_a_key_that_is_spent_counts_as_paid_and_is_bought_anew_within_the_budget(
    market: Market, tmp_path: Path, status: int
) -> None:
    steps = (FIRST["served and cut"], refusing("idempotency_key_expired", status))
    with market.customer(tmp_path / "enough", *steps) as customer:
        customer.buy(WORDS, "run", market.model, budget=5)
        customer.check(WORDS, market.model, lost=2)
    with market.customer(tmp_path / "tight", *steps) as customer:
        customer.buy(WORDS, "run", market.model, budget=3)
        assert customer.cache.spending("run").queries == 3  # two of them for what is lost
        assert len(customer.cache.known(market.model.fingerprint, WORDS)) == 1
