"""Helpers of the commands that work on the books: open the database, print what was found."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from shared.http.logging import escaped
from vendor_service.acts.act import Act
from vendor_service.audit.actors import os_user
from vendor_service.clock import system_clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError
from vendor_service.run.settings import Settings

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="Where the books are. (default: sqlite:///tuition-vendor.db)", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def reading(database_url: str | None) -> Iterator[Session]:
    """The books, which must be there, to be read."""
    with prepared(database_url) as database, database.read() as session:
        yield session


@contextmanager
def writing(database_url: str | None, *, new: bool = False) -> Iterator[Session]:
    """The books, to be changed in one transaction; where there are none, `new` ones are made, if wanted."""
    with opened(database_url) if new else existing(database_url) as database:
        if not is_there(database):
            typer.echo(f"new books in {where(database)}", err=True)
        schema.prepare(database)
        with database.write() as session:
            yield session


@contextmanager
def acting(database_url: str | None, *, new: bool = False) -> Iterator[Act]:
    """The books, to be changed in one transaction by whoever types; see `writing`."""
    with writing(database_url, new=new) as session:
        settings = Settings.read()
        trusted, percents = settings.trust_clock, settings.thresholds
        yield Act(session, os_user(), system_clock, trust_clock=trusted, percents=percents)


@contextmanager
def prepared(database_url: str | None) -> Iterator[Database]:
    """The books, which must be there, at this version, for what takes several transactions."""
    with existing(database_url) as database:
        schema.prepare(database)
        yield database


@contextmanager
def existing(database_url: str | None) -> Iterator[Database]:
    """The database of the option or the settings, which must hold books, of whatever version.

    Raises:
        OperatorError: it holds none; the message says where they were looked for.
    """
    with opened(database_url) as database:
        if not is_there(database) or schema.current(database) is None:
            makers = "vendor db upgrade, or vendor serve --migrate"
            if database.embedded:
                makers = "vendor serve, vendor db upgrade, or vendor accounts create"
            raise OperatorError(
                f"there are no books in {where(database)}; name them with --database-url or "
                f"VENDOR_DATABASE_URL, or begin new ones with: {makers}"
            )
        yield database


@contextmanager
def opened(database_url: str | None) -> Iterator[Database]:
    """The database of the option or the settings, whatever is in it; a file may be made by its first use."""
    with closing(Database(Settings.read(database_url=database_url).database_url)) as database:
        yield database


def is_there(database: Database) -> bool:
    """Whether an embedded database has a file yet; asking the database would make one."""
    return database.file is None or database.file.exists()


def where(database: Database) -> str:
    """Where the books are, for people: an absolute path, or a URL without its secrets."""
    return database.shown if database.file is None else str(database.file)


def print_json(data: object) -> None:
    """Print JSON for scripts."""
    print(json.dumps(data, indent=2))


def print_rows(rows: list[dict[str, Any]], *, as_json: bool, one: bool = False) -> None:
    """Print rows of the same columns: as JSON (just the object if there is to be `one`), or for people.

    For people they are aligned columns, a row a line, of which nothing is ever cut: what is printed can be
    copied. On a terminal that is too narrow for that, each row is a block of lines instead.
    """
    if as_json:
        print_json(rows[0] if one else rows)
    elif rows:
        cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
        lines = [] if one else _aligned(cells)
        too_wide = sys.stdout.isatty() and max(map(len, lines), default=0) > get_terminal_size().columns
        print("\n\n".join(map(_block, cells)) if one or too_wide else "\n".join(lines))


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_cell, value))
    return "-" if value is None or value == "" else escaped(str(value))


def _aligned(rows: list[dict[str, str]]) -> list[str]:
    table = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in table) for name in rows[0]}
    return ["  ".join(cell.ljust(widths[name]) for name, cell in row.items()).rstrip() for row in table]


def _block(row: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in row.items())
