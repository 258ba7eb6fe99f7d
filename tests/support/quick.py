"""Cuts short in tests what only a long life needs: waits for the disk, long training, reading certificates.

A process that is killed loses nothing by it: nobody cuts the power of a test.
"""

import os
import sqlite3
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import httpx._transports.default as transports
import typer.main
from sqlalchemy import URL, Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from client.cache import file
from client.learning.recipe import Recipe
from client.results import speed
from vendor_service.database import session
from vendor_service.encoder import graph
from vendor_service.encoder.choice import ChoiceMemory

# Of the default recipe, with less of everything that takes time: commands that tests run train by it.
BRIEF = replace(Recipe(), align_views=2, align_images_per_domain=16, images_per_domain=2, evaluations=3)

remembering = ChoiceMemory.alone
configure_durable = session._configure_sqlite
_create_engine = session._create_engine
_create_context = transports.create_ssl_context  # type: ignore[attr-defined]
_compiled = LRUCache[Any, Any](2000)


def make_quick() -> None:
    """Have this process, and those that are forked from it, wait for no disk and measure for an instant.

    The tree of a command line's commands is made once, and so is the context of TLS, which every client of
    httpx would read a file of certificates for.
    """
    session._configure_sqlite = _configure
    file._SYNCHRONOUS = "OFF"
    session._create_engine = _create
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__eq__ = _alike  # type: ignore[method-assign]
        dialect.__hash__ = _hash  # type: ignore[method-assign]
    speed._SECONDS, speed._WARM_UP, speed._BATCH = 0.001, 0, 2
    graph._ROUNDS = 2  # passes of a model, to measure it
    ChoiceMemory.alone = _nowhere  # type: ignore[assignment,method-assign]
    transports.create_ssl_context = _known_context  # type: ignore[assignment,attr-defined]
    typer.main.get_command = cache(typer.main.get_command)


def _create(url: URL) -> Engine:
    """An engine that compiles no statement which another one of its kind has compiled."""
    engine = _create_engine(url)
    engine._compiled_cache = _compiled
    return engine


def _nowhere(_self: object) -> AbstractContextManager[bool]:
    """Nothing can be kept, so nothing is measured."""
    return nullcontext(False)


def _alike(self: object, other: object) -> bool:
    return type(self) is type(other)


def _hash(self: object) -> int:
    return hash(type(self))


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    configure_durable(connection, _record)
    connection.execute("PRAGMA synchronous = OFF").close()


def _known_context(**how: Any) -> Any:
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), *how.items())


@cache
def _context(_file: str | None, _folder: str | None, *how: tuple[str, Any]) -> Any:
    return _create_context(**dict(how))
