"""Cuts short in tests what only a long life needs: waits for the disk, measuring speed, reading certificates.

A process that is killed loses nothing by it: nobody cuts the power of a test.
"""

import sqlite3
from functools import cache

import httpx._transports.default as transports
import typer.main

from client.cache.file import CacheFile
from client.results import speed
from vendor_service.database import session
from vendor_service.encoder import graph

configure_durable = session._configure_sqlite
_prepare_durable = CacheFile._prepare


def make_quick() -> None:
    """Have this process, and those that are forked from it, wait for no disk and measure for an instant.

    The tree of a command line's commands is made once, and so is the context of TLS, which every client of
    httpx would read a file of certificates for.
    """
    session._configure_sqlite = _configure
    CacheFile._prepare = _prepare  # type: ignore[method-assign]
    speed._SECONDS, speed._BATCH = 0.01, 4
    graph._ROUNDS = 2  # passes of a model, to measure it
    transports.create_ssl_context = cache(transports.create_ssl_context)  # type: ignore[attr-defined]
    typer.main.get_command = cache(typer.main.get_command)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    configure_durable(connection, _record)
    connection.execute("PRAGMA synchronous = OFF").close()


def _prepare(self: CacheFile, dtype: str) -> str:
    found = _prepare_durable(self, dtype)
    self.connection.execute("PRAGMA synchronous = OFF")
    return found
