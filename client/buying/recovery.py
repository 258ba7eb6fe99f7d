"""Batches that were sent and whose answers were never stored: asked after once more, free of charge."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from client.buying.budget import price
from client.buying.cache import EmbeddingCache
from client.buying.checkout import Checkout, Request
from client.buying.lock import run_lock
from client.buying.pending import PendingBatch, RequestBatch
from client.buying.protocols import Vendor
from client.buying.queries import Query, Spending
from client.errors import (
    ClientError,
    IdempotencyKeySpent,
    KeyRefused,
    PriceRaised,
    RequestRefused,
    RunBusy,
    SpendingStopped,
)
from shared.embeddings import ModelCard

# For so long, in seconds, a vendor answers again what was paid for, unless it says otherwise. What it does
# not tell of until then is not to be had any more.
_REPLAY_SECONDS = 72 * 3600

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


def is_expired(note: PendingBatch) -> bool:
    """Whether a batch was sent so long ago that its answer is no longer to be had."""
    return time.time() - note.noted_at > _REPLAY_SECONDS


def recover_dead_runs(
    vendor: Vendor,
    cache: EmbeddingCache,
    model: ModelCard,
    run_id: str,
    wanted: Sequence[Query],
    *,
    missing: Collection[Query] | None = None,
) -> Undecided:
    """Store what other runs had paid for and were killed before they could, as far as it is wanted here.

    Or else it would be paid for a second time, by this run. The receipts are those of the runs that paid.
    What the vendor has not charged stays noted: it may be answering the first request only now.

    Args:
        vendor: the vendor; one where to send again is not free is asked nothing.
        cache: where batches are noted.
        model: what they were meant for, and what answers.
        run_id: this run, which settles its own batches itself.
        wanted: what this run is about to buy, with what the cache has of it.
        missing: what of it the cache lacks; all of it, if it is left out.

    Returns:
        What the vendor does not tell of.

    Raises:
        KeyRefused, VendorError: the vendor does not answer, or answered what cannot be taken.
        CacheError: the cache cannot be written.
    """
    at_hand = {query: query for query in wanted}
    lacking = set(at_hand if missing is None else missing)
    undecided: Undecided = {}
    checkout = Checkout(vendor, cache, model)
    for other in cache.pending_batches.runs(model.fingerprint) if vendor.repeats_are_free and lacking else ():
        if other == run_id:
            continue
        with suppress(RunBusy), run_lock(cache.path, other):  # a run that is busy is not dead
            for note in cache.pending_batches.of_run(other):
                if note.batch.fingerprint != model.fingerprint or lacking.isdisjoint(note.batch.queries):
                    continue
                request = restore(note, at_hand)
                error = None if request is None else _fetch(checkout, cache, model, request, is_expired(note))
                if error is not None:
                    undecided |= dict.fromkeys(note.batch.queries, error)
    return undecided


def _fetch(
    checkout: Checkout, cache: EmbeddingCache, model: ModelCard, request: Request, past: bool
) -> ClientError | None:
    """Store the answer to a batch if the vendor had charged it; an error if it does not tell."""
    try:
        answer = checkout.fetch_charged(request)
    except PriceRaised:
        return None
    except KeyRefused:
        raise
    except (RequestRefused, SpendingStopped) as error:
        if not past and not isinstance(error, IdempotencyKeySpent):
            return error
        cache.write_off(request.batch, price(request.batch.queries, model.prices), checkout.payer)
        return None
    checkout.store(request.batch, answer)
    return None
