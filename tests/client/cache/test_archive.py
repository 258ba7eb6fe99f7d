"""What is exported comes back bit for bit, or not at all."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from client.cache.archive import SUFFIXES, export_embeddings, import_embeddings
from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.errors import CacheError, UsageError
from client.vendors.query import Query
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
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    entries = [
        StoredEmbedding(query.kind, bytes.fromhex(query.digest), row.tobytes())
        for query, row in zip(QUERIES, rows, strict=True)
    ]
    assert cache.add(fingerprint, entries) == len(QUERIES)
    return dict(zip(QUERIES, rows, strict=True))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_exported_comes_back_bit_for_bit(
    cache: EmbeddingCache, other: EmbeddingCache, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.cache.archive._PIECE", 300)
    vectors = _fill(cache)
    file = tmp_path / f"out{suffix}"
    assert export_embeddings(cache, file) == 700
    assert import_embeddings(other, file) == (700, 700)
    assert import_embeddings(other, file) == (0, 700)
    found = other.lookup("fp_1", QUERIES)
    assert {query: found[query].tobytes() for query in QUERIES} == {
        query: vectors[query].tobytes() for query in QUERIES
    }
    assert other.verify() == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_bought_meanwhile_is_not_exported(
    cache: EmbeddingCache, other: EmbeddingCache, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(cache)
    stored, late = cache.stored, np.eye(8, dtype=np.float32)[0].tobytes()

    def bought_meanwhile(fingerprint: str) -> Iterator[StoredEmbedding]:
        with EmbeddingCache(tmp_path / "cache.db") as buyer:
            assert buyer.add(fingerprint, [StoredEmbedding("text", bytes(32), late)]) == 1
        return stored(fingerprint)

    monkeypatch.setattr(cache, "stored", bought_meanwhile)
    assert export_embeddings(cache, tmp_path / f"out{suffix}") == len(QUERIES)
    assert import_embeddings(other, tmp_path / f"out{suffix}") == (len(QUERIES), len(QUERIES))
    assert len(other.lookup("fp_1", QUERIES)) == len(QUERIES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_the_file_is_never_imported(
    cache: EmbeddingCache, other: EmbeddingCache, tmp_path: Path, suffix: str
) -> None:
    vectors = _fill(cache)
    file = tmp_path / f"out{suffix}"
    export_embeddings(cache, file)
    content = bytearray(file.read_bytes())
    content[content.index(vectors[QUERIES[699]].tobytes()) + 2] ^= 1  # after hundreds that are intact
    file.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        import_embeddings(other, file)
    assert not other.holdings()


def test_half_precision_is_for_other_tools_and_caches_of_float16(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    vectors = _fill(cache)
    file = tmp_path / "out.safetensors"
    export_embeddings(cache, file, half=True)
    tensors = load_file(file)
    assert tensors["embeddings"].dtype == np.float16
    assert np.allclose(tensors["embeddings"], np.stack([vectors[q] for q in QUERIES]), atol=2e-3)
    assert tensors["digests"][0].tobytes().hex() == QUERIES[0].digest
    with pytest.raises(UsageError, match="rounded"):
        import_embeddings(cache, file)
    exact = tmp_path / "exact.parquet"
    export_embeddings(cache, exact)
    for source in (file, exact):
        with EmbeddingCache(tmp_path / f"{source.stem}-half.db", half=True) as small:
            assert import_embeddings(small, source) == (700, 700)
            assert small.verify() == 0
            found, have = small.rows("fp_1", QUERIES, 8)
            assert have.all()
            assert (found.astype(np.float16) == tensors["embeddings"]).all()
            again = tmp_path / "again.parquet"
            assert export_embeddings(small, again) == 700
        assert pq.read_table(again).schema.field("embedding").type == pa.list_(pa.float16(), 8)


def test_parquet_is_what_other_tools_read(cache: EmbeddingCache, tmp_path: Path) -> None:
    vectors = _fill(cache)
    export_embeddings(cache, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["kind", "digest", "checksum", "embedding"]
    assert table.schema.metadata[b"fingerprint"] == b"fp_1"
    first = table.to_pylist()[0]
    assert (first["kind"], first["digest"].hex()) == ("text", QUERIES[0].digest)
    assert first["embedding"] == vectors[QUERIES[0]].tolist()


def test_without_pyarrow_it_is_said_what_to_install(
    cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(cache)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'tuition\[parquet\]'"):
        export_embeddings(cache, tmp_path / "out.parquet")
    assert list(tmp_path.glob("out*")) == []


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
    (tmp_path / "file").write_bytes(b"")
    for suffix in SUFFIXES:
        with pytest.raises(CacheError, match="cannot be written"):
            export_embeddings(cache, tmp_path / "file" / f"out{suffix}")
    with pytest.raises(UsageError, match=r"\.parquet"):
        export_embeddings(cache, tmp_path / "out.npy")
    for content in (b"", b"something else"):
        for suffix in SUFFIXES:
            bad = tmp_path / f"bad{suffix}"
            bad.write_bytes(content)
            with pytest.raises(UsageError, match="cannot be read"):
                import_embeddings(cache, bad)
    pq.write_table(pa.table({"embedding": [[1.0, 2.0]]}), tmp_path / "other.parquet")
    with pytest.raises(UsageError, match="not written by"):
        import_embeddings(cache, tmp_path / "other.parquet")


def _forged(folder: Path, suffix: str, **changes: Any) -> Path:
    """A file as `export_embeddings` writes it, with right checksums, but for what is changed."""
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    columns: dict[str, Any] = {
        "embeddings": vectors,
        "kinds": [0, 1],
        "digests": [b"a" * 32, b"b" * 32],
    } | changes
    vectors = columns["embeddings"]
    checksums = [
        StoredEmbedding("text", digest, vector.tobytes()).checksum
        for digest, vector in zip(columns["digests"], vectors, strict=True)
    ]
    metadata = {"format": "tuition-embeddings-1", "fingerprint": "fp_1"}
    file = folder / f"forged{suffix}"
    if suffix == ".safetensors":
        tensors: dict[str, Any] = {
            "embeddings": vectors,
            "digests": np.frombuffer(b"".join(columns["digests"]), np.uint8).reshape(len(vectors), -1),
            "kinds": np.array(columns["kinds"], np.uint8),
            "checksums": np.array(checksums, np.uint32),
        }
        save_file(tensors, file, metadata=metadata)
        return file
    kinds = ["text" if kind == 0 else "image" if kind == 1 else "sound" for kind in columns["kinds"]]
    table = pa.table(
        {
            "kind": kinds,
            "digest": columns["digests"],
            "checksum": pa.array(checksums, pa.uint32()),
            "embedding": pa.array(vectors.tolist(), pa.list_(pa.float32(), vectors.shape[1])),
        },
        metadata=metadata,
    )
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"embeddings": np.array([[1e38, 0.8], [1.0, 0.0]], np.float32)}, "length 1"),
        ({"embeddings": np.array([[np.nan, 0.8], [1.0, 0.0]], np.float32)}, "length 1"),
        ({"embeddings": np.array([[0.6, 0.81], [1.1, 0.0]], np.float32)}, "length 1"),
        ({"digests": [b"short", b"short"]}, "cannot be read|neither a text"),
        ({"kinds": [0, 7]}, "neither a text nor an image"),
        ({"digests": [b"a" * 32] * 2, "kinds": [0, 0]}, "other embeddings of the same"),
    ],
)
def test_what_no_vendor_sells_is_not_imported(
    cache: EmbeddingCache, tmp_path: Path, suffix: str, forged: dict[str, Any], said: str
) -> None:
    assert import_embeddings(cache, _forged(tmp_path, suffix)) == (2, 2)
    cache.prune("fp_1")
    with pytest.raises(UsageError, match=said):
        import_embeddings(cache, _forged(tmp_path, suffix, **forged))
    assert not cache.holdings()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_differs_from_the_cache_is_not_imported(
    cache: EmbeddingCache, tmp_path: Path, suffix: str
) -> None:
    import_embeddings(cache, _forged(tmp_path, suffix))
    turned = np.array([[0.8, 0.6], [1.0, 0.0]], np.float32)
    wider = np.array([[0.6, 0.8, 0.0], [1.0, 0.0, 0.0]], np.float32)
    for embeddings, said in ((turned, "by 0.2 in a component"), (wider, "3 dimensions, not 2")):
        with pytest.raises(UsageError, match=said):
            import_embeddings(cache, _forged(tmp_path, suffix, embeddings=embeddings))
    assert sum(holding.embeddings for holding in cache.holdings()) == 2


def test_a_file_that_unpacks_to_more_than_it_can_be_is_not_unpacked(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    bomb = {"digests": [b"a" * 2**24, b"b" * 2**24]}
    file = _forged(tmp_path, ".parquet", **bomb)
    assert file.stat().st_size < 2**22
    with pytest.raises(UsageError, match="unpack to"):
        import_embeddings(cache, file)
