"""Another process's hold on a SQLite file that is just being made."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Timer


@contextmanager
def writing(file: Path, seconds: float) -> Iterator[None]:
    """For so long, but not after the block, somebody is about to write to a file that is without a log."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        leaving = Timer(seconds, other.rollback)
        leaving.start()
        try:
            yield
        finally:
            leaving.cancel()
            leaving.join()
