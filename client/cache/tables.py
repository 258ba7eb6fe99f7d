"""The rows of the cache: every SQL statement of the client. Rows go in and come out, nothing is decided."""

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from client.cache.file import CacheFile
from shared.embeddings import Kind
from shared.kinds import Counts

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


class EmbeddingRow(NamedTuple):
    """A row of embeddings: its id, what it holds, the checksum that it was given, and its origin's id."""

    id: int
    entry: StoredEmbedding
    checksum: int
    origin: int

    @property
    def is_intact(self) -> bool:
        """Whether it is as it was stored."""
        return self.entry.checksum == self.checksum


@dataclass(frozen=True)
class Receipt:
    """The receipt of one paid request.

    Attributes:
        request_id: the vendor's name for it; "lost" where its answer is lost for good.
        fingerprint: the model's.
        counts: how many queries of each kind were billed.
        cost_micros: what was billed.
        key_id: the public half of the API key, if it was noted.
        fault: why the answer was not taken.
        vendor: the address of who billed it, if it was noted.
        run_id: the run that paid.
        received_at: in seconds since 1970.
        signed: the vendor's receipt, a compact JWS, where it signs.
        signer: the public key that signed it.
        sold: what that is a receipt of, see `statements.pack`.
        idempotency_key: under which it was charged.
    """

    request_id: str
    fingerprint: str
    counts: Counts
    cost_micros: int
    key_id: str | None = None
    fault: str | None = None
    vendor: str | None = None
    run_id: str = ""
    received_at: float = 0.0
    signed: str | None = None
    signer: str | None = None
    sold: bytes | None = None
    idempotency_key: str = ""

    @property
    def queries(self) -> int:
        """How many queries were billed."""
        return sum(self.counts.values())


class NoteRow(NamedTuple):
    """A row of notes; `queries` is the JSON of `notes.py`."""

    idempotency_key: str
    run_id: str
    fingerprint: str
    vendor: str | None
    key_id: str | None
    noted_at: float
    prices: Mapping[Kind, int] | None
    queries: str
    lines: Sequence[int] | None
    job: str | None


class KeyRow(NamedTuple):
    """A row of keys: one that a vendor has published. The columns are described in `file.py`."""

    vendor: str
    kid: str
    x: str
    first_seen: float
    last_seen: float
    withdrawn: int | None
    hidden: float | None


_EMBEDDING = "id, kind, digest, vector, checksum, origin FROM embeddings"
_RECEIPT = [each.name for each in fields(Receipt)]


class Tables(CacheFile):
    """The tables of one file. Thread-safe; what belongs together is done in one `transaction`."""

    # Models and embeddings

    def fingerprints(self) -> list[str]:
        """The models that are known, in the order in which they came."""
        return [name for (name,) in self.rows("SELECT fingerprint FROM models ORDER BY id")]

    def model(self, fingerprint: str) -> int | None:
        """The id of a model that is known."""
        found = self.rows("SELECT id FROM models WHERE fingerprint = ?", fingerprint)
        return found[0][0] if found else None

    def add_model(self, fingerprint: str) -> int:
        """The id of a model, which is added if it is new."""
        self.rows("INSERT OR IGNORE INTO models (fingerprint) VALUES (?)", fingerprint)
        ((model,),) = self.rows("SELECT id FROM models WHERE fingerprint = ?", fingerprint)
        return int(model)

    def insert(self, model: int, entries: Iterable[StoredEmbedding], origin: int) -> int:
        """Store embeddings in place of what there is under the same kind and digest; returns how many."""
        return self.changed(
            "INSERT OR REPLACE INTO embeddings (model, kind, digest, vector, checksum, origin) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            ((model, each.kind, each.digest, each.vector, each.checksum, origin) for each in entries),
        )

    def select(self, model: int, kind: Kind, digests: Collection[bytes]) -> list[EmbeddingRow]:
        """The embeddings of at most `CHUNK` digests."""
        marks = ",".join("?" * len(digests))
        return _embeddings(
            self.rows(
                f"SELECT {_EMBEDDING} WHERE model = ? AND kind = ? AND digest IN ({marks})",
                *(model, kind, *digests),
            )
        )

    def after(self, last: int, model: int | None) -> list[EmbeddingRow]:
        """The next `CHUNK` embeddings behind an id, of a model or of all."""
        # `+model` has no index: by that, each chunk would sort all rows of the model.
        where = f"id > ? AND coalesce(+model = ?, 1) ORDER BY id LIMIT {CHUNK}"
        return _embeddings(self.rows(f"SELECT {_EMBEDDING} WHERE {where}", last, model))

    def vector_bytes(self, model: int) -> int | None:
        """The size in bytes of each vector of a model; `None` where there is no vector."""
        found = self.rows("SELECT length(vector) FROM embeddings WHERE model = ? LIMIT 1", model)
        return found[0][0] if found else None

    def holdings(self) -> list[tuple[str, Kind, int, int]]:
        """By model and kind: how many embeddings there are, and the bytes of their vectors."""
        return self.rows(
            "SELECT fingerprint, kind, count(*), sum(length(vector)) FROM embeddings "
            "JOIN models ON models.id = model GROUP BY fingerprint, kind ORDER BY fingerprint, kind"
        )

    def delete_model(self, fingerprint: str) -> int:
        """Delete the embeddings and origins of a model; how many embeddings there were."""
        of_model = "WHERE model = (SELECT id FROM models WHERE fingerprint = ?)"
        gone = self.changed(f"DELETE FROM embeddings {of_model}", [(fingerprint,)])
        self.rows(f"DELETE FROM origins {of_model}", fingerprint)
        return gone

    def delete_rows(self, doomed: Iterable[tuple[int, int]]) -> int:
        """Delete embeddings by id and checksum; how many there were."""
        return self.changed("DELETE FROM embeddings WHERE id = ? AND checksum = ?", doomed)

    def delete_images(self, digests: Iterable[bytes]) -> int:
        """Delete the embeddings of images, of all models; how many there were."""
        return self.changed(
            "DELETE FROM embeddings WHERE model IN (SELECT id FROM models) AND kind = 'image' AND digest = ?",
            ((digest,) for digest in digests),
        )

    # Origins

    def origins(self, fingerprint: str) -> list[tuple[int, str, int]]:
        """The id, name and pool of each origin of a model."""
        return self.rows(
            "SELECT id, name, pool FROM origins WHERE model = (SELECT id FROM models WHERE fingerprint = ?)",
            fingerprint,
        )

    def origin(self, model: int, name: str) -> int:
        """The id of an origin of a model, which is added, in a pool of its own, if it is new."""
        found = self.rows("SELECT id FROM origins WHERE model = ? AND name = ?", model, name)
        if not found:
            self.rows("INSERT INTO origins (model, name, pool) VALUES (?, ?, 0)", model, name)
            found = self.rows("SELECT last_insert_rowid()")
            self.rows("UPDATE origins SET pool = id WHERE id = ?", *found[0])
        return int(found[0][0])

    def join_pools(self, model: int, origins: Iterable[int]) -> None:
        """Put these origins, and all that are in a pool with one of them, into one pool."""
        numbers = sorted(set(origins))
        marks = ",".join("?" * len(numbers))
        first, *others = self.rows(f"SELECT DISTINCT pool FROM origins WHERE id IN ({marks})", *numbers)
        for (pool,) in others:
            self.rows("UPDATE origins SET pool = ? WHERE model = ? AND pool = ?", first[0], model, pool)

    # Receipts and refusals

    def put_receipt(self, receipt: Receipt) -> None:
        """Store a receipt in place of the one under its key."""
        self._put("receipts", vars(receipt) | {"queries": receipt.queries})

    def receipts(self, first: str = "", last: str = "\U0010ffff") -> list[Receipt]:
        """The receipts whose keys lie between these, both included."""
        return self._receipts("idempotency_key BETWEEN ? AND ?", first, last)

    def latest_receipts(self, fingerprint: str, most: int) -> list[Receipt]:
        """The latest receipts of a model of answers that were taken."""
        where = "fingerprint = ? AND fault IS NULL ORDER BY received_at DESC LIMIT ?"
        return self._receipts(where, fingerprint, most)

    def signed_keys(self) -> list[str]:
        """The idempotency keys of receipts that are signed, in the order in which they came."""
        rows = self.rows("SELECT idempotency_key FROM receipts WHERE signed NOT NULL ORDER BY received_at")
        return [key for (key,) in rows]

    def unsigned(self) -> int:
        """How many receipts of something that was bought are not signed."""
        ((number,),) = self.rows("SELECT count(*) FROM receipts WHERE signed IS NULL AND queries > 0")
        return int(number)

    def spending(self, run_id: str | None) -> tuple[int, int]:
        """The queries and the cost of the receipts of a run, or of all."""
        sums = "coalesce(sum(queries), 0), coalesce(sum(cost_micros), 0)"
        of_run, given = ("", ()) if run_id is None else ("WHERE run_id = ?", (run_id,))
        ((queries, cost),) = self.rows(f"SELECT {sums} FROM receipts {of_run}", *given)
        return queries, cost

    def add_refusal(self, request_id: str) -> None:
        """Store that a request was refused."""
        self._put("refusals", {"request_id": request_id})

    def refusals(self) -> set[str]:
        """The ids of requests that were refused."""
        return {name for (name,) in self.rows("SELECT request_id FROM refusals")}

    # Notes

    def put_note(self, row: NoteRow) -> None:
        """Store a note in place of the one under its key."""
        self._put("notes", row._asdict())

    def notes(self, run_id: str | None = None, key: str | None = None) -> list[NoteRow]:
        """The notes of a run, or under a key, or all; the oldest first."""
        where = "WHERE coalesce(run_id = ?, 1) AND coalesce(idempotency_key = ?, 1) ORDER BY noted_at"
        found = self.rows(f"SELECT {', '.join(NoteRow._fields)} FROM notes {where}", run_id, key)
        rows = (NoteRow._make(each) for each in found)
        return [row._replace(prices=_value(row.prices), lines=_value(row.lines)) for row in rows]

    def touch_note(self, key: str, noted_at: float) -> None:
        """Note when a batch was last sent."""
        self.rows("UPDATE notes SET noted_at = ? WHERE idempotency_key = ?", noted_at, key)

    def delete_note(self, key: str) -> None:
        """Remove a note, if it is there."""
        self.rows("DELETE FROM notes WHERE idempotency_key = ?", key)

    # Statements that vendors have signed

    def put_statement(self, name: str, kind: str, about: str, signed: str, signer: str) -> None:
        """Keep a statement in place of one that says the same."""
        row = {"name": name, "kind": kind, "about": about, "signed": signed, "signer": signer}
        self._put("statements", row)

    def statements(self, kind: str, about: str | None = None) -> list[tuple[str, str]]:
        """The statements of a kind, about one thing or all, each with the public key that signed it."""
        where = "WHERE kind = ? AND coalesce(about = ?, 1)"
        return self.rows(f"SELECT signed, signer FROM statements {where}", kind, about)

    def put_key(self, row: KeyRow) -> None:
        """Keep a vendor's key in place of what was known of it."""
        self._put("keys", row._asdict())

    def keys(self, vendor: str | None = None) -> list[KeyRow]:
        """The keys of a vendor, or of all, in the order in which they were seen."""
        where = "WHERE coalesce(vendor = ?, 1) ORDER BY vendor, first_seen, kid"
        return [KeyRow._make(row) for row in self.rows(f"SELECT * FROM keys {where}", vendor)]

    # The file

    def problem(self) -> str | None:
        """The damage of the file itself, if there is any."""
        ((verdict,),) = self.rows("PRAGMA quick_check(1)")
        return None if verdict == "ok" else str(verdict)

    def compact(self) -> bool:
        """Leave nothing of what was deleted in the file; False where others read it for too long."""
        self.rows("VACUUM")
        ((busy, *_),) = self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        return not busy

    def _put(self, table: str, row: Mapping[str, object]) -> None:
        """Store a row in place of the one under its key; what is no plain value as JSON."""
        values = (
            json.dumps(dict(value) if isinstance(value, Mapping) else value)
            if isinstance(value, Mapping | tuple) else value
            for value in row.values()
        )  # fmt: skip
        marks = ", ".join("?" * len(row))
        self.rows(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", *values)

    def _receipts(self, where: str, *parameters: object) -> list[Receipt]:
        rows = self.rows(f"SELECT {', '.join(_RECEIPT)} FROM receipts WHERE {where}", *parameters)
        found = (dict(zip(_RECEIPT, row, strict=True)) for row in rows)
        return [Receipt(**each | {"counts": json.loads(each["counts"])}) for each in found]


def _embeddings(rows: Iterable[tuple[Any, ...]]) -> list[EmbeddingRow]:
    return [EmbeddingRow(row[0], StoredEmbedding(*row[1:4]), *row[4:]) for row in rows]


def _value(text: Any) -> Any:  # noqa: ANN401 (what JSON holds)
    return None if text is None else json.loads(text)
