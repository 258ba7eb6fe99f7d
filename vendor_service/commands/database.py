"""`vendor db`: the database's tables and their version."""

from contextlib import closing
from pathlib import Path

import typer

from vendor_service.commands.books import DatabaseUrl, open_database
from vendor_service.database import schema

app = typer.Typer(help="The database's tables and their version.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the tables to this version; an embedded SQLite database does so by itself.

    Example: vendor db upgrade --database-url postgresql://tuition@db/tuition
    """
    with closing(open_database(database_url)) as database:
        schema.upgrade(database)
        print(schema.current(database))


@app.command("downgrade")
def downgrade(revision: str, database_url: DatabaseUrl = None) -> None:
    """Take the tables back to an earlier REVISION; base removes them with all that is in them.

    Example: vendor db downgrade base
    """
    with closing(open_database(database_url)) as database:
        schema.downgrade(database, revision)
        print(schema.current(database))


@app.command("current")
def current(database_url: DatabaseUrl = None) -> None:
    """Print the version of the tables, or None for an empty database.

    Example: vendor db current
    """
    with closing(open_database(database_url)) as database:
        print(schema.current(database))


@app.command("backup")
def backup(file: Path, database_url: DatabaseUrl = None) -> None:
    """Write a copy of an SQLite database to a new FILE, as it is at one moment, while it is in use.

    Example: vendor db backup /backups/books.db
    """
    with closing(open_database(database_url)) as database:
        database.back_up(file)
