"""Notes: batches that were sent, or were about to be, and whose answers are not all stored."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from client.cache.tables import NoteRow, Tables
from client.vendors.query import Query
from shared.batches import WINDOW_SECONDS
from shared.embeddings import Prices

# A vendor gives up a request after 120 seconds unless it was set otherwise. A note that is farther from now
# is not of a request that may still be in hand, but of a run that was killed, or of a clock that was wrong.
FRESH_SECONDS = 130.0
# For this long, in seconds, a vendor answers again what was paid for, unless it says otherwise. What it does
# not tell of until then is not to be had any more.
_REPLAY_SECONDS = 72 * 3600
# Images in memory are held for as many bytes as this.
_MOST_BYTES = 64 * 2**20

ContentOf = Callable[[str, str], bytes]
"""Gives the bytes sent for an image, by the name and the digest of its query."""


@dataclass(frozen=True)
class Batch:
    """Queries that are sent together, under a key by which the vendor charges them once at most.

    Attributes:
        idempotency_key: the key.
        run_id: the run that pays.
        fingerprint: the model's.
        queries: in the order sent.
        lines: how many of them each line of a bulk job's file has; empty of a request.
    """

    idempotency_key: str
    run_id: str
    fingerprint: str
    queries: tuple[Query, ...]
    lines: tuple[int, ...] = ()

    @property
    def is_job(self) -> bool:
        """Whether it is sent as a bulk job."""
        return bool(self.lines)

    @property
    def by_line(self) -> list[tuple[Query, ...]]:
        """The queries of each line of a bulk job's file."""
        return [self.queries[start:end] for start, end in pairwise(accumulate(self.lines, initial=0))]


def make_batch(run_id: str, fingerprint: str, queries: tuple[Query, ...], generation: int = 0) -> Batch:
    """A batch under the key that the run and the content give it, the same after any restart.

    Where what was sent under that key is lost for good, a higher generation gives another one.
    """
    again = [f"again {generation}"] if generation else []
    content = "\0".join([run_id, fingerprint, *(f"{query.kind}:{query.digest}" for query in queries), *again])
    return Batch(hashlib.sha256(content.encode()).hexdigest(), run_id, fingerprint, queries)


@dataclass(frozen=True)
class Payer:
    """Who billed and who paid: the vendor's address, and the public half of the key, if they are known."""

    vendor: str | None = None
    key_id: str | None = None


@dataclass(frozen=True)
class Note:
    """A batch whose answer is owed.

    Attributes:
        batch: the batch.
        noted_at: when it was last sent, in seconds since 1970.
        sender: where it was sent to, and with which key, as far as was noted.
        prices: what a query may cost; `None` where that was not noted.
        job: the vendor's name for a bulk job, once that is known.
    """

    batch: Batch
    noted_at: float
    sender: Payer = Payer()
    prices: Prices | None = None
    job: str | None = None

    @property
    def seconds_left(self) -> float:
        """For how long the vendor may still be answering it, or beginning the job; 0 once it is not."""
        return _seconds_left(self.noted_at)

    @property
    def is_expired(self) -> bool:
        """Whether it was sent so long ago that its answer is no longer to be had."""
        return time.time() - self.noted_at > _REPLAY_SECONDS

    @property
    def may_go_on(self) -> bool:
        """Whether the vendor may still be working on it as a bulk job, as far as its window tells."""
        return abs(time.time() - self.noted_at) < WINDOW_SECONDS + FRESH_SECONDS

    def sent_by(self, payer: Payer) -> bool:
        """Whether this payer sent it, as far as was noted; another one is not told whether it was charged."""
        return self.sent_to(payer.vendor) and self.sender.key_id in (None, payer.key_id)

    def sent_to(self, vendor: str | None) -> bool:
        """Whether it was sent to a vendor, as far as was noted."""
        return self.sender.vendor in (None, vendor)


def _seconds_left(noted_at: float) -> float:
    return max(0.0, FRESH_SECONDS - abs(time.time() - noted_at))


class Notes:
    """The notes in one cache. Thread-safe."""

    def __init__(self, tables: Tables, content_of: ContentOf) -> None:
        self._tables = tables
        self._content_of = content_of
        self._images: dict[str, Query] = {}  # by digest, see `hold`
        self._noted: dict[str, frozenset[Query]] = {}  # by idempotency key, as they were parsed
        self._lock = threading.Lock()

    def of_run(self, run_id: str | None = None) -> list[Note]:
        """The notes of a run, or with `None` of all, the oldest first."""
        return [self._note(row) for row in self._tables.notes(run_id)]

    def find(self, idempotency_key: str) -> Note | None:
        """The note under a key."""
        return next((self._note(row) for row in self._tables.notes(key=idempotency_key)), None)

    def put(self, note: Note) -> None:
        """Note this in place of what is noted under its key."""
        self._tables.put_note(_row(note))

    def renew(self, batch: Batch) -> None:
        """Note that a batch is sent just now."""
        self._tables.touch_note(batch.idempotency_key, time.time())

    def taken(
        self, note: Note, *, alive: Callable[[str], bool], released: Collection[str] | None
    ) -> set[Query]:
        """Queries of a note that another note contains: sending them might pay twice.

        Args:
            note: of a batch that is about to be sent.
            alive: whether a run is being worked on right now.
            released: keys of notes that hold nothing back from this payer, for the vendor was asked. `None`
                where it cannot be asked, so that no request holds anything once it is not being answered.
        """
        mine, held = note.batch, set[Query]()
        rows = [row for row in self._tables.notes() if row.fingerprint == mine.fingerprint]
        self._noted = {row.idempotency_key: self._queries(row) for row in rows}
        for row in rows:
            key, is_job = row.idempotency_key, row.lines is not None
            if key == mine.idempotency_key or (row.run_id == mine.run_id and not is_job):
                continue  # a run asks after its own requests before it sends others
            noted = self._noted[key]
            theirs = {query for query in mine.queries if query in noted}  # ours, which know our files
            here = row.vendor in (None, note.sender.vendor)
            owed = released is not None and key not in released and here
            if theirs and (owed or (not is_job and (_seconds_left(row.noted_at) or alive(row.run_id)))):
                held |= theirs
        return held

    def hold(self, images: Sequence[Query]) -> None:
        """Hold those of some images that are in no file whose answers are owed, and let go of others.

        To fetch an answer takes all images of its batch. Beyond 64 MiB the oldest are let go.
        """
        owed = {query.digest for note in self.of_run() for query in note.batch.queries}
        with self._lock:
            held = self._images | {image.digest: image for image in images}
            held = {digest: image for digest, image in held.items() if digest in owed}
            size = sum(len(image.read()) for image in held.values())
            while size > _MOST_BYTES:
                size -= len(held.pop(next(iter(held))).read())
            self._images = held

    def _queries(self, row: NoteRow) -> frozenset[Query]:
        """The queries of a note, which never change; a bulk job has many, so they are parsed once."""
        return self._noted.get(row.idempotency_key) or frozenset(self._parsed(row.queries))

    def _note(self, row: NoteRow) -> Note:
        queries, lines = tuple(self._parsed(row.queries)), tuple(row.lines or ())
        return Note(
            Batch(row.idempotency_key, row.run_id, row.fingerprint, queries, lines),
            row.noted_at,
            Payer(row.vendor, row.key_id),
            None if row.prices is None else Prices.of(row.prices),
            row.job,
        )

    def _parsed(self, text: str) -> Iterator[Query]:
        for kind, digest, name in json.loads(text):
            if kind == "text":
                yield Query.text(name)
            else:
                yield Query(kind, digest, name, partial(self._content, name, digest))

    def _content(self, name: str, digest: str) -> bytes:
        held = self._images.get(digest)
        return self._content_of(name, digest) if held is None else held.read()


def _row(note: Note) -> NoteRow:
    """A note as it is stored: an image by its path from the root, for the folder may be another later."""
    batch, sender = note.batch, note.sender
    queries = json.dumps([[query.kind, query.digest, _noted_name(query)] for query in batch.queries])
    return NoteRow(
        idempotency_key=batch.idempotency_key,
        run_id=batch.run_id,
        fingerprint=batch.fingerprint,
        vendor=sender.vendor,
        key_id=sender.key_id,
        noted_at=note.noted_at,
        prices=None if note.prices is None else note.prices.by_kind,
        queries=queries,
        lines=batch.lines or None,
        job=note.job,
    )


def _noted_name(query: Query) -> str:
    if query.kind == "image":
        with suppress(FileNotFoundError):  # a server's folder may be gone, and its images are no files
            return str(Path(query.name).absolute())
    return query.name


def file_content(name: str, _digest: str) -> bytes:
    """The bytes of the file of this name."""
    return Path(name).read_bytes()
