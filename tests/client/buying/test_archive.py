"""What is exported comes back bit for bit, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from client.buying.archive import export_embeddings, import_embeddings
from client.buying.cache import EmbeddingCache, Stored
from client.buying.queries import Query
from client.errors import CacheError, UsageError
from shared.encoding import Vector

QUERIES = [Query.text(f"text {i}") for i in range(700)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        yield cache


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "other.db") as cache:
        yield cache


def _fill(cache: EmbeddingCache, fingerprint: str = "fp_1") -> dict[Query, Vector]:
    rows = np.random.default_rng(0).normal(size=(len(QUERIES), 8)).astype(np.float32)
    entries = [
        Stored(query.kind, bytes.fromhex(query.digest), row.tobytes())
        for query, row in zip(QUERIES, rows, strict=True)
    ]
    assert cache.add(fingerprint, entries) == len(QUERIES)
    return dict(zip(QUERIES, rows, strict=True))


def test_what_is_exported_comes_back_bit_for_bit(
    cache: EmbeddingCache, other: EmbeddingCache, tmp_path: Path
) -> None:
    vectors = _fill(cache)
    file = tmp_path / "out.safetensors"
    assert export_embeddings(cache, file) == 700
    assert import_embeddings(other, file) == (700, 700)
    assert import_embeddings(other, file) == (0, 700)
    found = other.lookup("fp_1", QUERIES)
    assert {query: found[query].tobytes() for query in QUERIES} == {
        query: vectors[query].tobytes() for query in QUERIES
    }
    assert other.verify() == 0


def test_a_flipped_bit_in_the_file_is_never_imported(
    cache: EmbeddingCache, other: EmbeddingCache, tmp_path: Path
) -> None:
    _fill(cache)
    file = tmp_path / "out.safetensors"
    export_embeddings(cache, file)
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        import_embeddings(other, file)
    assert not other.holdings()


def test_half_precision_is_for_other_tools(cache: EmbeddingCache, tmp_path: Path) -> None:
    vectors = _fill(cache)
    file = tmp_path / "out.safetensors"
    export_embeddings(cache, file, half=True)
    tensors = load_file(file)
    assert tensors["embeddings"].dtype == np.float16
    assert np.allclose(tensors["embeddings"], np.stack([vectors[q] for q in QUERIES]), atol=2e-3)
    assert tensors["digests"][0].tobytes().hex() == QUERIES[0].digest
    with pytest.raises(UsageError, match="rounded"):
        import_embeddings(cache, file)


def test_models_do_not_mix_in_a_file(cache: EmbeddingCache, tmp_path: Path) -> None:
    file = tmp_path / "out.safetensors"
    with pytest.raises(UsageError, match="empty"):
        export_embeddings(cache, file)
    _fill(cache, "fp_1")
    _fill(cache, "fp_2")
    with pytest.raises(UsageError, match="fp_1, fp_2"):
        export_embeddings(cache, file)
    assert export_embeddings(cache, file, fingerprint="fp_2") == 700


def test_what_cannot_be_written_or_read_is_said(cache: EmbeddingCache, tmp_path: Path) -> None:
    _fill(cache)
    with pytest.raises(CacheError, match="cannot be written"):
        export_embeddings(cache, tmp_path / "missing" / "out.safetensors")
    for content in (b"", b"something else"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read"):
            import_embeddings(cache, tmp_path / "bad")
