"""Everything that was ever paid for: embeddings, receipts, and requests whose answer is still owed."""

import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.buying.queries import Query
from client.errors import CacheError
from shared.embeddings import Usage
from shared.encoding import WIRE_DTYPE, Vector

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS embeddings (
    key BLOB PRIMARY KEY,
    vector BLOB NOT NULL,       -- little-endian float32
    checksum INTEGER NOT NULL   -- CRC-32 of vector
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    idempotency_key TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    images INTEGER NOT NULL,
    texts INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    received_at TEXT NOT NULL,
    key_id TEXT                 -- the public half of the API key, NULL in older receipts
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_by_run ON receipts (run_id);
CREATE TABLE IF NOT EXISTS pending (
    idempotency_key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    queries TEXT NOT NULL       -- JSON: [[kind, digest, name], ...] in the order sent
) WITHOUT ROWID;
"""
# SQLite's default limit on variables in one statement, kept well below.
_CHUNK = 500


@dataclass(frozen=True)
class Pack:
    """The queries of one request, and the key under which the vendor charges it once at most."""

    idempotency_key: str
    run_id: str
    fingerprint: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Spending:
    """What a run has paid: queries, and millionths of the vendor's currency unit."""

    queries: int
    cost_micros: int


@dataclass(frozen=True)
class Receipt:
    """What one paid request brought and cost; `key_id` is the public half of the API key, if it was noted."""

    request_id: str
    fingerprint: str
    images: int
    texts: int
    cost_micros: int
    key_id: str | None


class EmbeddingCache:
    """One SQLite file, shared by runs, threads and processes; every change is durable when a call returns.

    A pack is noted as pending before it is sent, and its answer is stored, with the receipt, in the
    transaction that clears the note. So after a crash at any moment the same pack can be sent again under
    the same key, and a vendor that had charged it answers without charging.
    """

    def __init__(self, path: Path, *, on_damage: Callable[[str], None] = lambda _: None) -> None:
        """Open the file, or create it.

        Args:
            path: the file; its folder is made if need be.
            on_damage: told, once, of entries whose checksum does not match; they count as missing.

        Raises:
            CacheError: it cannot be opened, is damaged, or was written by a newer Tuition.
        """
        self.path = path
        self._lock = threading.Lock()
        self._on_damage = on_damage
        self._damaged: set[bytes] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"The cache folder {path.parent} cannot be made: {error.strerror}.") from error
        with self._translated():
            self._connection = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # an interrupted purchase may be storing a last answer
            self._connection.close()

    def lookup(self, fingerprint: str, queries: Sequence[Query]) -> dict[Query, Vector]:
        """The embeddings that the cache has, float32 of shape (dimensions,), bit for bit as they were sold.

        An entry whose checksum does not match is left out.
        """
        keys = {query.cache_key(fingerprint): query for query in queries}
        found: dict[Query, Vector] = {}
        damaged: set[bytes] = set()
        for key, blob, checksum in self._select(keys):
            if zlib.crc32(blob) == checksum:
                found[keys[key]] = np.frombuffer(blob, dtype=WIRE_DTYPE).astype(np.float32)
            else:
                damaged.add(key)
        if new := damaged - self._damaged:
            self._damaged |= new
            self._on_damage(f"Damaged entries in the cache {self.path}, counted as missing: {len(new)}.")
        return found

    def rows(
        self, fingerprint: str, queries: Sequence[Query], dimensions: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings as a matrix (n, dimensions), and which rows the cache has (n,); the others are NaN."""
        found = self.lookup(fingerprint, queries)
        matrix = np.full((len(queries), dimensions), np.nan, dtype=np.float32)
        have = np.zeros(len(queries), dtype=np.bool_)
        for row, query in enumerate(queries):
            if query in found:
                matrix[row] = found[query]
                have[row] = True
        return matrix, have

    def known(self, fingerprint: str, queries: Sequence[Query]) -> set[Query]:
        """Which of the queries the cache can answer."""
        return set(self.lookup(fingerprint, queries))

    def begin(self, pack: Pack) -> None:
        """Note, before it is sent, that a pack is being bought."""
        queries = json.dumps([[query.kind, query.digest, query.name] for query in pack.queries])
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?)",
                (pack.idempotency_key, pack.run_id, pack.fingerprint, queries),
            )

    def commit(
        self,
        pack: Pack,
        vectors: Mapping[Query, Vector],
        usage: Usage,
        request_id: str,
        key_id: str | None = None,
    ) -> None:
        """Store a paid answer and its receipt, and clear the note, in one transaction."""
        rows = []
        for query, vector in vectors.items():
            blob = np.ascontiguousarray(vector, dtype=WIRE_DTYPE).tobytes()
            rows.append((query.cache_key(pack.fingerprint), blob, zlib.crc32(blob)))
        receipt = (usage.images, usage.texts, usage.cost_micros, datetime.now(UTC).isoformat(), key_id)
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            connection.execute(
                "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (pack.idempotency_key, request_id, pack.run_id, pack.fingerprint, *receipt),
            )
            connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (pack.idempotency_key,))

    def abandon(self, pack: Pack) -> None:
        """Clear the note of a pack that the vendor refused, and so did not charge."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (pack.idempotency_key,))

    def pending(self, run_id: str) -> list[Pack]:
        """The packs of a run that were sent, or about to be, and whose answer was never stored."""
        with self._lock, self._translated():
            rows = self._connection.execute(
                "SELECT idempotency_key, fingerprint, queries FROM pending WHERE run_id = ?", (run_id,)
            ).fetchall()
        return [Pack(key, run_id, fingerprint, tuple(_queries(text))) for key, fingerprint, text in rows]

    def spending(self, run_id: str) -> Spending:
        """What a run has paid, by its receipts."""
        with self._lock, self._translated():
            row = self._connection.execute(
                "SELECT coalesce(sum(images + texts), 0), coalesce(sum(cost_micros), 0) "
                "FROM receipts WHERE run_id = ?",
                (run_id,),
            ).fetchone()
        return Spending(*row)

    def receipts(self) -> list[Receipt]:
        """All receipts, of every run, vendor and account that the cache was used with."""
        with self._lock, self._translated():
            rows = self._connection.execute(
                "SELECT request_id, fingerprint, images, texts, cost_micros, key_id FROM receipts"
            ).fetchall()
        return [Receipt(*row) for row in rows]

    def owed(self) -> int:
        """How many requests of all runs were sent, or about to be, and their answer was never stored."""
        with self._lock, self._translated():
            (number,) = self._connection.execute("SELECT count(*) FROM pending").fetchone()
        return int(number)

    def _select(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
        wanted = list(keys)
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            with self._lock, self._translated():
                rows = self._connection.execute(
                    f"SELECT key, vector, checksum FROM embeddings WHERE key IN ({marks})",  # noqa: S608 (marks)
                    chunk,
                ).fetchall()
            yield from rows

    def _prepare(self) -> None:
        """Make the tables; harmless where they exist, so processes that start together do not clash."""
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        with self._transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise CacheError(
                    f"The cache {self.path} was written by a newer Tuition. Upgrade, or name another --cache."
                )
            if version == 1:
                connection.execute("ALTER TABLE receipts ADD COLUMN key_id TEXT")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CacheError(
                f"The cache {self.path} cannot be used: {error}. Is it a Tuition cache, may it be written, "
                "and is there room on the disk? What was paid for and stored before is safe."
            ) from error


def _queries(text: str) -> Iterator[Query]:
    for kind, digest, name in json.loads(text):
        yield Query.text(name) if kind == "text" else Query.image_file(Path(name), digest)
