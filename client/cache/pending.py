"""Batches that were sent, or were about to be, and whose answers were never stored: noted in the cache."""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.cache.file import CacheFile
from client.vendors.query import Query

# A vendor gives up a request after 120 seconds unless it was set otherwise. A note that is farther from now
# is not of a request that may still be in hand, but of a run that was killed, or of a clock that was wrong.
FRESH_SECONDS = 130
# For so long, in seconds, a vendor answers again what was paid for, unless it says otherwise. What it does
# not tell of until then is not to be had any more.
_REPLAY_SECONDS = 72 * 3600
# Images in memory are held for so many bytes.
_MOST_BYTES = 64 * 2**20

ContentOf = Callable[[str, str], bytes]
"""What was sent for an image, by the name and the digest of its query."""


@dataclass(frozen=True)
class RequestBatch:
    """The queries of one request, and the key under which the vendor charges it once at most."""

    idempotency_key: str
    run_id: str
    fingerprint: str
    queries: tuple[Query, ...]


def make_batch(
    run_id: str, fingerprint: str, queries: tuple[Query, ...], generation: int = 0
) -> RequestBatch:
    """A batch under the key that the run and the content give it, the same after any restart.

    Where what was sent under that key is lost for good, a higher generation gives another one.
    """
    again = [f"again {generation}"] if generation else []
    content = "\0".join([run_id, fingerprint, *(f"{query.kind}:{query.digest}" for query in queries), *again])
    return RequestBatch(hashlib.sha256(content.encode()).hexdigest(), run_id, fingerprint, queries)


@dataclass(frozen=True)
class Payer:
    """Who billed and who paid: the vendor's address, and the public half of the key, if they are known."""

    vendor: str | None = None
    key_id: str | None = None


@dataclass(frozen=True)
class PendingBatch:
    """A batch whose answer is owed.

    Attributes:
        batch: the batch.
        noted_at: when it was last sent, in seconds since 1970.
        vendor: where it was sent to; `None` where that was not noted.
        key_id: the public half of the API key that it was sent with; `None` where that was not noted.
        agreed_micros: the most that it may cost; `None` where that was not noted.
    """

    batch: RequestBatch
    noted_at: float
    vendor: str | None = None
    key_id: str | None = None
    agreed_micros: int | None = None

    @property
    def seconds_left(self) -> float:
        """For how long the vendor may still be answering it; 0 once it certainly is not."""
        left = FRESH_SECONDS - abs(time.time() - self.noted_at)
        return max(0.0, left)

    @property
    def is_expired(self) -> bool:
        """Whether it was sent so long ago that its answer is no longer to be had."""
        return time.time() - self.noted_at > _REPLAY_SECONDS

    def sender(self, payer: Payer) -> Payer:
        """Who sent it, as far as was noted, and otherwise this payer."""
        return Payer(self.vendor or payer.vendor, self.key_id or payer.key_id)

    def sent_by(self, payer: Payer) -> bool:
        """Whether this payer sent it, as far as was noted; another one is not told whether it was charged."""
        return _is_of(self.vendor, self.key_id, payer)

    def sent_to(self, origin: str) -> bool:
        """Whether it was sent to a vendor, as far as was noted."""
        return self.vendor in (None, origin)

    @property
    def images(self) -> int:
        """How many of its queries are images."""
        return sum(query.kind == "image" for query in self.batch.queries)


class PendingBatches:
    """The notes in one cache. Thread-safe."""

    def __init__(self, file: CacheFile, content_of: ContentOf) -> None:
        self._file = file
        self._content_of = content_of
        self._held: dict[str, Query] = {}  # by digest
        self._lock = threading.Lock()

    def hold(self, images: Sequence[Query]) -> None:
        """Hold those of some images that are in no file whose answers are owed, and let go of others.

        To fetch an answer takes all images of its batch. Beyond 64 MiB the oldest are let go.
        """
        owed = {query.digest for note in self.of_run() for query in note.batch.queries}
        with self._lock:
            held = self._held | {image.digest: image for image in images}
            held = {digest: image for digest, image in held.items() if digest in owed}
            size = sum(len(image.read()) for image in held.values())
            while size > _MOST_BYTES:
                size -= len(held.pop(next(iter(held))).read())
            self._held = held

    def take(
        self,
        note: PendingBatch,
        *,
        known: Callable[[sqlite3.Connection, RequestBatch], set[Query]],
        alive: Callable[[str], bool],
        again: bool,
        asked: Collection[str] | None = None,
    ) -> set[Query]:
        """Note that a batch is being bought, before it is sent.

        Args:
            note: the note.
            known: tells which queries of the batch need not be bought any more.
            alive: whether a run is being worked on right now.
            again: whether it is bought whoever has bought it, or is buying it.
            asked: as `held` has it.

        Returns:
            Those of its queries that are known, or held: then nothing is noted.
        """
        batch = note.batch
        queries = queries_json(batch.queries)
        with self._file.transaction() as connection:
            taken: set[Query] = set()
            if not again:
                taken = known(connection, batch)
                taken |= self.held(connection, batch, note.vendor, alive=alive, asked=asked)
            if not taken:
                row = (note.noted_at, note.vendor, note.key_id, note.agreed_micros)
                connection.execute(
                    "INSERT OR REPLACE INTO pending (idempotency_key, run_id, fingerprint, queries, "
                    "noted_at, vendor, key_id, agreed_micros) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (batch.idempotency_key, batch.run_id, batch.fingerprint, queries, *row),
                )
        return taken

    def held(
        self,
        connection: sqlite3.Connection,
        batch: RequestBatch,
        vendor: str | None,
        *,
        alive: Callable[[str], bool],
        asked: Collection[str] | None,
    ) -> set[Query]:
        """Those of a batch's queries that another run is buying right now, or may have paid for.

        Args:
            connection: the transaction in which they are to be taken.
            batch: the batch.
            vendor: where it is to be bought. What a run that was killed sent to another one holds nothing.
            alive: whether a run is being worked on right now.
            asked: keys of notes of runs that were killed, which hold nothing any more: the vendor was asked.
                `None` where it cannot be asked, so that no such note holds anything.
        """
        others = connection.execute(
            "SELECT idempotency_key, run_id, queries, noted_at, vendor FROM pending "
            "WHERE run_id != ? AND fingerprint = ?",
            (batch.run_id, batch.fingerprint),
        ).fetchall()
        now, held = time.time(), set[Query]()
        for key, run_id, text, noted_at, sent_to in others:
            noted = set(self._parsed(text))
            theirs = {query for query in batch.queries if query in noted}  # ours, which know our files
            owed = asked is not None and key not in asked and sent_to in (None, vendor)
            if theirs and (owed or abs(now - noted_at) < FRESH_SECONDS or alive(run_id)):
                held |= theirs
        return held

    def refresh(self, batch: RequestBatch) -> None:
        """Note that a batch was sent once more just now."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE pending SET noted_at = ? WHERE idempotency_key = ?",
                (time.time(), batch.idempotency_key),
            )

    def of_run(self, run_id: str | None = None) -> list[PendingBatch]:
        """The notes of a run, or with `None` of all."""
        rows = self._file.read(
            "SELECT idempotency_key, run_id, fingerprint, queries, noted_at, vendor, key_id, agreed_micros "
            "FROM pending WHERE ? IS NULL OR run_id = ?",
            (run_id, run_id),
        )
        return [
            PendingBatch(RequestBatch(key, run, fingerprint, tuple(self._parsed(text))), *rest)
            for key, run, fingerprint, text, *rest in rows
        ]

    def is_foreign(self, idempotency_key: str, payer: Payer) -> bool:
        """Whether there is a note under a key that another payer has sent."""
        query = "SELECT vendor, key_id FROM pending WHERE idempotency_key = ?"
        rows = self._file.read(query, (idempotency_key,))
        return any(not _is_of(vendor, key_id, payer) for vendor, key_id in rows)

    def _parsed(self, text: str) -> Iterator[Query]:
        return parse_queries(text, self._content)

    def _content(self, name: str, digest: str) -> bytes:
        held = self._held.get(digest)
        return self._content_of(name, digest) if held is None else held.read()


def _is_of(vendor: str | None, key_id: str | None, payer: Payer) -> bool:
    return vendor in (None, payer.vendor) and key_id in (None, payer.key_id)


def delete_pending(connection: sqlite3.Connection, batch: RequestBatch) -> None:
    """Remove the note of a batch, if there is one."""
    connection.execute("DELETE FROM pending WHERE idempotency_key = ?", (batch.idempotency_key,))


def queries_json(queries: Sequence[Query]) -> str:
    """Queries as they are noted: an image by its path from the root, for the folder may be another later."""
    return json.dumps([[query.kind, query.digest, _noted_name(query)] for query in queries])


def _noted_name(query: Query) -> str:
    if query.kind == "image":
        with suppress(FileNotFoundError):  # a server's folder may be gone, and its images are no files
            return str(Path(query.name).absolute())
    return query.name


def parse_queries(text: str, content_of: ContentOf) -> Iterator[Query]:
    """What `queries_json` made."""
    for kind, digest, name in json.loads(text):
        if kind == "text":
            yield Query.text(name)
        else:
            yield Query(kind, digest, name, partial(content_of, name, digest))


def file_content(name: str, _digest: str) -> bytes:
    """The bytes of the file of this name."""
    return Path(name).read_bytes()
