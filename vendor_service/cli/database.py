"""`vendor db`: the database's tables and their version."""

from pathlib import Path

import typer

from vendor_service.cli.books import DatabaseUrl, bring_to_this_version, existing, is_there, opened, where
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.database import schema
from vendor_service.database.backup import back_up
from vendor_service.database.presence import alone
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError

app = typer.Typer(help="The database's tables and their version.", no_args_is_help=True)

_NAMES = {"accounts": "accounts", "api_keys": "keys", "ledger_entries": "ledger entries", "prices": "prices"}


@app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the tables to this version; an embedded SQLite database does so by itself.

    Example: vendor db upgrade --database-url postgresql://tuition@db/tuition
    """
    with opened(database_url) as database:
        if not is_there(database):
            typer.echo(f"new books in {where(database)}", err=True)
        bring_to_this_version(database, migrate=True)
        print(schema.current(database))


@app.command("downgrade")
def downgrade(revision: str, database_url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Take the tables back to an earlier REVISION, with all vendors stopped; a ledger is never erased.

    What the former tables have no place for is dropped: make a backup before.

    Example: vendor db downgrade 0001
    """
    with existing(database_url) as database:
        if not schema.undone(database, revision):
            print(schema.current(database))
            return
        with alone(database):
            pass  # told before anything is asked; but while the operator thinks, a vendor may start
        _confirm_loss(database, revision, yes=yes)
        with alone(database):
            schema.downgrade(database, revision)
        print(schema.current(database))


def _confirm_loss(database: Database, revision: str, *, yes: bool) -> None:
    removes_all = schema.undone(database, revision) == schema.undone(database, "base")
    contents = schema.contents(database)
    if removes_all and contents.get("ledger_entries"):
        raise OperatorError(
            f"{where(database)} has {contents['ledger_entries']} ledger entries, "
            "and a ledger is never erased; "
            "to begin anew, let VENDOR_DATABASE_URL name another database"
        )
    what = ", ".join(f"{count} {_NAMES[name]}" for name, count in contents.items() if name in _NAMES)
    loss = (
        f"This removes all tables from {where(database)}, which has {what}."
        if removes_all
        else f"This drops from {where(database)}, which has {what}, whatever {revision} has no place for "
        "(docs/operations.md, Migration and rollback)."
    )
    confirm(loss, revision, yes=yes)


@app.command("current")
def current(database_url: DatabaseUrl = None) -> None:
    """Print the version of the tables, or None for an empty database.

    Example: vendor db current
    """
    with opened(database_url) as database:
        if not is_there(database):
            raise OperatorError(f"there is no database in {where(database)}")
        print(schema.current(database))


@app.command("backup")
def backup(file: Path, database_url: DatabaseUrl = None) -> None:
    """Write a copy of an SQLite database to a new FILE, as it is at one moment, while it is in use.

    Example: vendor db backup /backups/books.db
    """
    with existing(database_url) as database:
        back_up(database, file)
