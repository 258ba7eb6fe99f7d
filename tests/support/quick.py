"""Cuts short in tests what only a long life needs: waits for the disk, measuring speed.

A process that is killed loses nothing by it: nobody cuts the power of a test.
"""

import sqlite3
from functools import cache

import typer.main

from client.cache.file import CacheFile
from client.results import speed
from vendor_service.database import session

configure_durable = session._configure_sqlite
_prepare_durable = CacheFile._prepare


def make_quick() -> None:
    """Have this process, and those that are forked from it, wait for no disk and measure for an instant.

    And have the tree of a command line's commands made once.
    """
    session._configure_sqlite = _configure
    CacheFile._prepare = _prepare  # type: ignore[method-assign]
    speed._SECONDS = 0.01
    typer.main.get_command = cache(typer.main.get_command)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    configure_durable(connection, _record)
    connection.execute("PRAGMA synchronous = OFF").close()


def _prepare(self: CacheFile, dtype: str) -> str:
    found = _prepare_durable(self, dtype)
    self.connection.execute("PRAGMA synchronous = OFF")
    return found
