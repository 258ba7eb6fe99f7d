"""Packs that were sent and whose answers were never stored: asked after once more, free of charge."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from client.buying.cache import EmbeddingCache, Pack
from client.buying.claim import claim
from client.buying.protocols import Vendor
from client.buying.queries import Query
from client.errors import RequestRefused, RunBusy, SpendingStopped
from shared.embeddings import ModelCard


def recall(pack: Pack, at_hand: Mapping[Query, Query]) -> list[tuple[Query, bytes]] | None:
    """The queries of a pack with their bytes as they were sent; `None` where a file is no longer what it was.

    The files are those `at_hand`, for the folder may have moved since the pack was noted.
    """
    queries = [at_hand.get(query, query) for query in pack.queries]
    try:
        return [(query, query.content()) for query in queries]
    except (OSError, ValueError):
        return None


def fetch_for_dead_runs(
    vendor: Vendor, cache: EmbeddingCache, model: ModelCard, run_id: str, wanted: Sequence[Query]
) -> None:
    """Store what other runs had paid for and were killed before they could, as far as it is wanted here.

    Or else it would be paid for a second time, by this run. The receipts are those of the runs that paid.
    What the vendor has not charged stays noted: it may be answering the first request only now.

    Args:
        vendor: the vendor; one where to send again is not free is asked nothing.
        cache: where packs are noted.
        model: what they were meant for, and what answers.
        run_id: this run, which settles its own packs itself.
        wanted: what this run is about to buy.

    Raises:
        VendorError: the vendor does not answer.
        CacheError: the cache cannot be written.
    """
    at_hand = {query: query for query in wanted}
    for other in cache.owing(model.fingerprint) if vendor.repeats_are_free else ():
        if other == run_id:
            continue
        with suppress(RunBusy), claim(cache.path, other):  # a run that is busy is not dead
            for pack in cache.pending(other):
                contents = None if at_hand.keys().isdisjoint(pack.queries) else recall(pack, at_hand)
                if contents is not None and pack.fingerprint == model.fingerprint:
                    _fetch(vendor, cache, model, pack, contents)


def _fetch(
    vendor: Vendor,
    cache: EmbeddingCache,
    model: ModelCard,
    pack: Pack,
    contents: Sequence[tuple[Query, bytes]],
) -> None:
    """Store the answer to a pack if the vendor had charged it; otherwise it refuses, free of charge."""
    with suppress(SpendingStopped, RequestRefused):
        answer = vendor.embed(
            contents,
            model=model,
            idempotency_key=pack.idempotency_key,
            max_cost_micros=0,
            on_push_back=lambda: None,
            on_unsure=lambda: None,
        )
        cache.commit(pack, answer.vectors, answer.usage, answer.request_id, vendor.key_id)
