"""Heads of vendors' ledgers and cards of their models, kept for later."""

from collections.abc import Iterator
from contextlib import suppress

from client.cache.receipts import Pin
from client.cache.tables import Tables
from client.vendors.signatures import BadSignature
from client.vendors.statements import PinnedCard, SignedHead, key_of


class Heads:
    """The heads in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pin(self, head: SignedHead) -> None:
        """Keep a head for good."""
        claims = head.claims
        name = f"{claims.account_id} {claims.ledger_seq} {claims.entry_hash}"
        self._tables.put_statement(name, "head", claims.account_id, head.token, head.key.x)

    def all(self) -> list[Pin]:
        """The pins of those heads, of all accounts, whose signature is still right, in the ledger's order."""
        return sorted(self._pins(), key=lambda pin: pin.seq)

    def _pins(self) -> Iterator[Pin]:
        for token, signer in self._tables.statements("head"):
            with suppress(BadSignature):
                claims = SignedHead.read(token, key_of(signer)).claims
                place = (claims.ledger_seq, claims.entry_hash, claims.iat, token)
                yield Pin(*place, account_id=claims.account_id)


class Cards:
    """The cards in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pin(self, card: PinnedCard) -> str | None:
        """Keep a card, unless one that agrees with it is there; says how one contradicts it, if one does."""
        fingerprint = card.claims.model_fingerprint
        contradictions = [each.contradicted_by(card) for each in self.of(fingerprint)]
        if None not in contradictions:
            self._tables.put_statement(card.token, "card", fingerprint, card.token, card.key.x)
        return next((each for each in contradictions if each is not None), None)

    def of(self, fingerprint: str) -> list[PinnedCard]:
        """The cards of a model whose signature is still right, the oldest first."""
        return sorted(self._cards(fingerprint), key=lambda card: card.claims.iat)

    def _cards(self, fingerprint: str) -> Iterator[PinnedCard]:
        for token, signer in self._tables.statements("card", fingerprint):
            with suppress(BadSignature):
                yield PinnedCard.read(token, key_of(signer))
