"""What vendors have signed beside receipts, kept for later: heads of their ledgers, and cards of models."""

from contextlib import suppress

from client.cache.receipts import Pin
from client.cache.tables import Tables
from client.vendors.signatures import BadSignature, opened
from client.vendors.statements import PinnedCard, SignedHead
from shared.receipts import CardClaims, HeadClaims, PublicKey


class Heads:
    """The heads in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pin(self, head: SignedHead) -> None:
        """Keep a head for good."""
        claims = head.claims
        name = f"{claims.account_id} {claims.ledger_seq} {claims.entry_hash}"
        with self._tables.transaction():
            self._tables.add_key(head.key.kid, head.key.x)
            self._tables.add_statement(name, "head", claims.account_id, head.token, head.key.kid)

    def all(self) -> list[Pin]:
        """What those heads pin, of all accounts, whose signature is still right; the first entries first."""
        pins = []
        for token, kid, x in self._tables.statements("head"):
            with suppress(BadSignature):
                claims = opened(token, PublicKey(kid=kid, x=x), HeadClaims)
                place = (claims.ledger_seq, claims.entry_hash, claims.iat, token)
                pins.append(Pin(*place, account_id=claims.account_id))
        return sorted(pins, key=lambda pin: pin.seq)


class Cards:
    """The cards in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pin(self, card: PinnedCard) -> str | None:
        """Keep a card, unless one that agrees with it is there; says how one contradicts it, if one does."""
        fingerprint = card.claims.model_fingerprint
        contradictions = [each.contradicted_by(card) for each in self.of(fingerprint)]
        if None not in contradictions:
            with self._tables.transaction():
                self._tables.add_key(card.key.kid, card.key.x)
                self._tables.add_statement(card.token, "card", fingerprint, card.token, card.key.kid)
        return next((each for each in contradictions if each is not None), None)

    def of(self, fingerprint: str) -> list[PinnedCard]:
        """Those of a model whose signature is still right, the oldest first."""
        found = []
        for token, kid, x in self._tables.statements("card", fingerprint):
            key = PublicKey(kid=kid, x=x)
            with suppress(BadSignature):
                found.append(PinnedCard(opened(token, key, CardClaims), token, key))
        return sorted(found, key=lambda card: card.claims.iat)
