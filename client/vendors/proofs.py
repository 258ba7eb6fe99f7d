"""Proofs: a vendor's signed receipts, with what they are receipts of, for whoever wants to see them.

A receipt names queries and vectors by their hashes alone. With the list of these hashes it proves, to anybody
and without the vendor, that this input was answered by that vector, by which model and for how much.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.errors import Bill
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, KeyRing, opened, require_possible, signer_of
from client.vendors.units import counts_of
from shared.embeddings import Kind
from shared.encoding import Vector
from shared.receipts import (
    RECEIPT_TYPE,
    PublicKey,
    ReceiptClaims,
    Sold,
    answer_hash,
    request_hash,
    vector_digest,
)

_RECORD = struct.Struct(">IB32s32s")  # index, kind, digests of what was asked and answered
_KINDS: tuple[Kind, ...] = ("text", "image")


@dataclass(frozen=True)
class Proof:
    """One signed receipt.

    Attributes:
        token: the receipt, a compact JWS.
        key: the public half of the key that signed it.
        sold: what was answered, in the order of the request.
    """

    token: str
    key: PublicKey
    sold: tuple[Sold, ...]

    def claims(self) -> ReceiptClaims:
        """What the receipt says, once the signature and both hashes are found to be right.

        Raises:
            BadSignature: they are not.
        """
        if signer_of(self.token, RECEIPT_TYPE) != self.key.kid:
            raise BadSignature("signed a receipt by another key than the one that is kept with it")
        claims = opened(self.token, self.key, ReceiptClaims)
        if claims.request_hash != request_hash(self.sold):
            raise BadSignature("signed a receipt of another request")
        if claims.answer_hash != answer_hash(self.sold):
            raise BadSignature("signed a receipt of another answer")
        return claims


def what_was_sold(queries: Sequence[Query], vectors: dict[int, Vector]) -> tuple[Sold, ...]:
    """What was answered, by the places of the queries in the request."""
    return tuple(
        Sold(index, queries[index].kind, queries[index].digest, vector_digest(vector))
        for index, vector in sorted(vectors.items())
    )


def prove(token: str | None, keys: KeyRing, sold: tuple[Sold, ...], bill: Bill) -> Proof | None:
    """The proof of an answer; `None` of a vendor that does not sign, or where nothing was charged.

    Raises:
        BadSignature: the vendor signs, and not this.
        VendorError: its keys cannot be had.
    """
    if token is None:
        if bill.usage.billed_queries and keys.signs:
            raise BadSignature("publishes the keys of its receipts, and sent none (x-tuition-receipt)")
        return None
    kid = signer_of(token, RECEIPT_TYPE)
    key = keys.find(kid)
    if key is None:
        raise BadSignature(f"signed a receipt by a key that it does not publish, {kid}")
    proof = Proof(token, key, sold)
    _compare(proof.claims(), bill)
    return proof


def pack(sold: Iterable[Sold]) -> bytes:
    """What was sold, as the cache keeps it: 69 bytes a query."""
    return b"".join(
        _RECORD.pack(
            each.place, _KINDS.index(each.kind), bytes.fromhex(each.asked), bytes.fromhex(each.answered)
        )
        for each in sold
    )


def unpack(packed: bytes) -> tuple[Sold, ...]:
    """What `pack` made.

    Raises:
        ValueError: it was something else.
    """
    try:
        records = list(_RECORD.iter_unpack(packed))
        return tuple(
            Sold(index, _KINDS[kind], asked.hex(), answered.hex()) for index, kind, asked, answered in records
        )
    except (struct.error, IndexError) as error:
        raise ValueError("what a receipt is of cannot be read") from error


def _compare(claims: ReceiptClaims, bill: Bill) -> None:
    require_possible(claims)
    usage = bill.usage
    signed, billed = counts_of(claims), counts_of(usage)
    pairs: dict[str, tuple[object, object]] = {
        "request": (claims.request_id, bill.request_id),
        "model": (claims.model_fingerprint, bill.fingerprint),
        **{f"{kind}s": (signed[kind], billed[kind]) for kind in signed},
        "micros": (claims.cost_micros, usage.cost_micros),
    }
    for name, (stated, said) in pairs.items():
        if stated != said:
            raise BadSignature(f"signed a receipt of {name} {stated!r}, and answered {said!r}")
