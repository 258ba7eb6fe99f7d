"""The schema's version: which migrations have run, and running them."""

import logging
from functools import cache
from pathlib import Path

from sqlalchemy import column, inspect, select, table
from sqlalchemy.exc import DatabaseError

from shared.http.logging import masked
from vendor_service.database.session import Database, take_turns
from vendor_service.errors import OperatorError

_log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).with_name("migrations")
_VERSION = table("alembic_version", column("version_num"))  # Alembic's: one row with the revision


def prepare(database: Database, *, migrate: bool = False) -> None:
    """Make sure of this version's tables: an embedded database is migrated, any other one if it is asked for.

    Raises:
        OperatorError: the database cannot be used as it is.
    """
    if database.embedded or migrate:
        upgrade(database)
    else:
        check(database)


def check(database: Database) -> None:
    """Make sure that the tables are this version's.

    Raises:
        OperatorError: they are another version's, or there are none.
    """
    found = current(database)
    if found != latest():
        has = "no tables yet" if found is None else "another version's tables"
        raise OperatorError(f"the database has {has}; bring it to this version with: `vendor db upgrade`")


def upgrade(database: Database) -> None:
    """Bring the tables to this version's shape; an empty database gets them all.

    Raises:
        OperatorError: the database cannot be opened, or was made by a newer version.
    """
    before = current(database)
    if before != latest():
        _migrate(database)
        if before is None:
            _log.info("new books in %s", database.file or database.shown)


def current(database: Database) -> str | None:
    """The revision that the database has, or `None` for an empty one.

    Raises:
        OperatorError: the database cannot be opened.
    """
    try:
        with database.engine.connect() as connection:
            if not inspect(connection).has_table(_VERSION.name):
                return None
            return connection.scalar(select(_VERSION.c.version_num))
    except DatabaseError as error:
        raise OperatorError(_unusable(database, error)) from error


@cache
def latest() -> str:
    """The revision that this version of the program works with: files of migrations begin with theirs."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _migrate(database: Database) -> None:
    # Most commands find their tables as they should be, and need not wait for Alembic's import.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={})
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        with database.engine.begin() as connection:
            take_turns(connection, "migrate")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DatabaseError as error:
        # A server that went away in the middle of the commit may have committed all the same.
        if not error.connection_invalidated or current(database) != latest():
            raise OperatorError(_unusable(database, error)) from error
    except CommandError as error:
        raise OperatorError(
            f"the database cannot be brought to this version: {error}. "
            "If a newer version of Tuition made it, install that version"
        ) from error


def _unusable(database: Database, error: DatabaseError) -> str:
    why = " ".join(masked(str(error.orig)).split())
    return f"the database {database.file or database.shown} cannot be used: {why}"
