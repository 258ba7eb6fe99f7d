"""What a vendor signs beside its receipts: the end of its ledger, and cards of its models.

A chain of hashes shows that an entry was changed, unless all that follows is made anew. Who has kept a signed
head, or a signed receipt, has a hash that the new chain lacks, and the vendor's own signature under it.
"""

import base64
import binascii
import hashlib
from contextlib import suppress

import numpy as np

from client.errors import VendorError
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, KeyRing, Signed, require_possible
from shared.encoding import Vector, from_wire
from shared.receipts import CARD_TYPE, HEAD_TYPE, CardClaims, HeadClaims, LedgerHead


class SignedHead(Signed[HeadClaims]):
    """The end of an account's ledger."""


class PinnedCard(Signed[CardClaims]):
    """What a vendor sells under a fingerprint, with answers to known inputs."""

    def canaries(self) -> dict[Query, Vector]:
        """The inputs that it names, with what the model is to answer: float32 of shape (dimensions,)."""
        found: dict[Query, Vector] = {}
        for number, each in enumerate(self.claims.canaries):
            with suppress(ValueError):  # what cannot be read promises nothing
                vector = from_wire(each.embedding, self.claims.dimensions)
                found[_query(each.content, f"canary {number}", text=each.kind == "text")] = vector
        return found

    def contradicted_by(self, other: "PinnedCard") -> str | None:
        """Where another card of the same fingerprint promises something else; `None` where both agree."""
        mine, theirs = self.claims, other.claims
        for name in ("model", "dimensions", "tolerance", "dtype", "image_size"):
            if getattr(mine, name) != getattr(theirs, name):
                return f"{name} {getattr(mine, name)!r} and {getattr(theirs, name)!r}"
        answers = other.canaries()
        for query, vector in self.canaries().items():
            if query in answers:
                difference = float(np.abs(vector - answers[query]).max())
                if difference > mine.tolerance:
                    return f"answers to {query.name} that differ by {difference:.3g}"
        return None


def read_head(answer: LedgerHead, keys: KeyRing, url: str) -> SignedHead:
    """The head of an answer, once its signature is found to be right.

    Raises:
        VendorError: it is not, or the head is none that there can be.
    """
    try:
        head = keys.read(answer.signed, HEAD_TYPE, HeadClaims, "its ledger's head")
        require_possible(head.claims)
    except BadSignature as error:
        raise VendorError(f"{url} {error}.") from error
    signed = (head.claims.account_id, head.claims.ledger_seq, head.claims.entry_hash)
    if signed != (answer.account_id, answer.seq, answer.entry_hash):
        raise VendorError(f"{url} signed another head of its ledger than the one that it tells.")
    return SignedHead(head.claims, head.token, head.key)


def read_card(token: str, keys: KeyRing, url: str) -> PinnedCard:
    """A card as its vendor sent it, once its signature is found to be right.

    Raises:
        VendorError: it is not.
    """
    try:
        card = keys.read(token, CARD_TYPE, CardClaims, "a model's card")
    except BadSignature as error:
        raise VendorError(f"{url} {error}.") from error
    return PinnedCard(card.claims, token, card.key)


def _query(content: str, name: str, *, text: bool) -> Query:
    """The query that a canary is.

    Raises:
        ValueError: it is an image, and not base64.
    """
    if text:
        return Query.text(content)
    try:
        file = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ValueError("a canary is not base64") from error
    return Query("image", hashlib.sha256(file).hexdigest(), name, lambda: file)
