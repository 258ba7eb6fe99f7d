"""Which servers live on one SQLite file: each holds a shared lock beside it for as long as it runs."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from vendor_service.database.session import Database


class Presence:
    """One server's presence. PostgreSQL needs none: it tells no server that it is the only one."""

    def __init__(self, database: Database) -> None:
        path = database.engine.url.database if database.embedded else None
        self._file = Path(f"{path}.lock").open("ab") if path else None  # noqa: SIM115 - it stays open

    def enter(self, if_alone: Callable[[], object]) -> None:
        """Be there from now on; before that, do what only a server may do that has no living sibling."""
        if self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            if_alone()
        # Waits for a sibling that is just entering. Where another slips in between the two locks, it finds
        # nothing of this server's to undo: this one has not served yet.
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be gone, as the end of the process would have it too."""
        if self._file is not None:
            self._file.close()
