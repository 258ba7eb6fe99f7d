"""The log: one chain of acts, appended to in the transaction of each act and never changed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from vendor_service.clock import to_datetime
from vendor_service.database.tables import GENESIS_HASH, AuditEntry, AuditHead, row_hash

Facts = Mapping[str, Any]

_HEAD = 1
_PAGE = 500
_COLUMNS = AuditEntry.__table__.columns
_HASHED = tuple(column.key for column in _COLUMNS if column.key != "entry_hash")


class AuditRecord(BaseModel):
    """An entry of the log: an actor, an act, its target and moment, and the values before and after."""

    seq: int
    created_at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    previous_hash: str
    entry_hash: str


@dataclass(frozen=True)
class AuditVerification:
    """The result: the number of entries, the hash of the last one, and the first fault, if any."""

    entries: int
    last_hash: str
    problem: str | None


def append(
    session: Session,
    actor: str,
    action: str,
    subject: str,
    before: Facts | None,
    after: Facts | None,
    now: int,
) -> None:
    """Append an act to the log, in the transaction of the act and as the last thing that it does.

    The end of the log is locked until the transaction ends. Whoever locked something after it could wait in
    a circle with another act.
    """
    session.flush()  # what the act changes is locked by now
    head = session.get_one(AuditHead, _HEAD, with_for_update=True)
    entry = AuditEntry(
        seq=head.seq + 1,
        created_at=now,
        actor=actor[:255],
        action=action,
        subject=subject,
        before=_json(before),
        after=_json(after),
        previous_hash=head.entry_hash,
    )
    entry.entry_hash = row_hash(entry, _HASHED)
    session.add(entry)
    head.seq, head.entry_hash = entry.seq, entry.entry_hash
    session.flush()


def entries(
    session: Session,
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int = 100,
    subject: str | None = None,
) -> list[AuditRecord]:
    """Up to `limit` entries behind the one numbered `after`, or the last ones; oldest first.

    With `before` the last ones are those ahead of the entry of that number. With a `subject` only those of
    that account, key, plan or token.
    """
    found = select(AuditEntry)
    if subject is not None:
        found = found.where(AuditEntry.subject == subject)
    if before is not None:
        found = found.where(AuditEntry.seq < before)
    if after is not None:
        rows = session.scalars(
            found.where(AuditEntry.seq > after).order_by(AuditEntry.seq).limit(limit)
        ).all()
    else:
        rows = session.scalars(found.order_by(AuditEntry.seq.desc()).limit(limit)).all()[::-1]
    return [_public(row) for row in rows]


def verify(session: Session) -> AuditVerification:
    """Recompute the chain, in one transaction that reads, page by page."""
    previous, seq = GENESIS_HASH, 0
    for page in _pages(session):
        for row in page:
            if row.seq != seq + 1:
                return AuditVerification(seq, previous, f"entry {seq + 1} is missing")
            if row.previous_hash != previous:
                fault = f"entry {row.seq} does not follow from the one before it"
                return AuditVerification(seq, previous, fault)
            if row.entry_hash != row_hash(row, _HASHED):
                fault = f"entry {row.seq} was changed: its hash does not match"
                return AuditVerification(seq, previous, fault)
            previous, seq = row.entry_hash, row.seq
    head = session.get_one(AuditHead, _HEAD)
    if (head.seq, head.entry_hash) != (seq, previous):
        return AuditVerification(seq, previous, f"entry {seq} is not the last one: {head.seq} were written")
    return AuditVerification(seq, previous, None)


def _pages(session: Session) -> Iterator[Sequence[Row[Any]]]:
    after = 0
    while True:
        found = session.execute(
            select(*_COLUMNS).where(_COLUMNS.seq > after).order_by(_COLUMNS.seq).limit(_PAGE)
        ).all()
        if not found:
            return
        yield found
        after = found[-1].seq


def _json(facts: Facts | None) -> str | None:
    return None if facts is None else json.dumps(facts, sort_keys=True, separators=(",", ":"))


def _public(entry: AuditEntry) -> AuditRecord:
    return AuditRecord(
        seq=entry.seq,
        created_at=to_datetime(entry.created_at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        before=None if entry.before is None else json.loads(entry.before),
        after=None if entry.after is None else json.loads(entry.after),
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
    )
