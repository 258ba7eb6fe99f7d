"""A copy of the books in SQLite, made while they are in use: whole under its name, or not there."""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError, UsageError


def back_up(database: Database, to: Path) -> None:
    """Write the books, as they are at one moment, to a new file; whoever uses them is not disturbed.

    The file has its name once it is whole and on the disk. Who is killed before leaves `NAME.*.part`, and may
    leave `NAME.*.part-journal`.

    Raises:
        UsageError: this is not SQLite, or there is a file of that name.
        OperatorError: the file cannot be written.
    """
    if not database.embedded:
        raise UsageError(
            "this backs up SQLite alone; PostgreSQL has pg_dump, and docs/operations.md says how"
        )
    part = to.parent / f"{to.name}.{secrets.token_hex(4)}.part"
    try:
        if to.exists():  # which may also come to be meanwhile
            raise FileExistsError
        _copy(database, part)
        _take_name(part, to)
    except FileExistsError as error:
        raise UsageError(f"there is a file {to} already; name another") from error
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"the backup cannot be written: {error}") from error
    finally:  # after Ctrl-C as well
        with suppress(OSError):  # it is not there, or nothing can be there
            part.unlink()


def _copy(database: Database, part: Path) -> None:
    # Not through SQLAlchemy, which begins a transaction: a vacuum is none, and may not be in one.
    with closing(database.engine.raw_connection()) as connection:
        # A whole path, for SQLite takes a name that begins with "file:" for a URI.
        connection.cursor().execute("VACUUM INTO ?", (str(part.absolute()),))
    _to_disk(part, os.O_RDWR)  # which SQLite leaves to the system


def _take_name(part: Path, to: Path) -> None:
    """Give a file that is whole its name, if nothing has it.

    Raises:
        FileExistsError: something has.
    """
    try:
        to.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        to.touch(exist_ok=False)
        try:
            part.replace(to)
        except BaseException:
            to.unlink()
            raise
    with suppress(OSError):  # a folder that cannot be read, or a system that opens none: the backup is there
        _to_disk(to.absolute().parent, os.O_RDONLY)


def _to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
