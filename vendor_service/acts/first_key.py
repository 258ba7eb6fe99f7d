"""The first start of a vendor: opens a first account with a key, or logs how to do so."""

import logging
import os
from pathlib import Path

from sqlalchemy import select

from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms
from vendor_service.acts.accounts import open_account
from vendor_service.acts.act import Act
from vendor_service.acts.keys import issue
from vendor_service.audit.actors import os_user
from vendor_service.clock import Clock
from vendor_service.database.session import Database, take_turns
from vendor_service.database.tables import Account
from vendor_service.errors import OperatorError
from vendor_service.money import currency

_NAME = "first"

_log = logging.getLogger(__name__)


def look_for_currency(database: Database) -> None:
    """Log how to name the currency of the books, where nobody has."""
    with database.read() as session:
        if currency.current(session) is None:
            _log.warning(
                "nobody has said of which currency all sums are millionths; name it, say with: "
                "`vendor currency EUR`"
            )


def bootstrap(database: Database, key_to: Path | None, clock: Clock) -> None:
    """Where nobody has an account yet: open one and write a key of it to a file, or log how to do it.

    The file is a new one, for its owner alone; the key stands nowhere else.

    Raises:
        OperatorError: the file cannot be written, or is there already; there is no account then.
    """
    with database.write() as session:
        take_turns(session.connection(), "first key")
        if session.scalar(select(Account.id).limit(1)) is not None:
            return
        if key_to is None:
            _log.warning(
                "nobody can buy yet; open an account and issue it a key with: "
                "`vendor accounts create NAME`, then: `vendor keys create NAME`"
            )
            return
        act = Act(session, os_user(), clock)
        open_account(act, _NAME, Terms())
        key = issue(act, _NAME, KeyTerms())
        # Before the commit: a key that nobody can read would be an account that nobody asked for.
        _write(key_to, key.api_key)
    _log.info("opened the account %r; its key is in %s", _NAME, key_to)


def _write(path: Path, api_key: str) -> None:
    try:
        # EXCL: neither over a file that is there, nor through a link that somebody else has laid.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise OperatorError(
            f"VENDOR_FIRST_KEY_TO: {path} is there already, and is not overwritten; name another file, "
            "or remove this one if a start that failed has left it"
        ) from error
    except OSError as error:
        raise OperatorError(f"VENDOR_FIRST_KEY_TO: the key cannot be written: {error}") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(f"{api_key}\n")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OperatorError(f"VENDOR_FIRST_KEY_TO: the key cannot be written: {error}") from error
