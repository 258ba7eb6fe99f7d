"""Acts on the keys that sign receipts."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.clock import Clock, to_datetime
from vendor_service.database.session import Database
from vendor_service.database.tables import SigningKeyRow
from vendor_service.money import signing


class ReceiptsKey(BaseModel):
    """A key that signs or signed receipts, since when, and when it was withdrawn, if it was."""

    key: str
    since: datetime
    withdrawn: datetime | None


def list_keys(session: Session) -> list[ReceiptsKey]:
    """The keys that ever signed receipts, the newest first."""
    found = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at.desc()))
    return [
        ReceiptsKey(
            key=each.kid,
            since=to_datetime(each.created_at),
            withdrawn=None if each.withdrawn_at is None else to_datetime(each.withdrawn_at),
        )
        for each in found
    ]


def rotate(database: Database, actor: str, clock: Clock, file: Path | None = None) -> tuple[str, Path]:
    """Make a new key and put it in the file of the former; its id, and the file. See `signing.rotate`."""
    where = file or signing.default_file(database)

    def record(session: Session, kid: str) -> None:
        log.append(session, actor, "receipts_key.rotate", kid, None, {"file": where.name}, clock())

    return signing.rotate(database, where, clock, record).public.kid, where


def withdraw(act: Act, kid: str) -> None:
    """Disown a key; raises what `signing.withdraw` does."""
    if signing.withdraw(act.session, kid, act.now):
        act.record("receipts_key.withdraw", kid, None, None)
