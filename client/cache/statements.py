"""What vendors have signed, in the cache: heads of their ledgers, cards of their models, and the keys."""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass

from client.cache.file import CacheFile
from client.vendors.signatures import BadSignature, opened
from client.vendors.statements import PinnedCard, SignedHead
from shared.receipts import CardClaims, HeadClaims, PublicKey


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


def keep_key(connection: sqlite3.Connection, key: PublicKey) -> None:
    """Keep a public key in the cache, in the transaction that keeps what it signed."""
    connection.execute("INSERT OR IGNORE INTO signing_keys VALUES (?, ?)", (key.kid, key.x))
