"""The handling of SQLite's files that both sides need."""

import sqlite3
import time


def write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Give the file a write-ahead log; one that has it stays as it is.

    Whoever writes to a file without one is waited for here: SQLite itself, whatever its `busy_timeout`, waits
    for nobody when it gives a file its log.

    Args:
        connection: to the file; it is in no transaction.
        patience: how many seconds to wait.

    Raises:
        sqlite3.OperationalError: somebody writes to the file for longer, or it cannot be written.
    """
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # without its refinement
            if not is_busy or time.monotonic() > until:
                raise
        time.sleep(0.02)
