"""Bulk jobs that were begun, or about to be, and whose answers are not all stored: noted in the cache."""

import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from client.cache.file import CacheFile
from client.cache.pending import FRESH_SECONDS, ContentOf, Payer, parse_queries, queries_json
from client.errors import JobRunning
from client.vendors.query import Query
from shared.batches import WINDOW_SECONDS
from shared.embeddings import Prices


@dataclass(frozen=True)
class BulkNote:
    """A job.

    Attributes:
        idempotency_key: under which the vendor begins it once at most.
        run_id: the run that pays for it.
        fingerprint: the model's.
        vendor: where, as the cache names it.
        key_id: the public half of the API key.
        prices: what a query may cost.
        lines: the queries of each line of its file.
        noted_at: in seconds since 1970.
        batch_id: the vendor's name for it, once that is known.
    """

    idempotency_key: str
    run_id: str
    fingerprint: str
    vendor: str
    key_id: str | None
    prices: Prices
    lines: tuple[tuple[Query, ...], ...]
    noted_at: float
    batch_id: str | None = None

    @property
    def queries(self) -> list[Query]:
        """All that is asked, in order."""
        return [query for line in self.lines for query in line]

    @property
    def is_fresh(self) -> bool:
        """Whether the vendor may be beginning it only now."""
        return abs(time.time() - self.noted_at) < FRESH_SECONDS

    @property
    def may_go_on(self) -> bool:
        """Whether the vendor may still be working on it, as far as its window tells."""
        return abs(time.time() - self.noted_at) < WINDOW_SECONDS + FRESH_SECONDS


class BulkNotes:
    """The notes in one cache. Thread-safe."""

    def __init__(self, file: CacheFile, content_of: ContentOf) -> None:
        self._file = file
        self._content_of = content_of
        self._queries: dict[str, frozenset[Query]] = {}  # by idempotency key; they never change
        self._passed_over: set[tuple[str, str | None]] = set()  # idempotency keys, and who passes them over

    def add(self, connection: sqlite3.Connection, note: BulkNote) -> None:
        """Note a job before it is begun."""
        content = {
            "prices": note.prices.model_dump(),
            "lines": [json.loads(queries_json(line)) for line in note.lines],
        }
        connection.execute(
            "INSERT OR REPLACE INTO bulk_jobs (idempotency_key, run_id, fingerprint, vendor, key_id, "
            "content, noted_at, batch_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(note.idempotency_key, note.run_id, note.fingerprint, note.vendor, note.key_id),
                *(json.dumps(content), note.noted_at, note.batch_id),
            ),
        )

    def held(
        self, connection: sqlite3.Connection, payer: Payer, fingerprint: str, queries: Collection[Query]
    ) -> set[Query]:
        """Those of some queries that a job at a vendor has, of whatever run; not of one passed over."""
        jobs = connection.execute(
            "SELECT idempotency_key, content FROM bulk_jobs WHERE vendor = ? AND fingerprint = ?",
            (payer.vendor, fingerprint),
        )
        held: set[Query] = set()
        passed_over = self.passed_over(payer.key_id)
        for key, content in jobs:
            if key in passed_over:
                continue
            if key not in self._queries:
                lines = _lines(json.loads(content), self._content_of)
                self._queries[key] = frozenset(query for line in lines for query in line)
            held |= {query for query in queries if query in self._queries[key]}
        return held

    def pass_over(self, note: BulkNote, key_id: str | None) -> None:
        """Let a job hold nothing back from whoever buys with a key, as long as this process lasts."""
        self._passed_over.add((note.idempotency_key, key_id))

    def passed_over(self, key_id: str | None) -> set[str]:
        """The idempotency keys of the jobs that are passed over with a key."""
        return {key for key, passes in tuple(self._passed_over) if passes == key_id}

    def held_now(self, payer: Payer, fingerprint: str, queries: Collection[Query]) -> set[Query]:
        """As `held`, outside of a transaction."""
        return self._file.ask(partial(self.held, payer=payer, fingerprint=fingerprint, queries=queries))

    def name(self, note: BulkNote, batch_id: str) -> BulkNote:
        """Note the vendor's name for a job, whoever has removed its note meanwhile: it is to be paid for."""
        named = replace(note, batch_id=batch_id)
        with self._file.transaction() as connection:
            self.add(connection, named)
        return named

    def refresh(self, note: BulkNote) -> None:
        """Note that the vendor is asked just now to begin a job."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE bulk_jobs SET noted_at = ? WHERE idempotency_key = ?",
                (time.time(), note.idempotency_key),
            )

    def forget(self, note: BulkNote) -> None:
        """Remove the note of a job: all that it brought is stored, or it was never begun."""
        with self._file.transaction() as connection:
            delete_job(connection, note.idempotency_key)

    def count(self) -> int:
        """How many notes there are."""
        ((number,),) = self._file.read("SELECT count(*) FROM bulk_jobs")
        return int(number)

    def of_model(self, vendor: str, fingerprint: str) -> list[BulkNote]:
        """The jobs at a vendor for a model, the oldest first."""
        return self._noted(vendor, fingerprint, None)

    def of_run(self, run_id: str) -> list[BulkNote]:
        """The jobs that a run pays for, at whatever vendor, for whatever model."""
        return self._noted(None, None, run_id)

    def _noted(self, vendor: str | None, fingerprint: str | None, run_id: str | None) -> list[BulkNote]:
        rows = self._file.read(
            "SELECT idempotency_key, run_id, fingerprint, vendor, key_id, content, noted_at, batch_id "
            "FROM bulk_jobs WHERE vendor = coalesce(?, vendor) AND fingerprint = coalesce(?, fingerprint) "
            "AND run_id = coalesce(?, run_id) ORDER BY noted_at",
            (vendor, fingerprint, run_id),
        )
        return [_note(self._content_of, *row) for row in rows]


def delete_job(connection: sqlite3.Connection, idempotency_key: str) -> None:
    """Remove the note of a job, if there is one."""
    connection.execute("DELETE FROM bulk_jobs WHERE idempotency_key = ?", (idempotency_key,))


def _note(
    content_of: ContentOf,
    idempotency_key: str,
    run_id: str,
    fingerprint: str,
    vendor: str,
    key_id: str | None,
    content: str,
    noted_at: float,
    batch_id: str | None,
) -> BulkNote:
    given = json.loads(content)
    lines, prices = _lines(given, content_of), Prices.model_validate(given["prices"])
    return BulkNote(idempotency_key, run_id, fingerprint, vendor, key_id, prices, lines, noted_at, batch_id)


def _lines(given: Mapping[str, Any], content_of: ContentOf) -> tuple[tuple[Query, ...], ...]:
    """The queries of each line of a job's file, from the content of its note."""
    return tuple(tuple(parse_queries(json.dumps(line), content_of)) for line in given["lines"])


def being_bought(notes: Sequence[BulkNote]) -> JobRunning:
    """What to say of queries that bulk jobs are to bring."""
    ids = ", ".join(note.batch_id for note in notes if note.batch_id)
    return JobRunning(
        "Some of these queries, or others that this run has asked, are being bought by "
        f"{f'the bulk job {ids}' if ids else 'a bulk job'}. Give the command with --batch, which waits for "
        "it; or cancel it with `client batches --cancel ID`, and what it has not done is bought now."
    )
