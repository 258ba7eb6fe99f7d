"""What was paid for is kept bit for bit, shared, checked, and owed answers are remembered."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from client.cache import file as cache_file
from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer
from client.errors import Bill, CacheError, ClientError
from client.vendors.query import Query, Spending
from shared.embeddings import Prices
from shared.encoding import Vector
from shared.kinds import Usage
from tests.support.forking import CONTEXT
from tests.support.sqlite_writer import writing

DIMENSIONS = 8


def _batch(*names: str, key: str = "key", run: str = "run") -> Batch:
    return Batch(key, run, "fp_1", tuple(Query.text(name) for name in names))


def _vectors(batch: Batch, seed: int = 0) -> dict[Query, Vector]:
    rows = np.random.default_rng(seed).normal(size=(len(batch.queries), DIMENSIONS)).astype(np.float32)
    return dict(zip(batch.queries, rows, strict=True))


def _usage(texts: int) -> Usage:
    return Usage(images=0, texts=texts, billed_queries=texts, cost_micros=20 * texts)


def _store(cache: EmbeddingCache, batch: Batch) -> dict[Query, Vector]:
    vectors = _vectors(batch)
    cache.begin(batch)
    cache.commit(batch, vectors, _usage(len(batch.queries)), "req_1")
    return vectors


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "folder" / "cache.db") as cache:
        yield cache


def test_embeddings_come_back_bit_for_bit_and_survive_reopening(cache: EmbeddingCache) -> None:
    batch = _batch("cat", "dog")
    vectors = _store(cache, batch)
    with EmbeddingCache(cache.path) as reopened:
        found = reopened.lookup("fp_1", batch.queries)
    assert {query: vector.tobytes() for query, vector in found.items()} == {
        query: vector.tobytes() for query, vector in vectors.items()
    }


def test_another_fingerprint_or_kind_is_another_embedding(cache: EmbeddingCache) -> None:
    batch = _batch("cat")
    _store(cache, batch)
    image = Query("image", batch.queries[0].digest, "cat", lambda: b"cat")
    assert not cache.lookup("fp_2", batch.queries)
    assert not cache.lookup("fp_1", [image])


def test_a_matrix_marks_what_is_missing(cache: EmbeddingCache) -> None:
    batch = _batch("cat")
    vectors = _store(cache, batch)
    matrix, have = cache.rows("fp_1", [Query.text("dog"), batch.queries[0]], DIMENSIONS)
    assert have.tolist() == [False, True]
    assert np.isnan(matrix[0]).all()
    assert (matrix[1] == vectors[batch.queries[0]]).all()


def _damage(cache: EmbeddingCache, query: Query, column: str) -> None:
    """Flip the lowest bit of the first byte of what is stored for a query."""
    digest = bytes.fromhex(query.digest)
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        (blob,) = connection.execute(
            f"SELECT {column} FROM embeddings WHERE digest = ?", (digest,)
        ).fetchone()
        flipped = bytes([blob[0] ^ 1]) + blob[1:]
        connection.execute(f"UPDATE embeddings SET {column} = ? WHERE digest = ?", (flipped, digest))


def test_a_flipped_bit_is_never_returned(cache: EmbeddingCache) -> None:
    batch = _batch("cat", "dog")
    _store(cache, batch)
    _damage(cache, batch.queries[0], "vector")
    said: list[str] = []
    with EmbeddingCache(cache.path, on_damage=said.append) as reopened:
        for _ in range(2):
            assert set(reopened.lookup("fp_1", batch.queries)) == {batch.queries[1]}
        assert reopened.rows("fp_1", batch.queries, DIMENSIONS)[1].tolist() == [False, True]
        assert reopened.known("fp_1", batch.queries) == {batch.queries[1]}
    assert len(said) == 1
    assert "missing: 1" in said[0]


@pytest.mark.parametrize("column", ["vector", "digest"])
def test_damage_is_found_pruned_and_bought_again(cache: EmbeddingCache, column: str) -> None:
    batch = _batch("cat", "dog")
    _store(cache, batch)
    assert cache.verify() == 0
    _damage(cache, batch.queries[0], column)
    assert cache.verify() == 1
    assert len(list(cache.stored("fp_1"))) == 1
    assert cache.prune(None) == 1
    assert cache.verify() == 0
    again = _batch("cat", key="again")
    vectors = _store(cache, again)
    assert (cache.lookup("fp_1", again.queries)[again.queries[0]] == vectors[again.queries[0]]).all()


def test_a_model_is_pruned_alone_and_its_receipts_stay(cache: EmbeddingCache) -> None:
    _store(cache, _batch(*(str(i) for i in range(1200)), key="1"))
    _store(cache, Batch("2", "run", "fp_2", (Query.text("a"),)))
    cache._file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = cache.path.stat().st_size
    assert cache.prune("fp_1") == 1200
    assert [(h.fingerprint, h.kind, h.embeddings) for h in cache.holdings()] == [("fp_2", "text", 1)]
    assert cache.path.stat().st_size < size
    assert cache.paid() == Spending(1201, 1201 * 20)


def _meanwhile(monkeypatch: pytest.MonkeyPatch, on: object, method: str, act: Callable[[], object]) -> None:
    """Act just before the next call of a method."""
    called = getattr(on, method)

    def first_act(*arguments: object) -> object:
        monkeypatch.setattr(on, method, called)
        act()
        return called(*arguments)

    monkeypatch.setattr(on, method, first_act)


def test_what_is_bought_of_a_model_while_it_is_pruned_is_never_without_an_origin(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store(cache, _batch("cat"))
    bought = _batch("dog", key="2")
    with EmbeddingCache(cache.path) as other:
        _meanwhile(monkeypatch, cache._file, "transaction", lambda: _store(other, bought))
        assert cache.prune("fp_1") == 2
    assert cache.origins("fp_1", bought.queries) == {}


def test_a_model_that_is_pruned_while_its_origins_are_read_is_of_nobody_known(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _batch("cat")
    cache.commit(batch, _vectors(batch), _usage(1), "req_1", Payer("http://vendor:80"))
    with EmbeddingCache(cache.path) as other:
        _meanwhile(monkeypatch, cache._file, "origins", lambda: other.prune("fp_1"))
        assert cache.origins("fp_1", batch.queries) == {batch.queries[0]: ("", 0)}


def test_what_is_bought_in_the_place_of_something_damaged_is_not_pruned(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store(cache, _batch("cat"))
    _damage(cache, _batch("cat").queries[0], "vector")
    bought = _batch("dog", key="2")
    with EmbeddingCache(cache.path) as other:

        def replace() -> None:
            other.prune(None)
            _store(other, bought)

        _meanwhile(monkeypatch, cache._file, "transaction", replace)
        assert cache.prune(None) == 0
    assert cache.known("fp_1", bought.queries) == set(bought.queries)


def _in_files(cache: EmbeddingCache, query: Query) -> bool:
    files = cache.path.parent.glob(f"{cache.path.name}*")
    return any(bytes.fromhex(query.digest) in file.read_bytes() for file in files if file.is_file())


def test_nothing_of_what_is_forgotten_is_left_in_the_files_of_a_cache_that_others_have_open(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tuple(Query("image", hashlib.sha256(bytes([n])).hexdigest(), "", bytes) for n in range(9))
    _store(cache, Batch("1", "run", "fp_1", images))
    monkeypatch.setattr(cache_file, "_BUSY_SECONDS", 0.1)
    doomed = [image.digest for image in images[::2]]
    with EmbeddingCache(cache.path) as other:
        cache._file.connection.execute("BEGIN")
        cache._file.connection.execute("SELECT * FROM embeddings").fetchone()
        with pytest.raises(CacheError, match="still in its files"):
            other.forget(doomed)
        cache._file.connection.execute("COMMIT")
        assert other.forget(doomed) == 0  # they were deleted before
        assert [_in_files(cache, image) for image in images] == [False, True] * 4 + [False]


def test_a_large_cache_is_read_once_through_and_an_image_is_found_in_it_without_reading_the_others(
    cache: EmbeddingCache,
) -> None:
    images = tuple(Query("image", hashlib.sha256(bytes([n])).hexdigest(), "", bytes) for n in range(9))
    _store(cache, Batch("1", "run", "fp_1", images))
    connection, traced = cache._file.connection, list[str]()
    connection.set_trace_callback(traced.append)
    assert len(list(cache.stored("fp_1"))) == 9
    assert cache.forget([image.digest for image in images]) == 9
    connection.set_trace_callback(None)
    asked = [each for each in traced if each.startswith(("SELECT", "DELETE"))]
    assert len(asked) == 12  # the model, two chunks, of which one is empty, and nine images
    for statement in asked:
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            assert "SCAN" not in step
            assert "TEMP B-TREE" not in step


def test_others_may_write_while_many_images_are_forgotten(cache: EmbeddingCache) -> None:
    images = tuple(Query("image", f"{n:064x}", "", bytes) for n in range(1200))
    _store(cache, Batch("1", "run", "fp_1", images))
    traced: list[str] = []
    cache._file.connection.set_trace_callback(traced.append)
    assert cache.forget([image.digest for image in images]) == 1200
    assert traced.count("BEGIN IMMEDIATE") == traced.count("COMMIT") == 3


def test_more_queries_than_one_statement_takes(cache: EmbeddingCache) -> None:
    batch = _batch(*(str(i) for i in range(2100)))
    _store(cache, batch)
    assert len(cache.lookup("fp_1", batch.queries)) == 2100


def test_spending_is_counted_by_run(cache: EmbeddingCache) -> None:
    _store(cache, _batch("a", "b", key="1"))
    _store(cache, _batch("c", key="2"))
    _store(cache, _batch("d", key="3", run="other"))
    assert cache.spending("run") == Spending(3, 60)
    assert cache.spending("nobody") == Spending(0, 0)


def test_a_receipt_counts_once_however_often_it_comes(cache: EmbeddingCache) -> None:
    for _ in range(2):
        _store(cache, _batch("a"))
    assert cache.spending("run") == Spending(1, 20)


def test_what_was_sent_and_not_answered_is_remembered_with_its_content(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    image = tmp_path / "cat.png"
    image.write_bytes(b"pixels")
    batch = Batch("key", "run", "fp_1", (Query.text("a cat"), Query.image_file(image)))
    cache.begin(batch)
    with EmbeddingCache(cache.path) as reopened:
        (note,) = reopened.notes.of_run("run")
    owed = note.batch
    assert owed == batch
    assert [query.content() for query in owed.queries] == [b"a cat", b"pixels"]
    assert not cache.notes.of_run("other")
    cache.commit(owed, _vectors(owed), _usage(2), "req")
    assert not cache.notes.of_run("run")


def test_a_refused_batch_is_owed_nothing(cache: EmbeddingCache) -> None:
    cache.begin(_batch("a"))
    cache.abandon(_batch("a"))
    assert not cache.notes.of_run("run")


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"before")
    query = Query.image_file(path)
    path.write_bytes(b"after")
    with pytest.raises(ValueError, match="changed"):
        query.content()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"gone\.png cannot be read: No such file"):
        Query.image_file(tmp_path / "gone.png")


def test_sales_are_those_of_the_model(cache: EmbeddingCache) -> None:
    _store(cache, _batch("a", "b", key="k"))
    (sale,) = cache.billed.sales("fp_1")
    assert (sale.run_id, sale.counts) == ("run", {"text": 2})
    assert cache.billed.sales("fp_2") == []


def test_threads_share_one_cache(cache: EmbeddingCache) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: _store(cache, _batch(f"text {i}", key=str(i))), range(60)))
    assert cache.spending("run").queries == 60


def _write_some(path: Path, process: int) -> None:
    with EmbeddingCache(path) as cache:
        for i in range(25):
            _store(cache, _batch(f"{process}/{i}", key=f"{process}/{i}"))


def test_processes_share_one_cache_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    processes = [CONTEXT.Process(target=_write_some, args=(path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with EmbeddingCache(path) as cache:
        assert cache.spending("run").queries == 75


def test_a_cache_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with writing(path, 0.3), EmbeddingCache(path) as cache:
        assert _store(cache, _batch("a"))


def test_a_full_disk_loses_nothing_and_is_said(cache: EmbeddingCache) -> None:
    _store(cache, _batch("before"))
    (pages,) = cache._file.connection.execute("PRAGMA page_count").fetchone()
    cache._file.connection.execute(f"PRAGMA max_page_count = {pages}")
    large = _batch(*(str(i) for i in range(2000)), key="large")
    with pytest.raises(CacheError, match="room on the disk"):
        cache.commit(large, _vectors(large), _usage(2000), "req_2")
    cache._file.connection.execute("PRAGMA max_page_count = 1000000")
    assert not cache.lookup("fp_1", large.queries)
    cache.commit(large, _vectors(large), _usage(2000), "req_2")
    assert cache.spending("run").queries == 2001


def test_a_cache_that_the_disk_has_no_room_for_is_said_to_have_none(small_disk: Path) -> None:
    with (small_disk / "others").open("wb") as file, suppress(OSError):
        file.write(bytes(2**20 - 200_000))
    with pytest.raises(CacheError, match="disk is full"):
        EmbeddingCache(small_disk / "cache.db")


@pytest.mark.parametrize("trouble", ["not a database", "a folder", "another version", "no folder"])
def test_a_cache_that_cannot_be_used_is_said_to_be_one(tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "cache.db"
    if trouble == "not a database":
        path.write_bytes(b"something else entirely" * 100)
    elif trouble == "a folder":
        path.mkdir()
    elif trouble == "another version":
        with EmbeddingCache(path) as other:
            other._file.connection.execute("PRAGMA user_version = 3")
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "cache.db"
    with pytest.raises(CacheError, match=r"cache"):
        EmbeddingCache(path)


@pytest.mark.parametrize("version", [0, 3])
def test_a_file_of_another_program_is_no_cache_and_stays_as_it_is(tmp_path: Path, version: int) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(CacheError, match="made for something else"):
        EmbeddingCache(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "program",
    [
        "CREATE TRIGGER t AFTER INSERT ON receipts BEGIN DELETE FROM receipts; END",
        "ALTER TABLE models RENAME TO m; CREATE VIEW models AS SELECT * FROM m",
        "CREATE INDEX i ON receipts (abs(cost_micros))",
        "ALTER TABLE notes ADD COLUMN more INTEGER AS (noted_at)",
    ],
)
def test_no_program_in_somebody_elses_cache_is_run(tmp_path: Path, program: str) -> None:
    with EmbeddingCache(tmp_path / "cache.sqlite"):
        pass
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as file:
        file.executescript(program)
    with pytest.raises(CacheError, match="made for something else"):
        EmbeddingCache(tmp_path / "cache.sqlite")


def test_receipts_say_which_key_paid_and_notes_what_is_owed(cache: EmbeddingCache) -> None:
    _store(cache, _batch("cat"))
    other = _batch("dog", key="other")
    cache.begin(other)
    assert len(cache.notes.of_run()) == 1
    cache.commit(other, _vectors(other), _usage(1), "req_2", Payer(None, "0123"))
    assert {(each.request_id, each.key_id) for each in cache.receipts()} == {
        ("req_1", None),
        ("req_2", "0123"),
    }
    assert not cache.notes.of_run()


def test_a_bill_counts_for_a_note_of_its_own_sender_alone(cache: EmbeddingCache) -> None:
    """What another vendor, or another account, has billed under the same key leaves the note owed whole."""
    batch = _batch("cat")
    cache.begin(batch, payer=Payer("http://vendor:80", "a"))
    (note,) = cache.notes.of_run()
    for number, payer in enumerate((Payer("http://other:80", "a"), Payer("http://vendor:80", "b"))):
        cache.reject(batch, Bill(f"req_{number}", "fp_1", _usage(1)), "not finite", payer)
    prices = Prices(image_micros=100, text_micros=20)
    assert cache.billed.owed(note, prices).spending == Spending(1, 20)
    cache.reject(batch, Bill("req_own", "fp_1", _usage(1)), "not finite", Payer("http://vendor:80", "a"))
    assert cache.billed.owed(note, prices).spending == Spending(0, 0)


def test_a_cache_of_float16_is_half_as_large_and_stays_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = {
        Query.text(f"text {i}"): (v / np.linalg.norm(v)).astype(np.float32)
        for i, v in enumerate(rng.normal(size=(2000, 256)))
    }
    sizes = {}
    for half in (False, True):
        path = tmp_path / f"{half}.db"
        with EmbeddingCache(path, half=half) as cache:
            batch = Batch("key", "run", "fp_1", tuple(vectors))
            usage = Usage(images=0, texts=2000, billed_queries=2000, cost_micros=0)
            cache.commit(batch, vectors, usage, "req")
        with EmbeddingCache(path, half=not half) as cache:  # it stays what it was made as
            assert cache.verify() == 0
            found = cache.lookup("fp_1", list(vectors))
            error = max(float(abs(found[query] - vector).max()) for query, vector in vectors.items())
            assert error < 1e-3 if half else error == 0
        sizes[half] = path.stat().st_size
    assert sizes[True] < 0.65 * sizes[False]
