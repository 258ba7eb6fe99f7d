"""Model cards: what a vendor has signed that it sells under a fingerprint, with answers to known inputs."""

import base64
import binascii
import hashlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from client.buying.cache_file import CacheFile
from client.buying.queries import Query
from client.buying.signatures import BadSignature, KeyRing, keep_key, opened, read_signed
from client.errors import VendorError
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


class Cards:
    """The pinned cards in one cache. Thread-safe."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file

    def pin(self, card: PinnedCard) -> str | None:
        """Keep a card, unless one that agrees with it is there; where one contradicts it, that is told."""
        known = self.of(card.claims.model_fingerprint)
        contradictions = [each.contradicted_by(card) for each in known]
        if None not in contradictions:
            with self._file.transaction() as connection:
                keep_key(connection, card.key)
                connection.execute(
                    "INSERT OR IGNORE INTO cards VALUES (?, ?, ?)",
                    (card.token, card.claims.model_fingerprint, card.key.kid),
                )
        return next((each for each in contradictions if each is not None), None)

    def of(self, fingerprint: str) -> list[PinnedCard]:
        """Those of a model whose signature is still right, the oldest first."""
        rows = self._file.read(
            "SELECT signed, kid, x FROM cards JOIN signing_keys USING (kid) WHERE fingerprint = ?",
            (fingerprint,),
        )
        found = []
        for token, kid, x in rows:
            key = PublicKey(kid=kid, x=x)
            with suppress(BadSignature):
                found.append(PinnedCard(opened(token, key, CardClaims), token, key))
        return sorted(found, key=lambda card: card.claims.iat)


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
