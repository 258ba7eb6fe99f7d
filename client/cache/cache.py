"""Everything that was ever paid for: embeddings, receipts, and requests whose answer is still owed."""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.cache.bulk_notes import BulkNote, BulkNotes, delete_job
from client.cache.embeddings import CHUNK, CacheRow, StoredEmbedding, by_kind, held, insert, model_id, select
from client.cache.file import CacheFile
from client.cache.origins import UNKNOWN, Origins, difference, join_pools, origin_id
from client.cache.pending import (
    ContentOf,
    Payer,
    PendingBatch,
    PendingBatches,
    RequestBatch,
    delete_pending,
    file_content,
)
from client.cache.receipts import (
    PaidRequest,
    Receipt,
    Receipts,
    add_lost_receipt,
    add_receipt,
    add_refusal,
)
from client.cache.statements import Cards, Heads
from client.errors import Bill, CacheError, EmbeddingsDiffer
from client.vendors.proofs import Proof
from client.vendors.query import Query, Spending
from shared.embeddings import Kind, Usage
from shared.encoding import Vector

_PROGRESS_EVERY = 10_000
_NOBODY = Payer()


@dataclass(frozen=True)
class CacheContents:
    """What the cache holds of one model and kind; `vector_bytes` are those of the vectors alone."""

    fingerprint: str
    kind: Kind
    embeddings: int
    vector_bytes: int


class EmbeddingCache:
    """One SQLite file, shared by runs, threads and processes; every change is durable when a call returns.

    A batch is noted as pending before it is sent, and its answer is stored, with the receipt, in the
    transaction that clears the note. So after a crash at any moment the same batch can be sent again under
    the same key, and a vendor that had charged it answers without charging.
    """

    def __init__(
        self,
        path: Path,
        *,
        half: bool = False,
        on_damage: Callable[[str], None] = lambda _: None,
        content_of: ContentOf = file_content,
    ) -> None:
        """Open the file, or create it.

        Args:
            path: the file; its folder is made if need be.
            half: whether it rounds vectors to float16, where it is created; a file stays as it was created.
            on_damage: told, once, of entries whose checksum does not match; they count as missing.
            content_of: what was sent for an image that is noted, where a run must send it again.

        Raises:
            CacheError: it cannot be opened, is damaged, or was written by a newer Tuition.
        """
        self.path = path
        self._file = CacheFile(path, dtype="<f2" if half else "<f4")
        self.pending_batches = PendingBatches(self._file, content_of)
        self.bulk_notes = BulkNotes(self._file, content_of)
        self.billed = Receipts(self._file)
        self.heads = Heads(self._file)
        self.cards = Cards(self._file)
        self._origins = Origins(self._file)
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
            for query, blob, _ in self._intact(fingerprint, queries)
        }

    def rows(
        self, fingerprint: str, queries: Sequence[Query], dimensions: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings as a matrix (n, dimensions), and which rows the cache has (n,); the others are NaN.

        Raises:
            CacheError: what it has is of other dimensions.
        """
        matrix = np.full((len(queries), dimensions), np.nan, dtype=np.float32)
        have = np.zeros(len(queries), dtype=np.bool_)
        places: dict[Query, list[int]] = {}
        for row, query in enumerate(queries):
            places.setdefault(query, []).append(row)
        for query, blob, _ in self._intact(fingerprint, places):
            vector = np.frombuffer(blob, dtype=self.dtype)
            if len(vector) != dimensions:
                raise CacheError(
                    f"The cache {self.path} has embeddings of {len(vector)} dimensions under {fingerprint}, "
                    f"and the vendor says that this model has {dimensions}. Name another --cache for it."
                )
            for row in places[query]:
                matrix[row] = vector
                have[row] = True
        return matrix, have

    def known(self, fingerprint: str, queries: Collection[Query]) -> set[Query]:
        """Which of the queries the cache can answer; one vector is in memory at a time."""
        return {query for query, _, _ in self._intact(fingerprint, queries)}

    def origins(self, fingerprint: str, queries: Collection[Query]) -> dict[Query, tuple[str, int]]:
        """Of the queries that the cache can answer: the origin's name, and the pool that it is in."""
        found = {query: origin for query, _, origin in self._intact(fingerprint, queries)}
        named = self._origins.by_id(fingerprint)  # read last: another run may have added one meanwhile
        gone = named[None]  # or deleted all of them
        return {query: named.get(origin, gone) for query, origin in found.items()}

    def pool(self, fingerprint: str, origin: str) -> int | None:
        """The pool of an origin of a model; `None` where nothing of it is known."""
        return self._origins.pools(fingerprint).get(origin)

    def begin(
        self,
        batch: RequestBatch,
        *,
        payer: Payer = _NOBODY,
        agreed_micros: int | None = None,
        again: bool = False,
        alive: Callable[[str], bool] = lambda _: False,
        asked: Collection[str] | None = None,
    ) -> set[Query]:
        """Note, before it is sent, that a batch is being bought.

        Args:
            batch: the batch.
            payer: who is asked, and with which key.
            agreed_micros: the most that it may cost.
            again: whether it is bought although it is in the cache, to be compared with that.
            alive: whether a run is being worked on right now.
            asked: of runs that were killed, as `PendingBatches.held` has it.

        Returns:
            Those of its queries that another run has bought, or is buying right now, or may have paid for:
            then nothing is noted.
        """
        note = PendingBatch(batch, time.time(), payer.vendor, payer.key_id, agreed_micros)
        known = partial(self._not_free, payer)
        return self.pending_batches.take(note, known=known, alive=alive, again=again, asked=asked)

    def begin_job(
        self, note: BulkNote, *, alive: Callable[[str], bool], asked: Collection[str] | None = None
    ) -> set[Query]:
        """Note a bulk job before it is begun; as `begin`, which tells what it returns."""
        batch = RequestBatch(note.idempotency_key, note.run_id, note.fingerprint, tuple(note.queries))
        with self._file.transaction() as connection:
            taken = self._not_free(Payer(note.vendor, note.key_id), connection, batch)
            taken |= self.pending_batches.held(connection, batch, note.vendor, alive=alive, asked=asked)
            if not taken:
                self.bulk_notes.add(connection, note)
        return taken

    def _not_free(self, payer: Payer, connection: sqlite3.Connection, batch: RequestBatch) -> set[Query]:
        """The queries of a batch that are in the cache, or that a bulk job is to bring."""
        in_jobs = self.bulk_notes.held(connection, payer, batch.fingerprint, batch.queries)
        return in_jobs | set(held(connection, model_id(connection, batch.fingerprint), batch.queries))

    def commit(
        self,
        batch: RequestBatch,
        vectors: dict[Query, Vector],
        usage: Usage,
        request_id: str,
        key_id: str | None = None,
        *,
        origin: str = UNKNOWN,
        tolerance: float = 0.0,
        proof: Proof | None = None,
    ) -> bool:
        """Store a paid answer and its receipt, and clear the note, in one transaction.

        What is in the cache already stays. Where the answer agrees with it, origins that were not known to
        agree are from now on.

        Args:
            batch: what was asked.
            vectors: the answers, of shape (dimensions,).
            usage: what was billed.
            request_id: the vendor's name for the request.
            key_id: the public half of the API key.
            origin: who answered, as `origin_of` names it.
            tolerance: the largest difference of one component between two answers of this model.
            proof: the vendor's signed receipt, where there is one.

        Returns:
            Whether the receipt is new; a job's answers may be fetched twice.

        Raises:
            EmbeddingsDiffer: it differs from what is in the cache; nothing is stored.
        """
        bill, payer = Bill(request_id, batch.fingerprint, usage), Payer(origin or None, key_id)
        with self._file.transaction() as connection:
            model = model_id(connection, batch.fingerprint)
            known = held(connection, model, vectors)
            self._compare(known, vectors, tolerance)
            mine = origin_id(connection, model, origin)
            rows = (
                StoredEmbedding(query.kind, bytes.fromhex(query.digest), vector.astype(self.dtype).tobytes())
                for query, vector in vectors.items()
                if query not in known
            )
            insert(connection, model, rows, mine)
            if known:
                unknown = origin_id(connection, model, UNKNOWN)
                join_pools(connection, model, [mine, *(row.origin or unknown for row in known.values())])
            is_new = add_receipt(connection, batch, bill, payer, proof=proof)
            delete_pending(connection, batch)
        return is_new

    def reject(
        self,
        batch: RequestBatch,
        bill: Bill,
        fault: str,
        payer: Payer = _NOBODY,
        *,
        proof: Proof | None = None,
        for_good: bool = False,
    ) -> None:
        """Store the receipt of an answer that cannot be taken.

        The note stays, for another answer may be had, unless it is rejected `for_good`.
        """
        with self._file.transaction() as connection:
            add_receipt(connection, batch, bill, payer, fault=fault, proof=proof)
            if for_good:
                delete_pending(connection, batch)

    def abandon(self, batch: RequestBatch, request_id: str | None = None, key_id: str | None = None) -> None:
        """Clear the note of a batch that the vendor refused, and so did not charge."""
        with self._file.transaction() as connection:
            if request_id is not None:
                add_refusal(connection, batch, request_id, key_id)
            delete_pending(connection, batch)

    def write_off(self, batch: RequestBatch, paid: Spending, payer: Payer = _NOBODY) -> None:
        """Turn the note of a batch, or job, whose answer is lost for good into a receipt: it may be paid for.

        Where it has no queries, the note goes without one.
        """
        with self._file.transaction() as connection:
            if batch.queries or paid.cost_micros:
                add_lost_receipt(connection, batch, paid, payer)
            delete_pending(connection, batch)
            delete_job(connection, batch.idempotency_key)

    def spending(self, run_id: str) -> Spending:
        """What a run has paid, by its receipts."""
        return self.billed.spending(run_id)

    def sales(self, fingerprint: str) -> list[PaidRequest]:
        """What was bought of a model, by its latest receipts."""
        return self.billed.sales(fingerprint)

    def fingerprints(self) -> list[str]:
        """The models that it knows."""
        return [name for (name,) in self._file.read("SELECT fingerprint FROM models ORDER BY id")]

    def holdings(self) -> list[CacheContents]:
        """What there is, by model and kind."""
        rows = self._file.read(
            "SELECT fingerprint, kind, count(*), sum(length(vector)) FROM embeddings "
            "JOIN models ON models.id = model GROUP BY fingerprint, kind ORDER BY fingerprint, kind"
        )
        return [CacheContents(*row) for row in rows]

    def paid(self) -> Spending:
        """What was ever paid for, by the receipts of all runs."""
        return self.billed.spending()

    def receipts(self) -> list[Receipt]:
        """All receipts, of every run, vendor and account that the cache was used with."""
        return self.billed.all()

    def stored(self, fingerprint: str) -> Iterator[StoredEmbedding]:
        """Every intact embedding of a model, in the order in which they were bought."""
        for _, entry, checksum in self._entries("WHERE fingerprint = ?", fingerprint):
            if checksum == entry.checksum:
                yield entry

    def add(self, fingerprint: str, entries: Iterable[StoredEmbedding], *, origin: str = UNKNOWN) -> int:
        """Store embeddings that were bought elsewhere, all or none; returns how many of them were new.

        What is there already stays: it was paid for here.

        Raises:
            EmbeddingsDiffer: one is of another size than what the cache has of the model, or differs from it.
        """
        pieces = iter(entries)
        with self._file.transaction() as connection:
            model = model_id(connection, fingerprint)
            number = origin_id(connection, model, origin)
            before = connection.total_changes
            while piece := list(islice(pieces, CHUNK)):
                self._add_some(connection, model, number, piece)
            return connection.total_changes - before

    def _add_some(
        self, connection: sqlite3.Connection, model: int, origin: int, piece: Sequence[StoredEmbedding]
    ) -> None:
        """Store those of some embeddings that are not there."""
        first = connection.execute(
            "SELECT length(vector) FROM embeddings WHERE model = ? LIMIT 1", (model,)
        ).fetchone()
        length = len(piece[0].vector) if first is None else first[0]
        new: dict[Query, StoredEmbedding] = {}
        twice: dict[Query, Vector] = {}
        for entry in piece:
            if len(entry.vector) != length:
                sizes = (size // self.dtype.itemsize for size in (len(entry.vector), length))
                raise EmbeddingsDiffer("{} dimensions, not {}".format(*sizes))
            name = entry.digest.hex()
            query = Query(entry.kind, name, name, bytes)
            if new.setdefault(query, entry) is not entry:
                twice[query] = self._vector(entry)
        vectors = {query: self._vector(entry) for query, entry in new.items()}
        self._compare({query: CacheRow(new[query], None, intact=True) for query in twice}, twice, 1.0)
        known = held(connection, model, new)
        self._compare(known, vectors, 1.0)
        insert(connection, model, (entry for query, entry in new.items() if query not in known), origin)

    def _compare(
        self, known: Mapping[Query, CacheRow], vectors: Mapping[Query, Vector], tolerance: float
    ) -> None:
        """Compare embeddings with what is known of the same queries.

        Raises:
            EmbeddingsDiffer: they differ.
        """
        before = {query: self._vector(row.entry) for query, row in known.items()}
        found = difference(before, vectors, tolerance=tolerance, itemsize=self.dtype.itemsize)
        if found is not None:
            raise EmbeddingsDiffer(found)

    def _vector(self, entry: StoredEmbedding) -> Vector:
        return np.frombuffer(entry.vector, dtype=self.dtype).astype(np.float32)

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
        for checked, (_, entry, checksum) in enumerate(self._entries(""), start=1):
            damaged += checksum != entry.checksum
            if checked % _PROGRESS_EVERY == 0:
                on_checked(checked)
        return damaged

    def prune(self, fingerprint: str | None) -> int:
        """Delete the embeddings of a model or, with `None`, the damaged ones of all; receipts stay.

        Returns:
            How many were deleted; their room is given back to the disk.
        """
        if fingerprint is None:
            deleted = self._delete_damaged()
        else:
            of_model = "WHERE model = (SELECT id FROM models WHERE fingerprint = ?)"
            with self._file.transaction() as connection:  # also of what is bought at this moment
                gone = connection.execute(f"DELETE FROM embeddings {of_model}", (fingerprint,))  # noqa: S608
                connection.execute(f"DELETE FROM origins {of_model}", (fingerprint,))  # noqa: S608
            deleted = gone.rowcount
        self._compact()
        return deleted

    def _delete_damaged(self) -> int:
        """Delete what is damaged, not what was bought meanwhile in its place; returns how many that were."""
        doomed = [(id_, checksum) for id_, entry, checksum in self._entries("") if checksum != entry.checksum]
        with self._file.transaction() as connection:
            gone = connection.executemany("DELETE FROM embeddings WHERE id = ? AND checksum = ?", doomed)
        return gone.rowcount

    def _compact(self) -> bool:
        """Leave nothing of what was deleted in the file; False where others read it for too long."""
        self._file.read("VACUUM")
        ((busy, *_),) = self._file.read("PRAGMA wal_checkpoint(TRUNCATE)")
        return not busy

    def forget(self, images: Collection[str]) -> int:
        """Delete the embeddings of images, of all models, by the SHA-256 (hex) of their bytes; receipts stay.

        What is asked about again is then paid again. Nothing of them is left in the file.

        Returns:
            How many embeddings were deleted.

        Raises:
            CacheError: somebody reads the file for so long that something is left.
        """
        deleted = 0
        pieces = iter(images)
        while piece := list(islice(pieces, CHUNK)):  # others may buy in between
            with self._file.transaction() as connection:
                before = connection.total_changes
                connection.executemany(
                    "DELETE FROM embeddings "
                    "WHERE model IN (SELECT id FROM models) AND kind = 'image' AND digest = ?",
                    ((bytes.fromhex(digest),) for digest in piece),
                )
                deleted += connection.total_changes - before
        if images and not self._compact():  # also where they were deleted before, and this was not reached
            raise CacheError(
                f"What was deleted from the cache {self.path} is still in its files, because another process "
                "is reading it. Wait for that one, or stop it, and give the same command again."
            )
        return deleted

    def _intact(
        self, fingerprint: str, queries: Collection[Query]
    ) -> Iterator[tuple[Query, bytes, int | None]]:
        """The entries whose checksum matches, and their origins; damaged ones are told of."""
        damaged: set[bytes] = set()
        model = self._file.read("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,))
        for kind, wanted in by_kind(queries) if model else ():
            for row in self._file.ask(partial(select, model=model[0][0], kind=kind, digests=wanted)):
                if row.intact:
                    yield wanted[row.entry.digest], row.entry.vector, row.origin
                else:
                    damaged.add(row.entry.digest)
        if new := damaged - self._damaged:
            self._damaged |= new
            self._on_damage(f"Damaged entries in the cache {self.path}, counted as missing: {len(new)}.")

    def _entries(self, where: str, *parameters: str) -> Iterator[tuple[int, StoredEmbedding, int]]:
        """Every entry, or those of one model: its id, what it holds, and the checksum that it was given."""
        last = 0
        condition = f"{where or 'WHERE true'} AND embeddings.id > ?"
        while True:  # `+model` has no index: by that, each chunk would sort all rows of the model
            rows = self._file.read(
                "SELECT embeddings.id, kind, digest, vector, checksum FROM embeddings "  # noqa: S608 (ours)
                f"JOIN models ON models.id = +model {condition} ORDER BY embeddings.id LIMIT {CHUNK}",
                (*parameters, last),
            )
            if not rows:
                return
            for id_, kind, digest, vector, checksum in rows:
                yield id_, StoredEmbedding(kind, digest, vector), checksum
            last = rows[-1][0]
