"""Rows of the cache's table of embeddings: written, found, and checked."""

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from client.vendors.query import Query
from shared.embeddings import Kind

# SQLite's default limit on variables in one statement, kept well below.
CHUNK = 500


@dataclass(frozen=True)
class StoredEmbedding:
    """One embedding as it is stored: `digest` is raw bytes, and so is `vector`, of the cache's type."""

    kind: Kind
    digest: bytes
    vector: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 over the digest and the vector, so that neither can change unnoticed."""
        return zlib.crc32(self.vector, zlib.crc32(self.digest))


@dataclass(frozen=True)
class CacheRow:
    """A row of the table: what it holds, the number of its origin, if noted, and whether it is intact."""

    entry: StoredEmbedding
    origin: int | None
    intact: bool


def model_id(connection: sqlite3.Connection, fingerprint: str) -> int:
    """The number of a model, which is noted if it is new."""
    connection.execute("INSERT OR IGNORE INTO models (fingerprint) VALUES (?)", (fingerprint,))
    (model,) = connection.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
    return int(model)


def insert(
    connection: sqlite3.Connection, model: int, entries: Iterable[StoredEmbedding], origin: int
) -> None:
    """Store embeddings in place of what there is under the same kind and digest."""
    connection.executemany(
        "INSERT OR REPLACE INTO embeddings (model, kind, digest, vector, checksum, origin) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        ((model, each.kind, each.digest, each.vector, each.checksum, origin) for each in entries),
    )


def select(
    connection: sqlite3.Connection, model: int, kind: Kind, digests: Collection[bytes]
) -> list[CacheRow]:
    """The rows of at most `CHUNK` digests."""
    marks = ",".join("?" * len(digests))
    rows = connection.execute(
        "SELECT digest, vector, checksum, origin FROM embeddings "  # noqa: S608 (marks)
        f"WHERE model = ? AND kind = ? AND digest IN ({marks})",
        (model, kind, *digests),
    ).fetchall()
    return [
        CacheRow(entry := StoredEmbedding(kind, digest, vector), origin, entry.checksum == checksum)
        for digest, vector, checksum, origin in rows
    ]


def by_kind(queries: Iterable[Query]) -> Iterator[tuple[Kind, dict[bytes, Query]]]:
    """The queries of each kind by their digests, at most `CHUNK` at a time."""
    kinds: dict[Kind, dict[bytes, Query]] = {"text": {}, "image": {}}
    for query in queries:
        kinds[query.kind][bytes.fromhex(query.digest)] = query
    for kind, wanted in kinds.items():
        digests = list(wanted)
        for start in range(0, len(digests), CHUNK):
            yield kind, {digest: wanted[digest] for digest in digests[start : start + CHUNK]}


def held(connection: sqlite3.Connection, model: int, queries: Iterable[Query]) -> dict[Query, CacheRow]:
    """What there is of some queries, intact."""
    return {
        wanted[row.entry.digest]: row
        for kind, wanted in by_kind(queries)
        for row in select(connection, model, kind, wanted)
        if row.intact
    }
