"""Buy tens of thousands of images while the link is cut and vendor and client are killed; the books judge."""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.errors import VendorUnreachable
from client.proofs.reconciliation import reconcile
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from tests.support.cutting_proxy import CuttingProxy
from tests.support.forking import CONTEXT
from tests.support.vendor_process import VendorProcess, wait_until

RUN = "run"
# A batch of these images is some 30 kB, and its answer 33 kB: most connections live for a few batches.
UP = (20_000, 100_000, 300_000, 1_000_000)
DOWN = (10_000, 50_000, 200_000, 400_000)


def main() -> None:
    """Buy everything, whatever happens, and let the vendor's books judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two kills, on average")
    options = parser.parse_args()
    dice = random.Random(options.images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        books = VendorProcess(folder)
        with _killed_vendor(folder, books.database_url, options.every, dice) as (vendor, vendor_kills):
            key = books.create_key(quota=options.images)
            paths = write_images(folder / "images", options.images)
            with CuttingProxy(int(vendor.url.rpartition(":")[2]), 0, UP, DOWN) as proxy:
                started = time.perf_counter()
                client_kills = _buy_through_kills(proxy.url, key, paths, folder, options.every, dice)
                seconds = time.perf_counter() - started
            print(f"{options.images} images in {seconds:.0f} s; connections cut: {proxy.cuts}")
            print(f"kills of the client: {client_kills}; of the vendor: {vendor_kills()}", flush=True)
            _judge(vendor.url, books, key, paths, folder)


def write_images(folder: Path, count: int) -> list[Path]:
    """So many distinct images of 16 x 16 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return paths


@contextmanager
def _killed_vendor(
    folder: Path, database_url: str, every: float, dice: random.Random
) -> Iterator[tuple[VendorProcess, Callable[[], int]]]:
    """A vendor that is killed and started again, until the end; and how often that was, so far."""
    vendor = VendorProcess(folder, "--migrate", database_url=database_url)
    vendor.forked = True
    vendor.start()
    over = threading.Event()
    kills = 0

    def kill_and_restart() -> None:
        nonlocal kills
        while not over.wait(dice.uniform(0.5, 1.5) * every):
            vendor.kill()
            vendor.start()
            kills += 1

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    try:
        yield vendor, lambda: kills
    finally:
        over.set()
        killer.join()
        vendor.kill()


def _buy_through_kills(
    url: str, key: str, paths: list[Path], folder: Path, every: float, dice: random.Random
) -> int:
    """Start the client until it has everything, and kill it while it has not; how often that was."""
    kills = 0
    while True:
        client = CONTEXT.Process(target=_buy, args=(url, key, paths, folder))
        client.start()
        client.join(dice.uniform(0.5, 1.5) * every)
        if client.exitcode == 0:
            return kills
        kills += client.exitcode is None
        client.kill()
        client.join()


def _buy(url: str, key: str, paths: list[Path], folder: Path) -> None:
    """Buy what the cache lacks; fail where the vendor does not answer for long."""
    with VendorClient(url, key) as client, EmbeddingCache(folder / "cache.db") as cache:
        queries = [Query.image_file(path) for path in paths]
        with suppress(VendorUnreachable):
            Buyer(client, cache, model=client.model(), run_id=RUN, budget=len(paths)).buy(queries)
            return
    raise SystemExit(1)


def _judge(url: str, books: VendorProcess, key: str, paths: list[Path], folder: Path) -> None:
    """Compare embeddings, receipts and ledger; anything amiss is an error."""
    queries = [Query.image_file(path) for path in paths]
    with VendorClient(url, key) as client, EmbeddingCache(folder / "cache.db") as cache:
        have = len(cache.known(client.model().fingerprint, queries))
        found = reconcile(client.ledger(), cache.receipts(), client.key_id)
        owed = len(cache.notes.of_run())
    charges = books.charges(key)
    wait_until(lambda: books.open_holds() == 0, seconds=60)
    print(f"embeddings: {have}; queries charged: {charges.queries}, in {charges.entries} ledger entries")
    print(f"receipts that are charges: {found.matched}; differences: {len(found.differences)}; owed: {owed}")
    assert have == charges.queries == len(paths)
    assert found.matched == charges.entries
    assert not found.differences
    assert not owed
    assert books.problem(key) is None


if __name__ == "__main__":
    main()
