"""Verification of the ledger, of one account or of all: one at a time, for it reads all of it."""

import threading
from collections.abc import Callable
from functools import partial

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account, list_accounts
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import APIError
from vendor_service.money.verification import Common, Verification, verify

# The account that is verified, how many entries there are to verify in total, and how many more were read.
Progress = Callable[[str, int, int], object]


class LedgerVerifier:
    """Verifies accounts of these books, each as it is at one moment. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._verifying = threading.Lock()

    def verify(self, account: str | None = None, progress: Progress | None = None) -> list[Verification]:
        """Recompute chain, sums and counters of one account or of all.

        Raises:
            UnknownName: there is no such account.
            APIError: `overloaded`; another verification is not over.
        """
        if not self._verifying.acquire(blocking=False):
            message = "the ledger is being verified; ask again when that is over"
            raise APIError(ErrorCode.OVERLOADED, message, retry_after=30)
        try:
            return self._verified(account, progress or _nobody)
        finally:
            self._verifying.release()

    def _verified(self, account: str | None, progress: Progress) -> list[Verification]:
        with self._database.read() as session:
            chosen = [find_account(session, account)] if account else list_accounts(session)
        entries = sum(each.ledger_seq for each in chosen)
        found, common = [], Common(chosen[0].id if account else None)
        for each in chosen:
            told = partial(progress, each.name, entries)
            told(0)
            with self._database.read() as session:
                found.append(verify(session, session.get_one(Account, each.id), told, common))
        return found


def _nobody(_account: str, _entries: int, _more: int) -> None:
    """Nobody wants to know."""
