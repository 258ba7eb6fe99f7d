"""The schema's version: which migrations have run, and running them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError

from vendor_service.database.session import Database, take_turns
from vendor_service.errors import OperatorError

_MIGRATIONS = Path(__file__).with_name("migrations")


def prepare(database: Database, *, migrate: bool = False) -> None:
    """Make sure of this version's tables: an embedded database is migrated, any other one if it is asked for.

    Raises:
        OperatorError: the database cannot be used as it is.
    """
    if database.embedded or migrate:
        upgrade(database)
    elif current(database) != latest():
        raise OperatorError(
            "the database has another version's tables; run: vendor db upgrade (or serve with --migrate)"
        )


def upgrade(database: Database) -> None:
    """Bring the tables to this version's shape; an empty database gets them all.

    Raises:
        OperatorError: the database cannot be opened, or was made by a newer version.
    """
    if current(database) != latest():
        _migrate(database, "upgrade", "head")


def downgrade(database: Database, revision: str) -> None:
    """Take the tables back to an earlier `revision`; `base` removes them all, and everything in them.

    Raises:
        OperatorError: the database cannot be opened, or there is no such revision.
    """
    _migrate(database, "downgrade", revision)


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


def latest() -> str | None:
    """The revision that this version of the program works with."""
    return ScriptDirectory(str(_MIGRATIONS)).get_current_head()


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
        raise OperatorError(
            f"the database cannot be migrated to {revision}: {error}. "
            "If a newer version of Tuition made it, install that version"
        ) from error


def _named(revision: str) -> str | None:
    return {"head": latest(), "base": None}.get(revision, revision)


def _unusable(database: Database, error: DatabaseError) -> str:
    url = database.engine.url.render_as_string(hide_password=True)
    return f"the database {url} cannot be used: {error.orig}"
