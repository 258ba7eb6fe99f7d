"""Books and caches whose commits do not wait for the disk: nobody cuts the power of a test.

A process that is killed loses nothing by it.
"""

import sqlite3

from client.cache.file import CacheFile
from vendor_service.database import session

configure_durable = session._configure_sqlite
_prepare_durable = CacheFile._prepare


def make_undurable() -> None:
    """Have this process, and those that are forked from it, open books and caches so from now on."""
    session._configure_sqlite = _configure
    CacheFile._prepare = _prepare  # type: ignore[method-assign]


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    configure_durable(connection, _record)
    connection.execute("PRAGMA synchronous = OFF").close()


def _prepare(self: CacheFile, dtype: str) -> str:
    found = _prepare_durable(self, dtype)
    self.connection.execute("PRAGMA synchronous = OFF")
    return found
