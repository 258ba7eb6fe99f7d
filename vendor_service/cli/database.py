"""`vendor db`: the database's tables and their version."""

from pathlib import Path

import typer

from vendor_service.cli.books import DatabaseUrl, existing, is_there, opened, where
from vendor_service.database import schema
from vendor_service.database.backup import back_up
from vendor_service.errors import OperatorError

app = typer.Typer(help="The database's tables and their version.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the tables to this version; an embedded SQLite database does so by itself.

    Example: vendor db upgrade --database-url postgresql://tuition@db/tuition
    """
    with opened(database_url) as database:
        if not is_there(database):
            typer.echo(f"new books in {where(database)}", err=True)
        schema.prepare(database, migrate=True)
        print(schema.current(database))


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
