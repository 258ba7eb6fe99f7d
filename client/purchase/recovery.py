"""Batches that were sent and whose answers were never stored: asked after once more, free of charge."""

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from client.cache.pending import PendingBatch, RequestBatch
from client.cache.receipts import Receipts
from client.errors import (
    ClientError,
    IdempotencyKeySpent,
    KeyRefused,
    PriceRaised,
    RequestRefused,
    RunBusy,
    SpendingStopped,
)
from client.purchase.budget import NOTHING, price
from client.purchase.checkout import Checkout, Request
from client.purchase.lock import notes_lock
from client.vendors.query import Query, Spending
from shared.embeddings import Prices

Undecided = dict[Query, ClientError]
"""Queries that may have been paid for, and why the vendor does not tell: to buy them might pay twice."""


def restore(note: PendingBatch, at_hand: Mapping[Query, Query]) -> Request | None:
    """A noted batch as it was sent, with nothing set aside; `None` where a file is no longer what it was.

    The files are those `at_hand`, for the folder may have moved since the batch was noted.
    """
    queries = tuple(at_hand.get(query, query) for query in note.batch.queries)
    try:
        contents = [query.content() for query in queries]
    except (OSError, ValueError):
        return None
    batch = RequestBatch(note.batch.idempotency_key, note.batch.run_id, note.batch.fingerprint, queries)
    return Request(batch, contents, Spending(0, 0), note.agreed_micros, doubtful=note.seconds_left > 0)


def may_cost(note: PendingBatch, prices: Prices, billed: Receipts) -> Spending:
    """The most that a noted batch was to cost; by today's prices where that was not noted.

    The bill of an answer that could not be taken counts by its receipt, and so no more here.
    """
    today = price(note.batch.queries, prices)
    most = today if note.agreed_micros is None else replace(today, cost_micros=note.agreed_micros)
    left = most - billed.rejected(note)
    return Spending(max(0, left.queries), max(0, left.cost_micros))


class DeadRuns:
    """What other runs may have paid for and were killed before they could store it.

    It is asked after under their keys, free of charge, or else it would be paid for a second time, by this
    run. The receipts are those of the runs that paid.

    Attributes:
        asked: keys of notes that hold nothing back any more, for nobody can ask about them.
        undecided: what the vendor does not tell of.
    """

    def __init__(
        self,
        checkout: Checkout,
        run_id: str,
        say: Callable[[str], None] = lambda _: None,
        *,
        undecided: Undecided | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            checkout: where to ask; a vendor where to send again is not free is asked nothing.
            run_id: this run, which settles its own batches itself.
            say: told what is bought again although it may be paid for.
            undecided: where to note what the vendor does not tell of.
        """
        self._checkout = checkout
        self._vendor, self._cache, self._model = checkout.vendor, checkout.cache, checkout.model
        self._run_id = run_id
        self._say = say
        self._lock = threading.Lock()
        self.asked: set[str] = set()
        self.undecided: Undecided = {} if undecided is None else undecided

    def recover(
        self, at_hand: Mapping[Query, Query], missing: Collection[Query], *, only_past: bool = False
    ) -> None:
        """Store what was charged of batches that have something of what is missing here. Thread-safe.

        What the vendor has not charged is free once it cannot be answering the first request any more.

        Args:
            at_hand: the queries of this run, whose files are where they are now.
            missing: what the cache lacks of them.
            only_past: whether to leave alone what the vendor may still be answering.

        Raises:
            KeyRefused, VendorError: the vendor does not answer, or answered what cannot be taken.
            CacheError: the cache cannot be written.
        """
        if not (missing and self._vendor.repeats_are_free):
            return
        with self._lock:
            notes = self._notes(None, missing, only_past=only_past)
            for run_id in dict.fromkeys(note.batch.run_id for note in notes):
                with suppress(RunBusy), notes_lock(self._cache.path, run_id):  # who is busy is not dead
                    for note in self._notes(run_id, missing, only_past=only_past):
                        self._settle(note, at_hand, missing)

    def _notes(
        self, run_id: str | None, missing: Collection[Query], *, only_past: bool
    ) -> list[PendingBatch]:
        """What another run, or any, has sent this vendor of what is missing, and nobody has asked after."""
        return [
            note
            for note in self._cache.pending_batches.of_run(run_id)
            if note.batch.run_id != self._run_id
            and note.sent_to(self._checkout.origin)
            and note.batch.fingerprint == self._model.fingerprint
            and note.batch.idempotency_key not in self.asked
            and any(query in missing and query not in self.undecided for query in note.batch.queries)
            and not (only_past and note.seconds_left)
        ]

    def _settle(self, note: PendingBatch, at_hand: Mapping[Query, Query], missing: Collection[Query]) -> None:
        request = restore(note, at_hand)
        if request is not None:
            error = self._fetch(request, note)
            if error is not None:
                self.undecided.update(dict.fromkeys(note.batch.queries, error))
        elif not note.seconds_left:
            self.asked.add(note.batch.idempotency_key)
            self._say(
                f"Another run was killed as it bought {sum(q in missing for q in note.batch.queries)} of "
                "these queries. They may be paid for, and cannot be asked after, for a file that was sent "
                "with them has changed or is gone. They are bought again."
            )

    def _fetch(self, request: Request, note: PendingBatch) -> ClientError | None:
        """Store the answer to a batch if the vendor had charged it; an error if it does not tell."""
        batch, is_own = request.batch, note.sent_by(self._checkout.payer)
        try:
            answer = self._checkout.fetch_charged(request)
        except PriceRaised:
            if request.doubtful:
                return None
            if is_own:
                self._cache.abandon(batch)
            else:  # another account may have paid for it, of which this one is told nothing
                self.asked.add(batch.idempotency_key)
            return None
        except KeyRefused:
            raise
        except (RequestRefused, SpendingStopped) as error:
            is_spent = isinstance(error, IdempotencyKeySpent)
            if is_spent and not is_own:
                self.asked.add(batch.idempotency_key)
                return None
            if not note.is_expired and not is_spent:
                return error
            billed = self._cache.billed
            cost = NOTHING if billed.is_answered(note) else may_cost(note, self._model.prices, billed)
            self._cache.write_off(batch, cost, note.sender(self._checkout.payer))
            return None
        self._checkout.store(batch, answer)
        return None
