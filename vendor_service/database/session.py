"""The database: an engine, and transactions that are short and either commit whole or not at all."""

import logging
import math
import select as polling
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InvalidatePoolError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from shared.errors import ErrorCode
from shared.http.logging import masked
from shared.sqlite import write_ahead
from vendor_service.database.tables import Base
from vendor_service.database.urls import masked_url
from vendor_service.errors import APIError, CommitInDoubt, RowLocked, UsageError

# How long a write waits for another process (a command line beside the server) before it gives up.
_BUSY_SECONDS = 30.0
# A PostgreSQL that is cut off without a word is given up after 30 seconds or so, rather than after hours.
_POSTGRES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# A connection that was used so lately is believed to hold, unless it says otherwise.
_SURE_SECONDS = 1.0
# Some wait for locked accounts (see `Writer`), others read. They stay open, since to open one takes longer
# than most of what it is wanted for. The last one used is the next one used, so only as many are as it takes.
_CONNECTIONS = {"pool_size": 25, "max_overflow": 0, "pool_use_lifo": True}
# A database that stays away is told of again after so long.
_REMINDER_SECONDS = 300.0
_FLAPPING_SECONDS = 10.0  # and one that comes and goes, not more often than this
# Who waits for a lock for less than this has something else to do, and an operator need not know of it.
_WORTH_TELLING_SECONDS = 1.0
_LOCK_NOT_AVAILABLE = "55P03"  # what PostgreSQL calls a lock that was waited for in vain
# And a change where it takes none: in a transaction that only reads, or that was to begin as one that writes.
_READ_ONLY = frozenset({"25006", "0A000"})

_log = logging.getLogger(__name__)


class Database:
    """Short transactions on SQLite or PostgreSQL. Thread-safe; connections open when first used.

    One that only `reads` leaves an SQLite file as it is, which otherwise gets a write-ahead log.

    Raises:
        UsageError: the URL is not one of a database that can be used.
    """

    def __init__(self, url: str, *, reads: bool = False) -> None:
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgres", "postgresql"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.embedded = parsed.get_backend_name() == "sqlite"
            if self.embedded and parsed.database in (None, "", ":memory:"):
                raise UsageError("an in-memory database loses the books; write sqlite:///FILE")
            self.engine = _create_engine(parsed)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
            raise UsageError(
                "the database URL is not understood; write sqlite:///FILE, or postgresql://USER@HOST/NAME, "
                "after: pip install 'tuition[postgres]'"
            ) from error
        if self.embedded:
            event.listen(self.engine, "connect", _configure_sqlite)
            if not reads:
                event.listen(self.engine, "connect", _write_ahead)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._reading = self.engine.execution_options(read_only=True)
        else:
            event.listen(self.engine, "connect", _configure_postgres)
            event.listen(self.engine, "checkin", _note_use)
            event.listen(self.engine, "checkout", partial(_see_that_it_holds, self.engine))
            event.listen(self.engine, "handle_error", _replace_read_only)
            self._reading = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._unread, self._unwritten = _Outages("answer"), _Outages("take changes")
        # SQLite has one writer: threads queue here, in order, rather than poll the file's lock.
        self._one_writer = threading.Lock() if self.embedded else nullcontext()

    @property
    def shown(self) -> str:
        """The URL as it may be shown: without secrets."""
        return masked_url(self.engine.url.render_as_string(hide_password=False))

    @property
    def file(self) -> Path | None:
        """The file of an embedded database, whether it exists or not; `None` for a database server."""
        name = self.engine.url.database if self.embedded else None
        return (
            None if name is None else Path(unquote(urlsplit(name).path) if _is_uri(name) else name).absolute()
        )

    @contextmanager
    def write(self, lock_seconds: float | None = None) -> Iterator[Session]:
        """One transaction that may write; commits at the end of the block, rolls back on an exception.

        It waits `lock_seconds` for each row that another transaction has locked, or 30; SQLite has one lock,
        for which it always waits 30.

        Raises:
            APIError: another process kept the database locked, the disk is full, a server does not answer or
                takes no changes, or all connections are in use (`overloaded`).
            RowLocked: another transaction kept a row locked.
            CommitInDoubt: a server went away before it said whether it has committed.
        """
        hasty = lock_seconds is not None and lock_seconds < _WORTH_TELLING_SECONDS
        transaction = self._transaction(self.engine, self._unwritten, writes=True, hasty=hasty)
        with self._one_writer, transaction as session:
            if lock_seconds is not None and not self.embedded:
                timeout = f"SET LOCAL lock_timeout = {max(1, round(1000 * lock_seconds))}"
                session.connection().exec_driver_sql(timeout)
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads, from one moment's state; it never waits for a writer.

        Raises:
            APIError: the database does not answer, or all connections are in use (`overloaded`).
        """
        with self._transaction(self._reading, self._unread, writes=False) as session:
            yield session

    def check(self) -> None:
        """See whether the database answers, with all tables in their places; raises what `read` does."""
        one_of_each = [
            select(1).select_from(table).limit(1).scalar_subquery() for table in Base.metadata.tables.values()
        ]
        with self.read() as session:
            session.execute(select(*one_of_each))

    def check_writing(self) -> None:
        """See whether the database takes a change, by one that changes nothing; raises what `write` does."""
        # To write a row as it is would not reach SQLite's file.
        unchanged = "UPDATE alembic_version SET version_num = version_num"
        with self.write() as session:
            session.execute(text("PRAGMA user_version = 0" if self.embedded else unchanged))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _transaction(
        self, engine: Engine, outages: "_Outages", *, writes: bool, hasty: bool = False
    ) -> Iterator[Session]:
        committing = False
        message = "the vendor's database is busy, restarting or out of room; try again"
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
                session.flush()
                committing = writes
            outages.over()
        except PoolTimeout as error:
            outages.noticed("all connections are in use")
            raise APIError(ErrorCode.OVERLOADED, message, retry_after=1) from error
        except DBAPIError as error:
            if not _passes(error, writes=writes):
                raise
            locked = _sqlstate(error) == _LOCK_NOT_AVAILABLE
            if not (locked and hasty):
                outages.noticed(error.orig)
            if committing and error.connection_invalidated:
                raise CommitInDoubt.unkeyed() from error
            kind = RowLocked if locked else APIError
            raise kind(ErrorCode.OVERLOADED, message, retry_after=1) from error


def _create_engine(url: URL) -> Engine:
    # The values of a statement that fails stay out of its error, which may be logged.
    if url.get_backend_name() == "sqlite":
        return create_engine(url, hide_parameters=True, **_CONNECTIONS)
    return create_engine(url, connect_args=time_outs(url), hide_parameters=True, **_CONNECTIONS)


def time_outs(url: URL) -> dict[str, int]:
    """When a connection to this PostgreSQL is given up, as far as the URL does not say it."""
    return {name: value for name, value in _POSTGRES.items() if name not in url.query}


class _Outages:
    """Logs why a database does not do `what`: when that begins, now and then while it lasts, and its end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._lasts = False
        self._told_at = -_REMINDER_SECONDS

    def noticed(self, why: object) -> None:
        with self._lock:
            now = time.monotonic()
            patience = _REMINDER_SECONDS if self._lasts else _FLAPPING_SECONDS
            if now - self._told_at < patience:
                return
            self._lasts, self._told_at = True, now
        # The driver's own words, on one line: they hold no statement and no values.
        _log.error("the database does not %s: %s", self._what, masked(" ".join(str(why).split())))

    def over(self) -> None:
        if not self._lasts:
            return
        with self._lock:
            lasted, self._lasts = self._lasts, False
        if lasted:
            _log.info("the database does %s again", self._what)


def take_turns(connection: Connection, what: str) -> None:
    """Let one transaction at a time do `what`, over all processes; the lock ends with the transaction.

    SQLite needs nothing more: a transaction that writes has the whole database to itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"tuition {what}"))))


def server_time(session: Session) -> int | None:
    """The time by the database's server, in microseconds since the epoch; SQLite has no server."""
    if session.connection().dialect.name == "sqlite":
        return None
    micros = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
    return int(session.execute(micros).scalar_one())


def _passes(error: DBAPIError, *, writes: bool) -> bool:
    """Whether the trouble is one that waiting, or an operator who makes room, puts an end to."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the primary code, without its refinement
        # A disk quota, and a limit on the size of files, are errors of writing to SQLite, and no full disk.
        full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) if writes else (sqlite3.SQLITE_FULL,)
        return code in (sqlite3.SQLITE_BUSY, *full)
    return isinstance(error, OperationalError) or (writes and _sqlstate(error) in _READ_ONLY)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _replace_read_only(context: ExceptionContext) -> None:
    """Have a connection replaced over which PostgreSQL takes no changes: after a failover another may."""
    if getattr(context.original_exception, "sqlstate", None) in _READ_ONLY:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False  # the others may be good for those who read


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions of its own: `_begin_sqlite` says which kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {round(1000 * _BUSY_SECONDS)}")
    # FULL: a commit that was answered for survives a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(connection: sqlite3.Connection, _record: object) -> None:
    write_ahead(connection, _BUSY_SECONDS)


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _see_that_it_holds(
    engine: Engine,
    connection: Any,  # noqa: ANN401 - an optional driver's
    record: ConnectionPoolEntry,
    _proxy: object,
) -> None:
    """Have a connection that a restarted PostgreSQL has closed replaced unseen, before it is used again.

    To ask costs a round trip, so one that was just used and has said nothing since is not asked:
    a server that closes it says so.
    """
    idle = time.monotonic() - record.info.get("used_at", math.inf)  # a new one is not idle
    heard = polling.poll()
    try:
        heard.register(connection.fileno(), polling.POLLIN)
        if idle > _SURE_SECONDS or heard.poll(0):
            engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _configure_postgres(connection: Any, _record: object) -> None:  # noqa: ANN401 - an optional driver's
    # Once, and not in each transaction, which is a dozen statements long as it is.
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {round(1000 * _BUSY_SECONDS)}")
    connection.autocommit = False


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before anything is read: what was checked still holds when it is written.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _is_uri(name: str) -> bool:
    return name.startswith("file:")
