"""Model cards: what a vendor has signed that it sells under a fingerprint, with answers to known inputs."""

import base64
import binascii
import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from client.errors import VendorError
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, KeyRing, read_signed
from shared.encoding import Vector, from_wire
from shared.receipts import CARD_TYPE, CardClaims, PublicKey


@dataclass(frozen=True)
class PinnedCard:
    """A card whose signature was found to be by `key`."""

    claims: CardClaims
    token: str
    key: PublicKey

    def canaries(self) -> dict[Query, Vector]:
        """The inputs that it tells of, with what the model is to answer: float32 of shape (dimensions,)."""
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


def read_card(token: str, keys: KeyRing, url: str) -> PinnedCard:
    """A card as its vendor sent it, once its signature is found to be right.

    Raises:
        VendorError: it is not.
    """
    try:
        claims, key = read_signed(token, keys, CARD_TYPE, CardClaims, "a model's card")
        return PinnedCard(claims, token, key)
    except BadSignature as error:
        raise VendorError(f"{url} {error}.") from error


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
