"""Searching a ledger, the newest entries first, however long it is.

The running totals say in which hours there are such entries and which numbers these have, so that no index is
needed that every charge would have to keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from vendor_service.clock import DAY, HOUR
from vendor_service.database.tables import LedgerEntry, LedgerTotal
from vendor_service.database.view import View

_HOURS_A_DAY = DAY // HOUR


@dataclass(frozen=True)
class EntryFilter:
    """Which entries are wanted; `None` is any. The days are in UTC, and the last one is included."""

    kind: str | None = None
    key_id: str | None = None
    model: str | None = None
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True)
class Found:
    """How many entries there are in all, and what they come to."""

    entries: int
    amount_micros: int


def count(session: Session, view: View, wanted: EntryFilter) -> Found:
    """Sum up all entries in view that are wanted, from the totals."""
    sums = select(func.sum(LedgerTotal.entries), func.sum(LedgerTotal.amount_micros))
    entries, amount = session.execute(sums.where(*_of_totals(view, wanted))).one()
    return Found(int(entries or 0), int(amount or 0))


def search(session: Session, view: View, wanted: EntryFilter, before: int, limit: int) -> list[LedgerEntry]:
    """Up to `limit` of the entries in view that are wanted and come before one, the newest first."""
    found: list[LedgerEntry] = []
    for first, last in _ranges(session, view, wanted, before):
        within = (LedgerEntry.seq >= first, LedgerEntry.seq <= last, LedgerEntry.seq < before)
        entries = select(LedgerEntry).where(*_of_entries(view, wanted), *within)
        found += session.scalars(entries.order_by(LedgerEntry.seq.desc()).limit(limit - len(found)))
        if len(found) >= limit:
            break
    return found


def _ranges(session: Session, view: View, wanted: EntryFilter, before: int) -> Sequence[tuple[int, int]]:
    """The first and the last number of wanted entries in each hour that has some, the newest hour first."""
    if wanted == EntryFilter() and view.is_whole:
        return [(1, before)]
    ends = select(func.min(LedgerTotal.first_seq), func.max(LedgerTotal.last_seq))
    mine = ends.where(*_of_totals(view, wanted), LedgerTotal.first_seq < before)
    hours = session.execute(mine.group_by(LedgerTotal.hour).order_by(LedgerTotal.hour.desc()))
    return [(int(first), int(last)) for first, last in hours]


def _of_totals(view: View, wanted: EntryFilter) -> list[ColumnElement[bool]]:
    chosen = [view.rows(LedgerTotal), *_alike(LedgerTotal, wanted)]
    if wanted.first is not None:
        chosen.append(LedgerTotal.hour >= _hour(wanted.first))
    if wanted.last is not None:
        chosen.append(LedgerTotal.hour < _hour(wanted.last) + _HOURS_A_DAY)
    return chosen


def _of_entries(view: View, wanted: EntryFilter) -> list[ColumnElement[bool]]:
    return [view.rows(LedgerEntry), *_alike(LedgerEntry, wanted)]


def _alike(table: Any, wanted: EntryFilter) -> list[ColumnElement[bool]]:  # noqa: ANN401 - either of both
    pairs = ((table.kind, wanted.kind), (table.key_id, wanted.key_id), (table.model, wanted.model))
    return [column == value for column, value in pairs if value is not None]


def _hour(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _HOURS_A_DAY
