"""The client is killed (SIGKILL) at random moments and started again; the vendor's ledger is the judge."""

import random
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from client.cache.cache import EmbeddingCache
from client.proofs.reconciliation import reconcile
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from tests.support.forking import CONTEXT
from tests.support.vendor_process import VendorProcess, wait_until

RUN = "run"
# Far more than is bought before the last kill.
WANTED = 20_000


def _texts() -> list[Query]:
    return [Query.text(f"a photo of number {i}") for i in range(WANTED)]


def _buy(url: str, api_key: str, cache: Path, budget: int, seed: int) -> None:
    """Buy the texts in an order of its own, so that nothing but the cache knows which batches were sent."""
    with (
        # This vendor has long given up by then what a client asked that was killed. It is set here, since a
        # client that is forked knows nothing of what a test sets.
        patch("client.cache.notes.FRESH_SECONDS", 20),
        VendorClient(url, api_key) as client,
        EmbeddingCache(cache) as store,
    ):
        queries = random.Random(seed).sample(_texts(), WANTED)
        Buyer(client, store, model=client.model(), run_id=RUN, budget=budget).buy(queries)


def _kill_in_the_middle(rng: random.Random, vendor: VendorProcess, api_key: str, cache: Path) -> bool:
    """Whether it was still at work when it was killed."""
    charged = vendor.charges(api_key).entries
    process = CONTEXT.Process(target=_buy, args=(vendor.url, api_key, cache, WANTED, rng.randrange(10**6)))
    process.start()
    if rng.random() < 0.5:  # otherwise it dies while it starts, reads the cache and asks what it owes
        # The vendor counts what was asked and left as well, and then has the account wait, for up to 65 s.
        wait_until(lambda: vendor.charges(api_key).entries > charged, 90)
    time.sleep(rng.uniform(0, 0.25))
    process.kill()
    process.join()
    return process.exitcode == -9


@pytest.mark.parametrize(
    "rounds", [6, pytest.param(120, marks=pytest.mark.slow)], ids=lambda rounds: f"{rounds} rounds"
)
def test_a_client_that_is_killed_at_any_moment_pays_once_for_each_query(
    vendor_process: VendorProcess, tmp_path: Path, rounds: int
) -> None:
    api_key = vendor_process.create_key()
    cache = tmp_path / "cache.db"
    rng = random.Random(rounds)
    killed = sum(_kill_in_the_middle(rng, vendor_process, api_key, cache) for _ in range(rounds))
    assert killed == rounds

    charged = vendor_process.charges(api_key).queries
    assert 0 < charged < WANTED
    budget = charged + 100
    _buy(vendor_process.url, api_key, cache, budget, seed=-1)
    charges = vendor_process.charges(api_key)
    with EmbeddingCache(cache) as store, VendorClient(vendor_process.url, api_key) as client:
        spending = store.spending(RUN)
        kept = store.known(client.model().fingerprint, _texts())
        owed = store.notes.of_run(RUN)
        found = reconcile(client.ledger(), store.receipts(), client.key_id)
    assert charges.queries == len(kept) == spending.queries == budget
    assert charges.cost_micros == spending.cost_micros
    assert not owed
    assert not found.differences
    assert found.matched == charges.entries
    assert vendor_process.open_holds() == 0
