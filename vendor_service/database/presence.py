"""Which servers live on a database: each holds a shared lock while it runs, on a file or in PostgreSQL."""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, NullPool, create_engine, func, select
from sqlalchemy.exc import DBAPIError

from shared.serving.redaction import masked
from vendor_service.database.session import Database, time_outs
from vendor_service.errors import OperatorError, VendorRunning

_log = logging.getLogger(__name__)


class Presence:
    """One server's presence."""

    def __init__(self, database: Database) -> None:
        file = database.file
        self._lock: _Lock = _ServerLock(database) if file is None else _FileLock(file)

    def enter(self, if_alone: Callable[[], object]) -> None:
        """Be there from now on, once nobody insists on being alone.

        Before that, do what only a server may do that has no living sibling: on an embedded database, which
        is the one kind of which a server is told that it is alone.
        """
        self._lock.share(if_alone)

    def renew(self) -> None:
        """Be there again now, if a database server has forgotten it."""
        self._lock.renew()

    def leave(self) -> None:
        """Be gone, as the end of the process would have it too."""
        self._lock.close()


@contextmanager
def alone(database: Database, advice: str = "stop it first") -> Iterator[None]:
    """Keep every server from this database meanwhile: one that starts waits.

    Raises:
        VendorRunning: a server lives on it, or another command is alone with it just now; the message ends
            with the `advice`.
    """
    file = database.file
    with closing(_ServerLock(database) if file is None else _FileLock(file)) as lock:
        if not lock.exclude():
            raise VendorRunning(f"a vendor is running on {database.shown}; {advice}")
        yield


class _Lock(Protocol):
    """What servers share, and who wants none beside it has alone."""

    def share(self, if_alone: Callable[[], object]) -> None: ...
    def renew(self) -> None: ...
    def exclude(self) -> bool: ...
    def close(self) -> None: ...


class _FileLock:
    """Beside an SQLite file; the system releases it with the process."""

    def __init__(self, file: Path) -> None:
        lock = Path(f"{file}.lock")
        try:
            self._file = _opened(lock, file)
        except OSError as error:
            raise OperatorError(f"{lock} cannot be opened: {error.strerror}") from error

    def share(self, if_alone: Callable[[], object]) -> None:
        is_alone = self.exclude()
        if not is_alone:
            # Waits for a sibling that is just entering, or for a command, after which it may be alone.
            fcntl.flock(self._file, fcntl.LOCK_SH)
            is_alone = self.exclude()
        if is_alone:
            if_alone()
        # Where another slips in between two locks, it finds nothing of this server's to undo: this one has
        # not served yet.
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def renew(self) -> None:
        """Nothing can take it away."""

    def exclude(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._file.close()


def _opened(lock: Path, file: Path) -> BufferedWriter:
    """A lock's file. A new one belongs to whom the database's file belongs to, as SQLite's own do.

    Who is root makes it for the vendor, which may be another user.
    """
    try:
        new = lock.open("xb")
    except FileExistsError:
        return lock.open("ab")
    with suppress(OSError):  # others than root may not, and need not
        owned = file.stat()
        os.chown(new.fileno(), owned.st_uid, owned.st_gid)
    return new


class _ServerLock:
    """An advisory lock of a PostgreSQL database, held by a connection that does nothing else. Thread-safe."""

    def __init__(self, database: Database) -> None:
        url = database.engine.url
        # A database that dies without a word is given up here too: `renew` and `close` wait for each other.
        self._engine = create_engine(
            url, connect_args=time_outs(url), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        self._turn = threading.Lock()
        self._connection: Connection | None = None
        self._closed = self._failing = False

    def share(self, if_alone: Callable[[], object]) -> None:  # noqa: ARG002 - it may not be alone
        self.renew()

    def renew(self) -> None:
        with self._turn:
            if self._closed:
                return
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                    self._connection.execute(select(func.pg_advisory_lock_shared(_name())))
                else:
                    self._connection.execute(select(1))
                self._failing = False
            except DBAPIError as error:
                self._forget()
                if not self._failing:
                    # Not fatal: this guards against a command, and the next round tries again.
                    _log.warning(
                        "the database does not know that this server lives: %s", masked(str(error.orig))
                    )
                self._failing = True

    def exclude(self) -> bool:
        self._connection = self._engine.connect()
        return bool(self._connection.scalar(select(func.pg_try_advisory_lock(_name()))))

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._forget()
            self._engine.dispose()

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # whatever state it is in
            connection.close()


def _name() -> ColumnElement[int]:
    return func.hashtext("tuition server")
