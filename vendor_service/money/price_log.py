"""The log of prices: whatever changes one, a command or the date, the server's log says so."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.errors import APIError
from vendor_service.money import prices

_log = logging.getLogger(__name__)


class PriceLog:
    """Compares the prices in force with those it saw before, and logs what changed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen = self._read()

    def look(self) -> None:
        """Look now; where the database does not answer, the next time tells."""
        try:
            found = self._read()
        except (APIError, SQLAlchemyError):
            return
        for name in sorted({*found, *self._seen}):
            before, after = self._seen.get(name), found.get(name)
            if before != after:
                plan, model, kind = name
                fields = {"plan": plan, "model": model, "kind": kind, "before": before, "micros": after}
                _log.info("a price changed", extra={"fields": fields})
        self._seen = found

    def _read(self) -> dict[tuple[str, str, str], int | None]:
        with self._database.read() as session:
            facts = prices.history(session, self._clock())
        return {(each.plan, each.model, each.kind): each.micros for each in facts if each.state == "in force"}
