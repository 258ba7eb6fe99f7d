"""The SQLite file under the cache: how it is laid out, opened and changed, and what its errors mean."""

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.errors import CacheError
from shared.sqlite import write_ahead

_VERSION = 4
# Large pages, so that a vector of any usual size shares its page with others and little is left empty.
_PAGE_BYTES = 32_768
# Reads go through the page cache of the system, which saves a copy (1.5 times as many entries a second).
_MAPPED_BYTES = 8 * 2**30
# How long another process that is writing is waited for.
_BUSY_SECONDS = 60.0
_SYNCHRONOUS = "FULL"  # what has been committed outlives a loss of power
_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS storage (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    dtype TEXT NOT NULL         -- of all vectors, as numpy names it
);
CREATE TABLE IF NOT EXISTS embeddings (
    id INTEGER PRIMARY KEY,
    model INTEGER NOT NULL REFERENCES models (id),
    kind TEXT NOT NULL,
    digest BLOB NOT NULL,       -- SHA-256 of the exact bytes that were sent
    vector BLOB NOT NULL,       -- little-endian, float32 or float16
    checksum INTEGER NOT NULL,  -- CRC-32 of digest and vector
    origin INTEGER NOT NULL REFERENCES origins (id),
    UNIQUE (model, kind, digest)
);
CREATE TABLE IF NOT EXISTS origins (
    id INTEGER PRIMARY KEY,
    model INTEGER NOT NULL REFERENCES models (id),
    name TEXT NOT NULL,         -- a vendor's address, or an imported file; '' where nobody said
    pool INTEGER NOT NULL,      -- the same for origins that were found to agree
    UNIQUE (model, name)
);
CREATE TABLE IF NOT EXISTS receipts (
    idempotency_key TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    counts TEXT NOT NULL,       -- JSON: how many queries of each kind were billed
    queries INTEGER NOT NULL,   -- their sum
    cost_micros INTEGER NOT NULL,
    received_at REAL NOT NULL,  -- in seconds since 1970
    vendor TEXT,                -- the address of who billed it
    key_id TEXT,                -- the public half of the API key
    fault TEXT,                 -- why the answer was not taken; NULL where it was
    signed TEXT,                -- the vendor's receipt, a compact JWS; NULL where it signed none
    signer TEXT,                -- the public key that signed it, as its JWK has it
    sold BLOB                   -- what that is a receipt of, see `statements.pack`
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_by_run ON receipts (run_id);
CREATE TABLE IF NOT EXISTS refusals (
    request_id TEXT PRIMARY KEY  -- of a request that was refused, and so is never to be charged
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    idempotency_key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    vendor TEXT,                -- the address that it was last sent to
    key_id TEXT,                -- the public half of the API key that it was last sent with
    noted_at REAL NOT NULL,     -- when it was last sent, in seconds since 1970
    prices TEXT,                -- JSON: what a query of each kind may cost
    queries TEXT NOT NULL,      -- JSON, see `notes.py`, in the order sent
    lines TEXT,                 -- JSON: how many queries each line of a bulk job has; NULL of a request
    job TEXT                    -- the vendor's name for a bulk job, once that is known
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statements (
    name TEXT PRIMARY KEY,      -- the same for statements that say the same
    kind TEXT NOT NULL,         -- 'head', 'card' or 'keys'
    about TEXT NOT NULL,        -- an account, a model's fingerprint, or a vendor's address
    signed TEXT NOT NULL,       -- what the vendor signed, a compact JWS
    signer TEXT NOT NULL        -- the public key, as its JWK has it
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    vendor TEXT NOT NULL,       -- the address that publishes it
    kid TEXT NOT NULL,
    x TEXT NOT NULL,            -- the public key, as its JWK has it
    first_seen REAL NOT NULL,   -- in seconds since 1970
    last_seen REAL NOT NULL,
    withdrawn INTEGER,          -- since when the vendor disowns it, by its own word
    hidden REAL,                -- since when the vendor does not name it any more
    PRIMARY KEY (vendor, kid)
) WITHOUT ROWID;
"""
_STATEMENTS = _SCHEMA.split(";\n")


def _bare(statement: str) -> str:
    """A statement of the schema without comments, as SQLite keeps it."""
    return " ".join(re.sub("--.*", "", statement).replace(" IF NOT EXISTS", "").split()).rstrip(";")


class CacheFile:
    """One connection, shared by threads. Changes are durable when a transaction ends.

    Attributes:
        connection: the connection.
        dtype: of all vectors in the file: "<f4" or "<f2".
    """

    def __init__(self, path: Path, *, dtype: str = "<f4") -> None:
        """Open the file, or create it and its folder.

        Args:
            path: the file.
            dtype: of the vectors, where the file is created; a file keeps what it was created with.

        Raises:
            CacheError: it cannot be opened, is no cache, or one of another version.
        """
        self._path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"The cache folder {path.parent} cannot be made: {error.strerror}.") from error
        with self._translated():
            self.connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self.dtype = self._prepare(dtype)
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Close it."""
        with self._lock:  # an interrupted purchase may be storing a last answer
            self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done in it, or nothing; other threads wait."""
        with self._lock, self._translated(), self._begun():
            yield

    def rows(self, statement: str, *parameters: object) -> list[Any]:
        """The rows that a statement returns."""
        with self._lock, self._translated():
            return self.connection.execute(statement, parameters).fetchall()

    def changed(self, statement: str, rows: Iterable[Iterable[object]]) -> int:
        """How many rows a statement changes, which is given these parameters one after the other."""
        with self._lock, self._translated():
            return self.connection.executemany(statement, map(tuple, rows)).rowcount

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a full disk has ended it already
                self.connection.execute("ROLLBACK")
            raise

    def _prepare(self, dtype: str) -> str:
        """Make the tables; harmless where they exist, so processes that start together do not clash."""
        self._require_ours()
        self.connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        self.connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS}")
        write_ahead(self.connection, _BUSY_SECONDS)
        self.connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
        with self._begun():
            for statement in _STATEMENTS:
                self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version={_VERSION}")
            self.connection.execute("INSERT OR IGNORE INTO storage VALUES (1, ?)", (dtype,))
        (found,) = self.connection.execute("SELECT dtype FROM storage").fetchone()
        if found not in ("<f4", "<f2"):
            raise sqlite3.DatabaseError("its vectors are of another type")
        return str(found)

    def _require_ours(self) -> None:
        """Refuse a file that holds something and is no cache of this version, before anything is changed."""
        self.connection.execute("BEGIN")  # one moment's answers: another process may be making the tables
        (application,) = self.connection.execute("PRAGMA application_id").fetchone()
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        found = dict(self.connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
        self.connection.execute("COMMIT")
        is_ours = {"models", "embeddings"} <= found.keys() if version else not found
        if version == _VERSION:  # views and triggers of somebody else's file would run here
            is_ours = {_bare(sql) for sql in found.values() if sql} == set(
                filter(None, map(_bare, _STATEMENTS))
            )
        if application or not is_ours:  # what is remembered of files beside a cache has one
            raise CacheError(
                f"The cache {self._path} cannot be used: the file was made for something else. "
                "Name another --cache."
            )
        if version not in (0, _VERSION):
            raise CacheError(
                f"The cache {self._path} is of another version of Tuition: name another --cache."
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CacheError(
                f"The cache {self._path} cannot be used: {error}. Is it a Tuition cache, is it writable, "
                "and is there room on the disk? What was paid for and stored before is safe."
            ) from error
