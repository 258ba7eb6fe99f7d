"""Statements that a vendor signs: receipts of requests, the end of a ledger, cards of its models.

A receipt names queries and vectors by their hashes alone. With the list of these hashes it proves, to anybody
and without the vendor, that this input was answered by that vector, by which model and for how much.

A chain of hashes shows that an entry was changed, unless all that follows is made anew. Who has kept a signed
head, or a signed receipt, has a hash that the new chain lacks, and the vendor's own signature under it.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from client.errors import Bill
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, FindKey, KeyRing, Signed
from shared.embeddings import Kind
from shared.encoding import Vector, from_wire
from shared.receipts import (
    CARD_TYPE,
    HEAD_TYPE,
    RECEIPT_TYPE,
    CardClaims,
    HeadClaims,
    LedgerHead,
    PublicKey,
    ReceiptClaims,
    Sold,
    answer_hash,
    request_hash,
    thumbprint,
    vector_digest,
)

_RECORD = struct.Struct(">IB32s32s")  # index, kind, digests of what was asked and answered
_KINDS: tuple[Kind, ...] = ("text", "image")


class SignedReceipt(Signed[ReceiptClaims]):
    """A receipt of one request."""

    media_type, content = RECEIPT_TYPE, ReceiptClaims


class SignedHead(Signed[HeadClaims]):
    """The end of an account's ledger."""

    media_type, content = HEAD_TYPE, HeadClaims


class PinnedCard(Signed[CardClaims]):
    """The card of a model: its fingerprint, with answers to known inputs."""

    media_type, content = CARD_TYPE, CardClaims

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


@dataclass(frozen=True)
class Proof:
    """A receipt as it is kept, with the hashes that it is of; unchecked, see `claims`.

    Attributes:
        token: the receipt, a compact JWS.
        key: the public half of the key that signed it.
        sold: what was answered, in the order of the request.
    """

    token: str
    key: PublicKey
    sold: tuple[Sold, ...]

    @classmethod
    def kept(cls, token: str, signer: str, packed: bytes) -> "Proof":
        """A proof as a cache keeps it.

        Raises:
            ValueError: it is damaged.
        """
        return cls(token, PublicKey(kid=thumbprint(signer), x=signer), unpack(packed))

    @classmethod
    def of(cls, token: str, find_key: FindKey, sold: tuple[Sold, ...]) -> tuple["Proof", ReceiptClaims]:
        """A proof and its claims, once the signature and both hashes are found to be right.

        Raises:
            BadSignature: they are not.
        """
        receipt = SignedReceipt.read(token, find_key)
        if receipt.claims.request_hash != request_hash(sold):
            raise BadSignature("signed a receipt of another request")
        if receipt.claims.answer_hash != answer_hash(sold):
            raise BadSignature("signed a receipt of another answer")
        return cls(token, receipt.key, sold), receipt.claims

    def claims(self) -> ReceiptClaims:
        """The claims of the receipt; raises as `of`."""
        return self.of(self.token, {self.key.kid: self.key}.get, self.sold)[1]


def what_was_sold(queries: Sequence[Query], vectors: dict[int, Vector]) -> tuple[Sold, ...]:
    """Digests of the answered queries, by their places in the request."""
    return tuple(
        Sold(index, queries[index].kind, queries[index].digest, vector_digest(vector))
        for index, vector in sorted(vectors.items())
    )


def prove(
    token: str | None, keys: KeyRing, sold: tuple[Sold, ...], bill: Bill, *, paid_now: bool = False
) -> Proof | None:
    """The proof of an answer; `None` of a vendor that does not sign, or where nothing was charged.

    What was not `paid_now` may have been paid with another key of the account.

    Raises:
        BadSignature: the vendor signs, and not this.
        VendorError: its keys cannot be had.
    """
    if token is None:
        if bill.usage.billed_queries and keys.signs:
            raise BadSignature("publishes the keys of its receipts, and sent none (x-tuition-receipt)")
        return None
    proof, claims = Proof.of(token, keys.find, sold)
    keys.require_possible(claims)
    signed, billed = claims.counts, bill.usage.counts
    pairs: dict[str, tuple[object, object]] = {
        "request": (claims.request_id, bill.request_id),
        "model": (claims.model_fingerprint, bill.fingerprint),
        **{f"{kind}s": (signed[kind], billed[kind]) for kind in signed},
        "micros": (claims.cost_micros, bill.usage.cost_micros),
    }
    if paid_now and keys.key_id is not None:
        pairs["API key"] = (claims.key_id, keys.key_id)
    for name, (stated, said) in pairs.items():
        if stated != said:
            raise BadSignature(f"signed a receipt of {name} {stated!r}, and answered {said!r}")
    return proof


def read_head(answer: LedgerHead, keys: KeyRing) -> SignedHead:
    """The head of an answer.

    Raises:
        BadSignature: its signature is not right, or the head is none that there can be.
    """
    head = SignedHead.read(answer.signed, keys.find)
    keys.require_possible(head.claims)
    signed = (head.claims.account_id, head.claims.ledger_seq, head.claims.entry_hash)
    if signed != (answer.account_id, answer.seq, answer.entry_hash):
        raise BadSignature("signed another head of its ledger than the one that it tells")
    return head


def key_of(signer: str) -> FindKey:
    """Finds the key with this public half, and no other."""
    return {thumbprint(signer): PublicKey(kid=thumbprint(signer), x=signer)}.get


def pack(sold: Iterable[Sold]) -> bytes:
    """Digests as the cache stores them: 69 bytes a query."""
    return b"".join(
        _RECORD.pack(
            each.place, _KINDS.index(each.kind), bytes.fromhex(each.asked), bytes.fromhex(each.answered)
        )
        for each in sold
    )


def unpack(packed: bytes) -> tuple[Sold, ...]:
    """The inverse of `pack`.

    Raises:
        ValueError: `pack` did not make this.
    """
    try:
        records = list(_RECORD.iter_unpack(packed))
        return tuple(
            Sold(index, _KINDS[kind], asked.hex(), answered.hex()) for index, kind, asked, answered in records
        )
    except (struct.error, IndexError) as error:
        raise ValueError("the contents of a receipt cannot be read") from error


def _query(content: str, name: str, *, text: bool) -> Query:
    """The query of a canary.

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
