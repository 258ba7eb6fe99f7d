"""Helpers of the commands that work on the books: they open the database."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Annotated

import typer

from vendor_service.acts.act import ActContext
from vendor_service.acts.doctor import Finding
from vendor_service.audit.actors import os_user
from vendor_service.clock import DAY, system_clock
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
def acting(
    database_url: str | None,
    *,
    new: bool = False,
    reads: bool = False,
    any_books: bool = False,
    **given: object,
) -> Iterator[ActContext]:
    """The context of acts and queries on the command line; where there are no books, `new` ones are made.

    What only `reads` leaves a file as it is, a backup say, and its tables at their version. `any_books` will
    do, none and those of another version included. `given` are further settings that were typed.
    """
    settings = Settings.read(database_url=database_url, **given)
    opens = opened if new or any_books else existing
    with opens(database_url, reads=reads) as database:
        if not any_books:
            if not is_there(database):
                typer.echo(f"new books in {where(database)}", err=True)
            (schema.check if reads else schema.prepare)(database)
        yield ActContext(
            database,
            system_clock,
            settings.trust_clock,
            keys_in=settings.keys_in,
            keep_micros=settings.batch_keep_days * DAY,
            examine=partial(_examine, settings, database),
            actor=os_user(),
        )


def _examine(settings: Settings, database: Database) -> list[Finding]:
    from vendor_service.run import doctor  # it imports what a model is made of

    return list(doctor.examine(settings, database, system_clock))


@contextmanager
def existing(database_url: str | None, *, reads: bool = False) -> Iterator[Database]:
    """The database of the option or the settings, which must hold books, of whatever version.

    Raises:
        OperatorError: it holds none; the message says where they were looked for.
    """
    with opened(database_url, reads=reads) as database:
        if not is_there(database) or schema.current(database) is None:
            makers = "`vendor db upgrade`, or `vendor serve --migrate`"
            if database.embedded:
                makers = "`vendor serve`, `vendor db upgrade`, or `vendor accounts create NAME`"
            raise OperatorError(
                f"there are no books in {where(database)}; name them with --database-url or "
                f"VENDOR_DATABASE_URL, or begin new ones with: {makers}"
            )
        yield database


@contextmanager
def opened(database_url: str | None, *, reads: bool = False) -> Iterator[Database]:
    """The database of the option or the settings, whatever is in it; a file may be made by its first use."""
    url = Settings.read(database_url=database_url).database_url
    with closing(Database(url, reads=reads)) as database:
        yield database


def is_there(database: Database) -> bool:
    """Whether an embedded database has a file yet; asking the database would make one."""
    return database.file is None or database.file.exists()


def where(database: Database) -> str:
    """Where the books are, for people: an absolute path, or a URL without its secrets."""
    return database.shown if database.file is None else str(database.file)
