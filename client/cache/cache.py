"""Everything that was ever paid for: embeddings, receipts, and notes of batches whose answers are owed."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from client.cache.embeddings import Embeddings
from client.cache.keys import Keys
from client.cache.notes import Batch, ContentOf, Note, Notes, Payer, file_content
from client.cache.origins import UNKNOWN
from client.cache.receipts import NOT_PAID, Owed, Paid, Receipts
from client.cache.statements import Cards, Heads
from client.cache.tables import Receipt, StoredEmbedding, Tables
from client.errors import Bill
from client.vendors.query import Query, Spending
from client.vendors.statements import Proof
from shared.embeddings import Prices
from shared.encoding import Vector
from shared.kinds import Usage

_NOBODY = Payer()


class EmbeddingCache(Embeddings):
    """One SQLite file, shared by runs, threads and processes; every change is durable when a call returns.

    A batch is noted before it is sent, and its answer is stored, with the receipt, in the transaction that
    removes the note. So after a crash at any moment the same batch can be sent again under the same key, and
    a vendor that had charged it answers without charging. `client/purchase/lifecycle.py` has all that may
    happen to a batch; the methods of this class record it, each in one transaction.

    Attributes:
        notes: batches whose answers are owed.
        billed: receipts.
        heads: what vendors have signed of their ledgers.
        cards: what they have signed of their models.
        keys: by which they have signed.
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
            CacheError: it cannot be opened, is damaged, or of another version.
        """
        tables = Tables(path, dtype="<f2" if half else "<f4")
        super().__init__(path, tables, on_damage)
        self.notes = Notes(tables, content_of)
        self.billed = Receipts(tables)
        self.heads = Heads(tables)
        self.cards = Cards(tables)
        self.keys = Keys(tables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def spending(self, run_id: str) -> Spending:
        """The amount paid by a run, by its receipts."""
        return self.billed.spending(run_id)

    def paid(self) -> Spending:
        """The amount ever paid, by the receipts of all runs."""
        return self.billed.spending()

    def receipts(self) -> list[Receipt]:
        """All receipts, of every run, vendor and account that the cache was used with."""
        return self.billed.all()

    def begin(
        self,
        batch: Batch,
        *,
        payer: Payer = _NOBODY,
        prices: Prices | None = None,
        again: bool = False,
        alive: Callable[[str], bool] = lambda _: False,
        released: Collection[str] | None = None,
    ) -> set[Query]:
        """Note, before it is sent, that a batch is being bought.

        Args:
            batch: the batch.
            payer: who is asked, and with which key.
            prices: what a query may cost.
            again: whether it is bought although it is in the cache, to be compared with that.
            alive: whether a run is being worked on right now.
            released: notes of others that hold nothing back, as `Notes.taken` has it.

        Returns:
            Those of its queries that are in the cache by now, or that another run is buying right now or may
            have paid for: then nothing is noted.
        """
        note = Note(batch, time.time(), payer, prices)
        with self._file.transaction():
            taken: set[Query] = set()
            if not again:
                taken = self.known(batch.fingerprint, batch.queries)
                taken |= self.notes.taken(note, alive=alive, released=released)
            if not taken:
                self.notes.put(note)
        return taken

    def name_job(self, note: Note, job: str) -> Note:
        """Note the vendor's name for a bulk job, also where its note was removed: it is to be paid for."""
        named = replace(note, job=job)
        self.notes.put(named)
        return named

    def commit(
        self,
        batch: Batch,
        vectors: Mapping[Query, Vector],
        usage: Usage,
        request_id: str,
        payer: Payer = _NOBODY,
        *,
        tolerance: float = 0.0,
        proof: Proof | None = None,
    ) -> Paid:
        """Store a paid answer and its receipt, and remove the note under the batch's key.

        What is in the cache already stays. Where the answer agrees with it, origins that were not known to
        agree are from now on.

        Args:
            batch: what was asked; of a bulk job, the part that is answered, under a key of its own.
            vectors: the answers, of shape (dimensions,).
            usage: what was billed.
            request_id: the vendor's name for the request.
            payer: who answered, and who paid.
            tolerance: the largest difference of one component between two answers of this model.
            proof: the vendor's signed receipt, where there is one.

        Returns:
            What was paid for it: nothing where its receipt was stored before.

        Raises:
            EmbeddingsDiffer: it differs from what is in the cache; nothing is stored.
        """
        tables = self._file
        with tables.transaction():
            model = tables.add_model(batch.fingerprint)
            known = self._held(model, vectors)
            self._compare(known, vectors, tolerance)
            mine = tables.origin(model, payer.vendor or UNKNOWN)
            rows = (
                StoredEmbedding(query.kind, bytes.fromhex(query.digest), vector.astype(self.dtype).tobytes())
                for query, vector in vectors.items()
                if query not in known
            )
            tables.insert(model, rows, mine)
            if known:
                tables.join_pools(model, [mine, *(row.origin for row in known.values())])
            paid = self.billed.add(batch, Bill(request_id, batch.fingerprint, usage), payer, proof=proof)
            tables.delete_note(batch.idempotency_key)
        return paid

    def reject(
        self,
        batch: Batch,
        bill: Bill,
        fault: str,
        payer: Payer = _NOBODY,
        *,
        proof: Proof | None = None,
        for_good: bool = False,
    ) -> Paid:
        """Store the receipt of an answer that cannot be taken; returns what it was billed.

        The note stays, for another answer may be had, unless it is rejected `for_good`.
        """
        with self._file.transaction():
            paid = self.billed.add(batch, bill, payer, fault=fault, proof=proof)
            if for_good:
                self._file.delete_note(batch.idempotency_key)
        return paid

    def abandon(self, batch: Batch, request_id: str | None = None) -> None:
        """Remove the note of a batch that was not charged; where it was refused, note that as well."""
        with self._file.transaction():
            if request_id is not None:
                self._file.add_refusal(request_id)
            self._file.delete_note(batch.idempotency_key)

    def lose(self, note: Note, owed: Owed, *, sent_again: bool = False) -> Paid:
        """Turn the note of a batch whose answer is lost for good into a receipt: it may be paid for.

        Args:
            note: the note.
            owed: what counts as paid.
            sent_again: whether it is sent once more, and the note stays.

        Returns:
            What counts as paid.
        """
        paid = NOT_PAID
        with self._file.transaction():
            # The key of a request is spent even where nothing of it is to be paid.
            if owed.counts or owed.cost_micros or not note.batch.is_job:
                paid = self.billed.add_lost(note, owed)
            if not sent_again:
                self._file.delete_note(note.batch.idempotency_key)
        return paid
