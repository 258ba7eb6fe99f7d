"""The database: an engine, and transactions that are short and either commit whole or not at all."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.errors import OperatorError, Refusal, UsageError

# How long a write waits for another process (a command line beside the server) before it gives up.
_BUSY_MILLISECONDS = 30_000


class Database:
    """Short transactions on SQLite or PostgreSQL. Thread-safe; connections open when first used.

    Raises:
        UsageError: the URL is not one of a database that can be used.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgres", "postgresql"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            # Pinged before use: a connection that a restarted PostgreSQL has closed is replaced unseen.
            self.engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(
                "the database URL is not understood; write sqlite:///FILE, "
                "or postgresql://USER@HOST/NAME where tuition[postgres] is installed"
            ) from error
        self.embedded = parsed.get_backend_name() == "sqlite"
        if self.embedded:
            if parsed.database in (None, "", ":memory:"):
                raise UsageError("an in-memory database loses the books; write sqlite:///FILE")
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._reading = self.engine.execution_options(read_only=True)
        else:
            self._reading = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        # SQLite has one writer: threads queue here, in order, rather than poll the file's lock.
        self._one_writer = threading.Lock() if self.embedded else nullcontext()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that may write; commits at the end of the block, rolls back on an exception.

        Raises:
            Refusal: another process kept the database locked, the disk is full, or a server does not answer
                (`overloaded`).
        """
        with self._one_writer, self._transaction(self.engine) as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads, from one moment's state; it never waits for a writer.

        Raises:
            Refusal: the database does not answer (`overloaded`).
        """
        with self._transaction(self._reading) as session:
            yield session

    def check(self) -> None:
        """See whether the database answers; raises what `read` does."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def check_writing(self) -> None:
        """See whether the database takes a change, by one that changes nothing; raises what `write` does."""
        # To write a row as it is would not reach SQLite's file.
        unchanged = "UPDATE alembic_version SET version_num = version_num"
        with self.write() as session:
            session.execute(text("PRAGMA user_version = 0" if self.embedded else unchanged))

    def back_up(self, to: Path) -> None:
        """Write the books, as they are at one moment, to a new file; whoever uses them is not disturbed.

        Raises:
            UsageError: this is not SQLite, or there is a file of that name.
            OperatorError: the file cannot be written.
        """
        if not self.embedded:
            raise UsageError(
                "this backs up SQLite alone; PostgreSQL has pg_dump, and docs/operations.md says how"
            )
        if to.exists():
            raise UsageError(f"there is a file {to} already; name another")
        # Not through SQLAlchemy, which begins a transaction: a vacuum is none, and may not be in one.
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM INTO ?", (str(to),))
        except sqlite3.OperationalError as error:
            to.unlink(missing_ok=True)
            raise OperatorError(f"the backup cannot be written: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            if self.embedded and not _passes(error):
                raise
            message = "the vendor's database is busy, restarting or out of room; try again"
            raise Refusal(ErrorCode.OVERLOADED, message, retry_after=1) from error


def take_turns(connection: Connection, what: str) -> None:
    """Let one transaction at a time do `what`, over all processes; the lock ends with the transaction.

    SQLite needs nothing more: a transaction that writes has the whole database to itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"tuition {what}"))))


def server_time(session: Session) -> int | None:
    """What the database's server has for the time, in microseconds since the epoch; SQLite has no server."""
    if session.connection().dialect.name == "sqlite":
        return None
    micros = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
    return int(session.execute(micros).scalar_one())


def _passes(error: OperationalError) -> bool:
    """Whether SQLite's trouble is one that waiting, or an operator who makes room, puts an end to."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the primary code, without its refinement
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions of its own: `_begin_sqlite` says which kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit that was answered for survives a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before anything is read: what was checked still holds when it is written.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
