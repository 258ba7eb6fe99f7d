"""Everything that was ever paid for: embeddings, receipts, and requests whose answer is still owed."""

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from client.buying.cache_file import CacheFile
from client.buying.queries import Query, Spending
from client.buying.rates import Sale
from client.errors import CacheError
from shared.embeddings import Kind, Usage
from shared.encoding import Vector

# SQLite's default limit on variables in one statement, kept well below.
_CHUNK = 500
_PROGRESS_EVERY = 10_000
_RECENT_RECEIPTS = 10_000
# A note of another run that is farther from now is not of a request in flight, but of a run that was killed,
# or of a clock that was wrong.
_FRESH_SECONDS = 60


@dataclass(frozen=True)
class Pack:
    """The queries of one request, and the key under which the vendor charges it once at most."""

    idempotency_key: str
    run_id: str
    fingerprint: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Holding:
    """What the cache holds of one model and kind; `vector_bytes` are those of the vectors alone."""

    fingerprint: str
    kind: Kind
    embeddings: int
    vector_bytes: int


@dataclass(frozen=True)
class Stored:
    """One embedding as it is stored: `digest` is raw bytes, and so is `vector`, of the cache's type."""

    kind: Kind
    digest: bytes
    vector: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 over the digest and the vector, so that neither can change unnoticed."""
        return zlib.crc32(self.vector, zlib.crc32(self.digest))


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

    def __init__(
        self, path: Path, *, half: bool = False, on_damage: Callable[[str], None] = lambda _: None
    ) -> None:
        """Open the file, or create it.

        Args:
            path: the file; its folder is made if need be.
            half: whether it rounds vectors to float16, where it is created; a file stays as it was created.
            on_damage: told, once, of entries whose checksum does not match; they count as missing.

        Raises:
            CacheError: it cannot be opened, is damaged, or was written by a newer Tuition.
        """
        self.path = path
        self._file = CacheFile(path, dtype="<f2" if half else "<f4")
        self.dtype = np.dtype(self._file.dtype)
        self._on_damage = on_damage
        self._damaged: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def lookup(self, fingerprint: str, queries: Sequence[Query]) -> dict[Query, Vector]:
        """The embeddings that the cache has, float32 of shape (dimensions,).

        They are bit for bit what was sold, or in a cache of float16 the nearest that it holds. An entry whose
        checksum does not match is left out.
        """
        return {
            query: np.frombuffer(blob, dtype=self.dtype).astype(np.float32)
            for query, blob in self._intact(fingerprint, queries)
        }

    def rows(
        self, fingerprint: str, queries: Sequence[Query], dimensions: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings as a matrix (n, dimensions), and which rows the cache has (n,); the others are NaN."""
        matrix = np.full((len(queries), dimensions), np.nan, dtype=np.float32)
        have = np.zeros(len(queries), dtype=np.bool_)
        places: dict[Query, list[int]] = {}
        for row, query in enumerate(queries):
            places.setdefault(query, []).append(row)
        for query, blob in self._intact(fingerprint, places):
            for row in places[query]:
                matrix[row] = np.frombuffer(blob, dtype=self.dtype)
                have[row] = True
        return matrix, have

    def known(self, fingerprint: str, queries: Collection[Query]) -> set[Query]:
        """Which of the queries the cache can answer; one vector is in memory at a time."""
        return {query for query, _ in self._intact(fingerprint, queries)}

    def begin(self, pack: Pack) -> set[Query]:
        """Note, before it is sent, that a pack is being bought.

        Returns:
            Those of its queries that another run has bought, or is buying right now: then nothing is noted.
        """
        queries = json.dumps([[query.kind, query.digest, query.name] for query in pack.queries])
        now = time.time()
        with self._file.transaction() as connection:
            others = connection.execute(
                "SELECT queries FROM pending WHERE run_id != ? AND fingerprint = ? AND abs(noted_at - ?) < ?",
                (pack.run_id, pack.fingerprint, now, _FRESH_SECONDS),
            ).fetchall()
            taken = {query for (text,) in others for query in _queries(text)} & set(pack.queries)
            taken |= _bought(connection, pack)
            if not taken:
                connection.execute(
                    "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?)",
                    (pack.idempotency_key, pack.run_id, pack.fingerprint, queries, now),
                )
        return taken

    def commit(
        self,
        pack: Pack,
        vectors: Mapping[Query, Vector],
        usage: Usage,
        request_id: str,
        key_id: str | None = None,
    ) -> None:
        """Store a paid answer and its receipt, and clear the note, in one transaction."""
        rows = [
            Stored(query.kind, bytes.fromhex(query.digest), vector.astype(self.dtype).tobytes())
            for query, vector in vectors.items()
        ]
        receipt = (usage.images, usage.texts, usage.cost_micros, datetime.now(UTC).isoformat(), key_id)
        with self._file.transaction() as connection:
            _insert(connection, pack.fingerprint, rows, "REPLACE")
            connection.execute(
                "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (pack.idempotency_key, request_id, pack.run_id, pack.fingerprint, *receipt),
            )
            connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (pack.idempotency_key,))

    def abandon(self, pack: Pack) -> None:
        """Clear the note of a pack that the vendor refused, and so did not charge."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (pack.idempotency_key,))

    def write_off(self, pack: Pack, paid: Spending) -> None:
        """Turn the note of a pack whose answer is lost for good into a receipt: it may have been paid for."""
        texts = sum(query.kind == "text" for query in pack.queries)
        receipt = (paid.queries - texts, texts, paid.cost_micros, datetime.now(UTC).isoformat(), None)
        key = f"{pack.idempotency_key}:lost:{time.time_ns()}"
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, "lost", pack.run_id, pack.fingerprint, *receipt),
            )
            connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (pack.idempotency_key,))

    def pending(self, run_id: str) -> list[Pack]:
        """The packs of a run that were sent, or about to be, and whose answer was never stored."""
        rows = self._file.read(
            "SELECT idempotency_key, fingerprint, queries FROM pending WHERE run_id = ?", (run_id,)
        )
        return [Pack(key, run_id, fingerprint, tuple(_queries(text))) for key, fingerprint, text in rows]

    def owing(self, fingerprint: str) -> list[str]:
        """The runs that have noted packs for a model."""
        rows = self._file.read("SELECT DISTINCT run_id FROM pending WHERE fingerprint = ?", (fingerprint,))
        return [run_id for (run_id,) in rows]

    def spending(self, run_id: str) -> Spending:
        """What a run has paid, by its receipts."""
        (row,) = self._file.read(
            "SELECT coalesce(sum(images + texts), 0), coalesce(sum(cost_micros), 0) "
            "FROM receipts WHERE run_id = ?",
            (run_id,),
        )
        return Spending(*row)

    def sales(self, fingerprint: str) -> list[Sale]:
        """What was bought of a model, by its latest receipts."""
        rows = self._file.read(
            "SELECT julianday(received_at) * 86400, run_id, images, texts FROM receipts "
            "WHERE fingerprint = ? ORDER BY received_at DESC LIMIT ?",
            (fingerprint, _RECENT_RECEIPTS),
        )
        return [Sale(*row) for row in rows]

    def fingerprints(self) -> list[str]:
        """The models that it knows."""
        return [name for (name,) in self._file.read("SELECT fingerprint FROM models ORDER BY id")]

    def holdings(self) -> list[Holding]:
        """What there is, by model and kind."""
        rows = self._file.read(
            "SELECT fingerprint, kind, count(*), sum(length(vector)) FROM embeddings "
            "JOIN models ON models.id = model GROUP BY fingerprint, kind ORDER BY fingerprint, kind"
        )
        return [Holding(*row) for row in rows]

    def paid(self) -> Spending:
        """What was ever paid for, by the receipts of all runs."""
        (row,) = self._file.read(
            "SELECT coalesce(sum(images + texts), 0), coalesce(sum(cost_micros), 0) FROM receipts"
        )
        return Spending(*row)

    def receipts(self) -> list[Receipt]:
        """All receipts, of every run, vendor and account that the cache was used with."""
        rows = self._file.read(
            "SELECT request_id, fingerprint, images, texts, cost_micros, key_id FROM receipts"
        )
        return [Receipt(*row) for row in rows]

    def owed(self) -> int:
        """How many requests of all runs were sent, or about to be, and their answer was never stored."""
        ((number,),) = self._file.read("SELECT count(*) FROM pending")
        return int(number)

    def stored(self, fingerprint: str) -> Iterator[Stored]:
        """Every intact embedding of a model, in the order in which they were bought."""
        for _, entry, intact in self._entries("WHERE fingerprint = ?", fingerprint):
            if intact:
                yield entry

    def add(self, fingerprint: str, entries: Iterable[Stored]) -> int:
        """Store embeddings that were bought elsewhere, all or none; returns how many of them were new.

        What is there already stays: it was paid for here, and is the same within the model's tolerance.
        """
        with self._file.transaction() as connection:
            before = connection.total_changes
            models = _insert(connection, fingerprint, entries, "IGNORE")
            return connection.total_changes - before - models

    def verify(self, on_checked: Callable[[int], None] = lambda _: None) -> int:
        """Read every embedding; returns how many are damaged.

        Args:
            on_checked: called now and then with the number of embeddings read.

        Raises:
            CacheError: the file itself is damaged.
        """
        ((verdict,),) = self._file.read("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise CacheError(f"The cache {self.path} is damaged: {verdict}. Export what can be read of it.")
        damaged = 0
        for checked, (_, _, intact) in enumerate(self._entries(""), start=1):
            damaged += not intact
            if checked % _PROGRESS_EVERY == 0:
                on_checked(checked)
        return damaged

    def prune(self, fingerprint: str | None) -> int:
        """Delete the embeddings of a model or, with `None`, the damaged ones of all; receipts stay.

        Returns:
            How many were deleted; their room is given back to the disk.
        """
        if fingerprint is None:
            doomed = [(id_,) for id_, _, intact in self._entries("") if not intact]
        else:
            doomed = [(id_,) for id_, _, _ in self._entries("WHERE fingerprint = ?", fingerprint)]
        with self._file.transaction() as connection:
            connection.executemany("DELETE FROM embeddings WHERE id = ?", doomed)
        self._file.read("VACUUM")
        self._file.read("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(doomed)

    def _intact(self, fingerprint: str, queries: Collection[Query]) -> Iterator[tuple[Query, bytes]]:
        """The entries of these queries whose checksum matches; damaged ones are told of."""
        damaged: set[bytes] = set()
        for kind in ("text", "image"):
            wanted = {bytes.fromhex(query.digest): query for query in queries if query.kind == kind}
            for digest, vector, checksum in self._select(fingerprint, kind, wanted):
                if zlib.crc32(vector, zlib.crc32(digest)) == checksum:
                    yield wanted[digest], vector
                else:
                    damaged.add(digest)
        if new := damaged - self._damaged:
            self._damaged |= new
            self._on_damage(f"Damaged entries in the cache {self.path}, counted as missing: {len(new)}.")

    def _select(
        self, fingerprint: str, kind: str, digests: Iterable[bytes]
    ) -> Iterator[tuple[bytes, bytes, int]]:
        wanted = list(digests)
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            rows = self._file.read(
                "SELECT digest, vector, checksum FROM embeddings "  # noqa: S608 (marks)
                "WHERE model = (SELECT id FROM models WHERE fingerprint = ?) AND kind = ? "
                f"AND digest IN ({marks})",
                (fingerprint, kind, *chunk),
            )
            yield from rows

    def _entries(self, where: str, *parameters: str) -> Iterator[tuple[int, Stored, bool]]:
        """Every entry, or those of one model: its id, what it holds, and whether its checksum matches."""
        last = 0
        condition = f"{where or 'WHERE true'} AND embeddings.id > ?"
        while True:
            rows = self._file.read(
                "SELECT embeddings.id, kind, digest, vector, checksum FROM embeddings "  # noqa: S608 (ours)
                f"JOIN models ON models.id = model {condition} ORDER BY embeddings.id LIMIT {_CHUNK}",
                (*parameters, last),
            )
            if not rows:
                return
            for id_, kind, digest, vector, checksum in rows:
                entry = Stored(kind, digest, vector)
                yield id_, entry, entry.checksum == checksum
            last = rows[-1][0]


def _insert(
    connection: sqlite3.Connection,
    fingerprint: str,
    entries: Iterable[Stored],
    conflict: Literal["IGNORE", "REPLACE"],
) -> int:
    """Insert embeddings of a model; returns 1 if the model itself was new, and 0 otherwise."""
    new = connection.execute("INSERT OR IGNORE INTO models (fingerprint) VALUES (?)", (fingerprint,)).rowcount
    (model,) = connection.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
    connection.executemany(
        f"INSERT OR {conflict} INTO embeddings (model, kind, digest, vector, checksum) "  # noqa: S608 (ours)
        "VALUES (?, ?, ?, ?, ?)",
        ((model, entry.kind, entry.digest, entry.vector, entry.checksum) for entry in entries),
    )
    return new


def _bought(connection: sqlite3.Connection, pack: Pack) -> set[Query]:
    """The queries of a pack that are in the cache."""
    return {
        query
        for query in pack.queries
        if connection.execute(
            "SELECT 1 FROM embeddings WHERE model = (SELECT id FROM models WHERE fingerprint = ?) "
            "AND kind = ? AND digest = ?",
            (pack.fingerprint, query.kind, bytes.fromhex(query.digest)),
        ).fetchone()
    }


def _queries(text: str) -> Iterator[Query]:
    for kind, digest, name in json.loads(text):
        yield Query.text(name) if kind == "text" else Query.image_file(Path(name), digest)
