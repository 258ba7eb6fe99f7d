"""The database: an engine, and transactions that are short and either commit whole or not at all."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.errors import CommitInDoubt, OperatorError, Refusal, UsageError

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
# Connections beyond the five that stay open: some wait for locked accounts (see `Writer`), others read.
_MOST_OVERFLOW = 20


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
            self.engine = _create_engine(parsed)
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
    def write(self, lock_seconds: float = _BUSY_SECONDS) -> Iterator[Session]:
        """One transaction that may write; commits at the end of the block, rolls back on an exception.

        It waits `lock_seconds` for each row that another transaction has locked; SQLite has one lock, for
        which it always waits 30.

        Raises:
            Refusal: another process kept the database locked, the disk is full, or a server does not answer
                (`overloaded`).
            CommitInDoubt: a server went away before it said whether it has committed.
        """
        with self._one_writer, self._transaction(self.engine, writes=True) as session:
            if not self.embedded:
                timeout = f"SET LOCAL lock_timeout = {max(1, round(1000 * lock_seconds))}"
                session.connection().exec_driver_sql(timeout)
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads, from one moment's state; it never waits for a writer.

        Raises:
            Refusal: the database does not answer (`overloaded`).
        """
        with self._transaction(self._reading, writes=False) as session:
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
    def _transaction(self, engine: Engine, *, writes: bool) -> Iterator[Session]:
        committing = False
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
                session.flush()
                committing = writes
        except OperationalError as error:
            if self.embedded and not _passes(error):
                raise
            if committing and error.connection_invalidated:
                message = (
                    "the vendor's database went away before it said whether this was charged; to find out, "
                    "send it again with the same Idempotency-Key, which is charged once"
                )
                raise CommitInDoubt(ErrorCode.OVERLOADED, message, retry_after=1) from error
            message = "the vendor's database is busy, restarting or out of room; try again"
            raise Refusal(ErrorCode.OVERLOADED, message, retry_after=1) from error


def _create_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return create_engine(url)
    unsaid = {name: value for name, value in _POSTGRES.items() if name not in url.query}
    # Pinged before use: a connection that a restarted PostgreSQL has closed is replaced unseen.
    return create_engine(url, pool_pre_ping=True, max_overflow=_MOST_OVERFLOW, connect_args=unsaid)


def take_turns(connection: Connection, what: str) -> None:
    """Let one transaction at a time do `what`, over all processes; the lock ends with the transaction.

    SQLite needs nothing more: a transaction that writes has the whole database to itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"tuition {what}"))))


def _passes(error: OperationalError) -> bool:
    """Whether SQLite's trouble is one that waiting, or an operator who makes room, puts an end to."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the primary code, without its refinement
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions of its own: `_begin_sqlite` says which kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {round(1000 * _BUSY_SECONDS)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit that was answered for survives a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before anything is read: what was checked still holds when it is written.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
