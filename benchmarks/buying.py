"""How near `client` comes to what the vendor can serve: both are measured in one run, against one vendor."""

import argparse
import os
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from client.vendors.wire import ACCEPT, embed_form
from shared.embeddings import ModelCard
from tests.support.vendor_process import VendorProcess

BATCH_SIZE = 32
CONNECTIONS = (4, 8, 16)


def main() -> None:
    """Measure bare load at several concurrencies, then the client, in turns; print rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048, help="how many images each measurement embeds")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, VendorProcess(Path(folder)) as vendor:
        api_key = vendor.create_key()
        queries = _images(Path(folder), options.images)
        loads: list[float] = []
        clients: list[float] = []
        for turn in range(options.rounds):
            loads.append(max(_load(vendor.url, api_key, queries, connections) for connections in CONNECTIONS))
            clients.append(_client(vendor.url, api_key, queries, Path(folder) / f"cache-{turn}.db"))
            print(f"round {turn}: load {loads[-1]:.0f}, client {clients[-1]:.0f} images a second", flush=True)
    ratio = sorted(clients)[len(clients) // 2] / sorted(loads)[len(loads) // 2]
    print(f"{os.cpu_count()} cores; the client reaches {ratio:.2f} of a saturating load")


def _images(folder: Path, images: int) -> list[Query]:
    """Distinct images of 64 x 64 pixels, as files."""
    rng = np.random.default_rng(0)
    queries = []
    for i in range(images):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        queries.append(Query.image_file(path))
    return queries


def _load(url: str, api_key: str, queries: list[Query], connections: int) -> float:
    """Images a second of bare requests, their bodies made beforehand and their answers thrown away."""
    with VendorClient(url, api_key) as client:
        model: ModelCard = client.model()
    batches = [queries[start : start + BATCH_SIZE] for start in range(0, len(queries), BATCH_SIZE)]
    forms = [embed_form([(query, query.content()) for query in batch], model.id) for batch in batches]
    turns = count()
    headers = {"authorization": f"Bearer {api_key}", "accept": ACCEPT}

    def send() -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=120) as http:
            while (turn := next(turns)) < len(forms):
                content_type = {"content-type": forms[turn].content_type}
                http.post("/embed", content=forms[turn].body, headers=content_type).raise_for_status()

    threads = [threading.Thread(target=send) for _ in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(queries) / (time.perf_counter() - started)


def _client(url: str, api_key: str, queries: list[Query], cache: Path) -> float:
    """Images a second of a purchase: read, sent, answered and stored."""
    with VendorClient(url, api_key) as client, EmbeddingCache(cache) as store:
        teacher = Buyer(client, store, model=client.model(), run_id=cache.name, budget=None)
        started = time.perf_counter()
        purchase = teacher.buy(queries)
        seconds = time.perf_counter() - started
    assert purchase.bought == len(queries)
    return len(queries) / seconds


if __name__ == "__main__":
    main()
