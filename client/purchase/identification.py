"""Which model a vendor sells that gives it no fingerprint: it is recognised by its answers to two inputs.

One model gives one input nearly the same vector on any hardware, and another model gives another vector. So
the model is asked about a text and an image, and goes by the fingerprint under which the cache knows these
answers.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer
from client.cache.origins import origin_of
from client.errors import Bill, CacheError, ClientError, VendorError
from client.vendors.query import Query, counts_of
from client.vendors.vendor import Vendor
from shared.embeddings import ModelCard
from shared.encoding import Vector
from shared.kinds import Usage

# A text, and a PNG of 8 x 8 pixels in four colours.
_TEXT = "a photo of a yellow canary on a branch"
_IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAHklEQVR42mP4f40BjhQSDsARAzUlkMAFBQU4oqIEAJJuciH+93LCAAAA"
    "AElFTkSuQmCC"
)
_RUN = "canary"
_SAME_COSINE = 0.999
# Unit vectors of such a cosine differ by no more than this in any component.
_TOLERANCE = (2 * (1 - _SAME_COSINE)) ** 0.5


def identify(
    vendor: Vendor, cache: EmbeddingCache, name: str | None = None, *, fingerprint: str | None = None
) -> ModelCard:
    """The model that will answer; the one of the `fingerprint` where no name is given and that is sold.

    A vendor without fingerprints is asked two queries, whose receipts are stored; they are of no run and
    count in no budget. An error says by its `paid_in_vain` whether one of them may have been paid for.

    Raises:
        VendorError: there are several models and no name, or a text and an image are not embedded alike.
    """
    model = vendor.model(name, fingerprint=fingerprint)
    if vendor.declares.states_fingerprints:
        return model
    vectors: dict[Query, Vector] = {}
    queries = (
        Query.text(_TEXT),
        Query("image", hashlib.sha256(_IMAGE).hexdigest(), "canary.png", lambda: _IMAGE),
    )
    try:
        for query in queries:
            answer = vendor.embed(
                [(query, query.content())], model=model, idempotency_key=secrets.token_hex(16)
            )
            vectors |= answer.vectors
        return _recognised(vendor, cache, model, vectors)
    except ClientError as error:
        paid = queries[: len(vectors) + error.unsure]
        if paid:
            error.paid_in_vain = True
            _note_in_vain(vendor, cache, model, paid)
        raise


def _recognised(
    vendor: Vendor, cache: EmbeddingCache, model: ModelCard, vectors: Mapping[Query, Vector]
) -> ModelCard:
    """The model that gives these answers, which are stored with their receipt."""
    text, image = (len(vector) for vector in vectors.values())
    if text != image:
        who = vendor.declares.title if vendor.declares.is_local else vendor.url
        raise VendorError(
            f"{who} answered about a text with {text} dimensions and about an image with {image}: "
            f"{model.id} does not embed both alike."
        )
    prefix = f"{model.owned_by}:{model.id}:"
    known = _known(cache, prefix, vectors)
    content = b"".join(vector.tobytes() for vector in vectors.values())
    fingerprint = model.fingerprint or known or f"{prefix}{hashlib.sha256(content).hexdigest()[:16]}"
    receipt = secrets.token_hex(8)
    batch = Batch(f"{_RUN}:{receipt}", _RUN, fingerprint, tuple(vectors))
    request_id, payer = f"{model.owned_by}-{receipt}", Payer(origin_of(vendor.url))
    cache.commit(
        batch,
        {} if known else vectors,
        Usage.of(counts := counts_of(vectors), model.prices.cost_of(counts)),
        request_id,
        payer,
    )
    return model.model_copy(update={"dimensions": text, "fingerprint": fingerprint, "tolerance": _TOLERANCE})


def _known(cache: EmbeddingCache, prefix: str, vectors: Mapping[Query, Vector]) -> str | None:
    """The fingerprint with this prefix under which the cache has these answers; `None` for a new model."""
    for fingerprint in cache.fingerprints():
        known = cache.lookup(fingerprint, list(vectors)) if fingerprint.startswith(prefix) else {}
        if known.keys() == vectors.keys() and all(
            len(known[query]) == len(vector) and float(known[query] @ vector) >= _SAME_COSINE
            for query, vector in vectors.items()
        ):
            return fingerprint
    return None


def _note_in_vain(vendor: Vendor, cache: EmbeddingCache, model: ModelCard, paid: tuple[Query, ...]) -> None:
    """Store the receipt of queries that did not show which model this is."""
    receipt, asked = secrets.token_hex(8), f"{model.owned_by}:{model.id}"
    batch = Batch(f"{_RUN}:{receipt}", _RUN, asked, paid)
    counts = counts_of(paid)
    usage = Usage.of(counts, model.prices.cost_of(counts))
    bill = Bill(f"{model.owned_by}-{receipt}", asked, usage)
    with suppress(CacheError):  # it may be what went wrong in the first place
        cache.reject(batch, bill, "did not show which model it is", Payer(origin_of(vendor.url)))
