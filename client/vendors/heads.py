"""Heads: what a vendor signed of its ledger's end, pinned while buying, and held against its ledger later.

A chain of hashes shows that an entry was changed, unless all that follows is made anew. Who has kept a signed
head, or a signed receipt, has a hash that the new chain lacks, and the vendor's own signature under it.
"""

from dataclasses import dataclass

from client.errors import VendorError
from client.vendors.signatures import BadSignature, KeyRing, read_signed, require_possible
from shared.receipts import HEAD_TYPE, HeadClaims, LedgerHead, PublicKey


@dataclass(frozen=True)
class SignedHead:
    """A head whose signature was found to be by the vendor's `key`."""

    claims: HeadClaims
    token: str
    key: PublicKey


def read_head(answer: LedgerHead, keys: KeyRing, url: str) -> SignedHead:
    """The head of an answer, once its signature is found to be right.

    Raises:
        VendorError: it is not, or the head is none that there can be.
    """
    try:
        claims, key = read_signed(answer.signed, keys, HEAD_TYPE, HeadClaims, "its ledger's head")
        require_possible(claims)
    except BadSignature as error:
        raise VendorError(f"{url} {error}.") from error
    if (claims.account_id, claims.ledger_seq, claims.entry_hash) != (
        answer.account_id,
        answer.seq,
        answer.entry_hash,
    ):
        raise VendorError(f"{url} signed another head of its ledger than the one that it tells.")
    return SignedHead(claims, answer.signed, key)
