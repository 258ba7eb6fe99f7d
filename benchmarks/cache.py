"""The cache at a million entries: seconds to open, entries a second, its size to that of the vectors."""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.vendors.query import Query

FINGERPRINT = "fp_benchmark"
BATCH = 4096


def main() -> None:
    """Fill a cache in a temporary folder, measure it, and print what docs/buying.md quotes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder) / "cache.db", options.entries, options.dimensions)


def _measure(path: Path, entries: int, dimensions: int) -> None:
    queries = [Query.text(f"text {i}") for i in range(entries)]
    started = time.perf_counter()
    with EmbeddingCache(path) as cache:
        for first in range(0, entries, BATCH):
            cache.add(FINGERPRINT, _stored(queries[first : first + BATCH], dimensions))
    _say("stored", entries, started)
    started = time.perf_counter()
    cache = EmbeddingCache(path)
    print(f"opened in {time.perf_counter() - started:.3f} s")
    with cache:
        order = np.random.default_rng(0).permutation(entries)
        some = [queries[i] for i in order[: 25 * BATCH]]
        started = time.perf_counter()
        for first in range(0, len(some), BATCH):
            assert cache.rows(FINGERPRINT, some[first : first + BATCH], dimensions)[1].all()
        _say(f"read in random batches of {BATCH}", len(some), started)
        started = time.perf_counter()
        matrix, have = cache.rows(FINGERPRINT, queries[: entries // 2], dimensions)
        assert have.all()
        _say("read whole, as training does", len(have), started)
        positions = order[: 25 * BATCH] % len(matrix)
        started = time.perf_counter()
        for first in range(0, len(positions), BATCH):
            matrix[positions[first : first + BATCH]].sum()
        _say("drawn in batches from the matrix", len(positions), started)
    size = path.stat().st_size
    print(f"file: {size / 1e6:.0f} MB, {size / (4 * entries * dimensions):.3f} times the vectors")


def _stored(queries: list[Query], dimensions: int) -> Iterator[StoredEmbedding]:
    rows = np.random.default_rng(len(queries)).normal(size=(len(queries), dimensions)).astype("<f4")
    for query, row in zip(queries, rows, strict=True):
        yield StoredEmbedding(query.kind, bytes.fromhex(query.digest), row.tobytes())


def _say(what: str, entries: int, started: float) -> None:
    seconds = time.perf_counter() - started
    print(f"{what}: {entries} in {seconds:.1f} s, {entries / seconds:,.0f} a second", flush=True)


if __name__ == "__main__":
    main()
