"""Which servers live on an embedded database: each holds a shared lock on a file beside it while it runs."""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError


class Presence:
    """One server's presence, which ends with its process. A database server has none: nobody is alone there.

    Raises:
        OperatorError: the lock's file cannot be opened.
    """

    def __init__(self, database: Database) -> None:
        self._lock = None if database.file is None else _opened(database.file)

    def enter(self, if_alone: Callable[[], object]) -> None:
        """Be there from now on; before that, do what only a server without a living sibling may do."""
        if self._lock is None:
            return
        is_alone = self._exclude_others()
        if not is_alone:
            # Waits for a sibling that is just entering, after which it may be alone.
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            is_alone = self._exclude_others()
        if is_alone:
            if_alone()
        # Where another slips in between two locks, it finds nothing of this server's to undo: this one has
        # not served yet.
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be gone, as the end of the process would have it too."""
        if self._lock is not None:
            self._lock.close()

    def _exclude_others(self) -> bool:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _opened(file: Path) -> BufferedWriter:
    """The lock's file. A new one belongs to the owner of the database's file, as SQLite's own do.

    Root makes it for the vendor, which may be another user.
    """
    lock = Path(f"{file}.lock")
    try:
        try:
            new = lock.open("xb")
        except FileExistsError:
            return lock.open("ab")
    except OSError as error:
        raise OperatorError(f"{lock} cannot be opened: {error.strerror}") from error
    with suppress(OSError):  # others than root may not, and need not
        owned = file.stat()
        os.chown(new.fileno(), owned.st_uid, owned.st_gid)
    return new
