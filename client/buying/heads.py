"""Heads: what a vendor signed of its ledger's end, pinned while buying, and held against its ledger later.

A chain of hashes shows that an entry was changed, unless all that follows is made anew. Who has kept a signed
head, or a signed receipt, has a hash that the new chain lacks, and the vendor's own signature under it.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from client.buying.cache_file import CacheFile
from client.buying.receipts import SignedReceipt
from client.buying.signatures import BadSignature, KeyRing, keep_key, opened, read_signed, require_possible
from client.errors import VendorError
from shared.receipts import HEAD_TYPE, HeadClaims, LedgerHead, PublicKey


@dataclass(frozen=True)
class SignedHead:
    """A head whose signature was found to be by the vendor's `key`."""

    claims: HeadClaims
    token: str
    key: PublicKey


@dataclass(frozen=True)
class Pin:
    """What the vendor has signed of one place in an account's ledger.

    Attributes:
        seq: the entry.
        entry_hash: its hash.
        signed_at: when the vendor said so, in seconds since 1970.
        token: the signed statement: a head, or the receipt of a request.
        account_id: of whom, where the statement is a head.
        key_id: the API key that paid, where it is a receipt; `request_id` names the request.
    """

    seq: int
    entry_hash: str
    signed_at: int
    token: str
    account_id: str | None = None
    key_id: str | None = None
    request_id: str = ""


class Heads:
    """The pinned heads in one cache. Thread-safe."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file

    def pin(self, head: SignedHead) -> None:
        """Keep a head for good."""
        claims = head.claims
        with self._file.transaction() as connection:
            keep_key(connection, head.key)
            connection.execute(
                "INSERT OR IGNORE INTO heads VALUES (?, ?, ?, ?, ?)",
                (claims.account_id, claims.ledger_seq, claims.entry_hash, head.token, head.key.kid),
            )

    def all(self) -> list[Pin]:
        """Those whose signature is still right, of all accounts."""
        rows = self._file.read("SELECT signed, kid, x FROM heads JOIN signing_keys USING (kid) ORDER BY seq")
        pins = []
        for token, kid, x in rows:
            with suppress(BadSignature):
                claims = opened(token, PublicKey(kid=kid, x=x), HeadClaims)
                pins.append(
                    Pin(claims.ledger_seq, claims.entry_hash, claims.iat, token, account_id=claims.account_id)
                )
        return pins


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


def receipt_pins(receipts: Iterable[SignedReceipt]) -> list[Pin]:
    """The pins that receipts are, those whose signature is right."""
    pins = []
    for each in receipts:
        with suppress(BadSignature):
            if each.proof is not None:
                claims = each.proof.claims()
                pins.append(
                    Pin(
                        claims.ledger_seq,
                        claims.entry_hash,
                        claims.iat,
                        each.token,
                        key_id=claims.key_id,
                        request_id=claims.request_id,
                    )
                )
    return pins
