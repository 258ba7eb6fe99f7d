"""Refusals: how many requests of each project were refused, and why, by the hour.

They move no money, so they are counted in memory and written down now and then: a process that is killed
loses the last few.
"""

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from vendor_service.clock import DAY, HOUR, Clock, ClockWatch, to_datetime
from vendor_service.database.session import Database
from vendor_service.database.tables import Refusals
from vendor_service.database.view import View

_KEPT_DAYS = 90
_KEY = ("account_id", "project_id", "hour", "code")
_Counts = Counter[tuple[str, str, int, str]]  # by these

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """How many requests were refused for one reason, and the hour of the last one."""

    code: str
    requests: int
    last_hour: datetime


class RefusalCounts:
    """Counts refusals, writes them down, and forgets the old ones while the clock is right. Thread-safe."""

    def __init__(self, database: Database, clock: Clock, watch: ClockWatch | None = None) -> None:
        self._database = database
        self._clock = clock
        self._watch = watch
        self._lock = threading.Lock()
        self._counts: _Counts = Counter()

    def note(self, account_id: str, project_id: str, code: str) -> None:
        """Count a refused request of a project of an account."""
        with self._lock:
            self._counts[account_id, project_id, self._clock() // HOUR, code] += 1

    def write(self) -> None:
        """Write down what was counted since the last time; raises what `Database.write` does."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with self._database.write() as session:
                _add(session, counts)
                if self._watch is None or self._watch.fault is None:
                    before = self._clock() - _KEPT_DAYS * DAY
                    _forget(session, {account for account, *_ in counts}, before)
        except Exception:
            with self._lock:
                self._counts += counts
            raise


def refused_since(session: Session, view: View, since: int) -> list[Refused]:
    """Refusals in view from the hour of `since` on, the most frequent reason first."""
    times = func.sum(Refusals.requests)
    found = (
        select(Refusals.code, times, func.max(Refusals.hour))
        .where(view.rows(Refusals), Refusals.hour >= since // HOUR)
        .group_by(Refusals.code)
        .order_by(times.desc(), Refusals.code)
    )
    return [
        Refused(code, int(requests), to_datetime(int(hour) * HOUR))
        for code, requests, hour in session.execute(found)
    ]


def _add(session: Session, counts: _Counts) -> None:
    connection = session.connection()
    adding: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(Refusals)
    upsert = adding.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={"requests": Refusals.requests + adding.excluded.requests},
    )
    # Sorted, so that two processes lock the same rows in the same order.
    rows = [{**dict(zip(_KEY, key, strict=True)), "requests": times} for key, times in sorted(counts.items())]
    connection.execute(upsert, rows)


def _forget(session: Session, account_ids: set[str], before: int) -> None:
    old = (Refusals.account_id.in_(sorted(account_ids)), Refusals.hour < before // HOUR)
    session.execute(delete(Refusals).where(*old))
