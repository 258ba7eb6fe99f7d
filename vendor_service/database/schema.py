"""The schema's version: which migrations have run, and running them."""

import logging
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import func, inspect, select, table
from sqlalchemy.exc import DatabaseError

from shared.serving.redaction import masked
from vendor_service.database.session import Database, take_turns
from vendor_service.database.tables import Base
from vendor_service.errors import OperatorError, UsageError

_log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).with_name("migrations")


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
        raise OperatorError(f"the database has {has}; run: vendor db upgrade (or serve with --migrate)")


def upgrade(database: Database) -> None:
    """Bring the tables to this version's shape; an empty database gets them all.

    Raises:
        OperatorError: the database cannot be opened, or was made by a newer version.
    """
    before = current(database)
    if before != latest():
        _migrate(database, "upgrade", "head")
        if before is None:
            _log.info("new books in %s", database.file or database.shown)


def downgrade(database: Database, revision: str) -> None:
    """Take the tables back to an earlier `revision`; `base` removes them all, which a ledger must not be in.

    Raises:
        OperatorError: the database cannot be opened, there is no such revision, or something would be lost
            that never may be.
    """
    _migrate(database, "downgrade", revision)


def undone(database: Database, revision: str) -> list[str]:
    """The revisions that a downgrade to an earlier one would undo, the newest first.

    Raises:
        UsageError: nothing can be a revision that is written so.
        OperatorError: the database cannot be opened, or there is no such revision.
    """
    if not revision.strip() or "@" in revision:  # @ names a branch, and there is none
        raise UsageError(f"{revision!r} is no revision: write one as in 0001, or base")
    try:
        return [each.revision for each in _scripts().iterate_revisions(current(database) or "base", revision)]
    except (CommandError, RevisionError) as error:
        raise OperatorError(_unmigrated(revision, error)) from error


def contents(database: Database) -> dict[str, int]:
    """How many rows each table has that there is, whatever version made it.

    Raises:
        OperatorError: the database cannot be opened.
    """
    try:
        with database.engine.connect() as connection:
            there = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
            counts = {name: select(func.count()).select_from(table(name)) for name in sorted(there)}
            return {name: connection.scalar(count) or 0 for name, count in counts.items()}
    except DatabaseError as error:
        raise OperatorError(_unusable(database, error)) from error


def current(database: Database) -> str | None:
    """The revision that the database has, or `None` for an empty one.

    Raises:
        OperatorError: the database cannot be opened.
    """
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as error:
        raise OperatorError(_unusable(database, error)) from error


@cache
def latest() -> str | None:
    """The revision that this version of the program works with."""
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_MIGRATIONS))


def _migrate(database: Database, direction: str, revision: str) -> None:
    config = Config(attributes={})
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        with database.engine.begin() as connection:
            take_turns(connection, "migrate")
            config.attributes["connection"] = connection
            getattr(command, direction)(config, revision)
    except DatabaseError as error:
        # A server that went away in the middle of the commit may have committed all the same.
        if not error.connection_invalidated or current(database) != _named(revision):
            raise OperatorError(_unusable(database, error)) from error
    except CommandError as error:
        raise OperatorError(_unmigrated(revision, error)) from error


def _unmigrated(revision: str, error: CommandError | RevisionError) -> str:
    return (
        f"the database cannot be migrated to {revision}: {error}. "
        "If a newer version of Tuition made it, install that version"
    )


def _named(revision: str) -> str | None:
    return {"head": latest(), "base": None}.get(revision, revision)


def _unusable(database: Database, error: DatabaseError) -> str:
    return f"the database {database.file or database.shown} cannot be used: {masked(str(error.orig))}"
