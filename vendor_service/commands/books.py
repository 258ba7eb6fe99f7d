"""What the commands on the books share: opening the books, and printing what was found in them."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.settings import Settings

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="Where the books are. (default: sqlite:///tuition-vendor.db)", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def reading(database_url: str | None) -> Iterator[Session]:
    """The books, to be read."""
    with closing(open_database(database_url)) as database:
        schema.prepare(database)
        with database.read() as session:
            yield session


@contextmanager
def writing(database_url: str | None) -> Iterator[Session]:
    """The books, to be changed in one transaction."""
    with closing(open_database(database_url)) as database:
        schema.prepare(database)
        with database.write() as session:
            yield session


@contextmanager
def opened(database_url: str | None) -> Iterator[Database]:
    """The books, for what takes several transactions."""
    with closing(open_database(database_url)) as database:
        schema.prepare(database)
        yield database


def open_database(database_url: str | None) -> Database:
    """The database of the option, or of the settings; its tables may be of any version."""
    return Database(Settings.read(database_url=database_url).database_url)


def print_json(data: object) -> None:
    """Print JSON for scripts."""
    print(json.dumps(data, indent=2))


def print_rows(rows: list[dict[str, Any]], *, as_json: bool, one: bool = False) -> None:
    """Print rows of the same columns: as JSON (just the object if there is to be `one`), or for people."""
    if as_json:
        print_json(rows[0] if one else rows)
    elif one:
        for name, value in rows[0].items():
            print(f"{name}: {'-' if value is None else value}")
    elif rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*("-" if value is None else str(value) for value in row.values()))
        Console().print(table)
