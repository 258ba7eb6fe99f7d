"""Plain rows of the two transactions of a request, which the ORM's objects would take twice as long for."""

from dataclasses import dataclass
from typing import Any


class _Row:
    __slots__: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Its columns, by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class HoldRow(_Row):
    """A row of the table of `Hold`, with the columns in its order."""

    id: str
    account_id: str
    key_id: str
    project_id: str | None
    server: str | None
    state: str
    model: str
    model_fingerprint: str
    images: int
    texts: int
    image_micros: int
    text_micros: int
    cost_micros: int
    idempotency_key: str | None
    body_hash: str
    created_at: int
    expires_at: int
    replays: int = 0
    refunded_at: int | None = None


@dataclass(slots=True)
class ChargeRow(_Row):
    """A row of the table of `LedgerEntry` that is a charge, with the columns in its order."""

    account_id: str
    seq: int
    kind: str
    amount_micros: int
    images: int
    texts: int
    image_micros: int
    text_micros: int
    model: str
    model_fingerprint: str
    key_id: str
    project_id: str | None
    hold_id: str
    corrects_seq: None
    reason: None
    reference: None
    redates_seq: None
    created_at: int
    previous_hash: str
    entry_hash: str
