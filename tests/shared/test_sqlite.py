"""Who writes to a file without a write-ahead log is waited for."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.sqlite import write_ahead
from tests.support.sqlite_writer import writing


def _mode(connection: sqlite3.Connection) -> str:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return str(mode)


def test_a_file_that_another_writes_to_is_waited_for(tmp_path: Path) -> None:
    with writing(tmp_path / "file.db", 0.3), closing(sqlite3.connect(tmp_path / "file.db")) as mine:
        write_ahead(mine, 60)
        assert _mode(mine) == "wal"


def test_it_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with writing(tmp_path / "file.db", 60), closing(sqlite3.connect(tmp_path / "file.db")) as mine:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(mine, 0.1)
        assert _mode(mine) == "delete"


def test_a_file_that_cannot_be_written_is_not_waited_for(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "file.db").execute("CREATE TABLE a (b)").connection.close()
    mine = sqlite3.connect(f"file:{tmp_path / 'file.db'}?mode=ro", uri=True)
    with closing(mine), pytest.raises(sqlite3.OperationalError, match="readonly"):
        write_ahead(mine, 60)
