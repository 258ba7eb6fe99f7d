"""Cuts short in tests what only a long life needs: waits for the disk, measuring speed, reading certificates.

A process that is killed loses nothing by it: nobody cuts the power of a test.
"""

import sqlite3
from functools import cache
from typing import Any

import httpx._transports.default as transports
import typer.main
from sqlalchemy import URL, Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from client.cache.file import CacheFile
from client.results import speed
from vendor_service.database import session
from vendor_service.encoder import graph

configure_durable = session._configure_sqlite
_prepare_durable = CacheFile._prepare
_create_engine = session._create_engine
_compiled = LRUCache[Any, Any](2000)


def make_quick() -> None:
    """Have this process, and those that are forked from it, wait for no disk and measure for an instant.

    The tree of a command line's commands is made once, and so is the context of TLS, which every client of
    httpx would read a file of certificates for.
    """
    session._configure_sqlite = _configure
    CacheFile._prepare = _prepare  # type: ignore[method-assign]
    session._create_engine = _create
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__eq__ = _alike  # type: ignore[method-assign]
        dialect.__hash__ = _hash  # type: ignore[method-assign]
    speed._SECONDS, speed._BATCH = 0.01, 4
    graph._ROUNDS = 2  # passes of a model, to measure it
    transports.create_ssl_context = cache(transports.create_ssl_context)  # type: ignore[attr-defined]
    typer.main.get_command = cache(typer.main.get_command)


def _create(url: URL) -> Engine:
    """An engine that compiles no statement which another one of its kind has compiled."""
    engine = _create_engine(url)
    engine._compiled_cache = _compiled
    return engine


def _alike(self: object, other: object) -> bool:
    return type(self) is type(other)


def _hash(self: object) -> int:
    return hash(type(self))


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    configure_durable(connection, _record)
    connection.execute("PRAGMA synchronous = OFF").close()


def _prepare(self: CacheFile, dtype: str) -> str:
    found = _prepare_durable(self, dtype)
    self.connection.execute("PRAGMA synchronous = OFF")
    return found
