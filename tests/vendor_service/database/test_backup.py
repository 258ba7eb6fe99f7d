"""Backups of SQLite: whole under their names, or not there."""

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support.forking import CONTEXT
from tests.vendor_service.books import Books, opened_books
from vendor_service.database import backup
from vendor_service.database.backup import back_up
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import OperatorError, UsageError


@pytest.fixture(autouse=True)
def _undurable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk takes its time to write everything down."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Books]:
    """Books in SQLite with one account."""
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books:
        books.open()
        yield books


def test_of_backups_that_begin_at_once_one_is_written_and_the_others_are_refused(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books:
        books.open()
        begin = threading.Barrier(4)

        def attempt(file: Path) -> str:
            with closing(Database(str(books.database.engine.url))) as database:
                begin.wait()
                try:
                    back_up(database, file)
                except UsageError as error:
                    return str(error)
            return ""

        for number in range(3):
            file = tmp_path / f"copy {number}.db"
            with ThreadPoolExecutor(4) as threads:
                told = sorted(threads.map(attempt, [file] * 4))
            assert told == ["", *[f"there is a file {file} already; name another"] * 3]
            with closing(Database(f"sqlite:///{file}")) as copy, copy.read() as session:
                assert session.scalars(select(Account)).one()


def test_a_backup_is_in_the_file_of_that_name_whatever_it_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened_books("sqlite:///books.db") as books:
        books.open()
        back_up(books.database, Path("file:copy.db?mode=memory"))
    with closing(sqlite3.connect(tmp_path / "file:copy.db?mode=memory")) as copy:
        assert copy.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


def _accounts(file: Path) -> int:
    with closing(sqlite3.connect(file)) as copy:
        return int(copy.execute("SELECT count(*) FROM accounts").fetchone()[0])


def _copies(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name.startswith("copy"))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), sqlite3.DatabaseError("malformed")])
def test_a_backup_that_ends_early_leaves_no_file(
    embedded: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(backup, "_to_disk", fail)
    with pytest.raises((KeyboardInterrupt, OperatorError)):
        back_up(embedded.database, tmp_path / "copy.db")
    assert _copies(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (".", "already"),
        ("/", "already"),
        ("books.db/copy.db", "cannot be written"),
        ("none/copy.db", "cannot be written"),
        ("x" * 250, "cannot be written"),
    ],
)
def test_where_no_file_can_be_a_backup_ends_with_a_plain_error(
    embedded: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, OperatorError), match=says):
        back_up(embedded.database, Path(file))


def _killed_before_it_is_named(url: str, file: Path) -> None:
    backup._take_name = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with closing(Database(url)) as database:
        back_up(database, file)


def test_a_backup_that_is_killed_has_no_file_of_its_name(embedded: Books, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    process = CONTEXT.Process(
        target=_killed_before_it_is_named, args=(f"sqlite:///{tmp_path / 'books.db'}", file)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = _copies(tmp_path)
    assert left.startswith("copy.db.")
    assert left.endswith(".part")
    back_up(embedded.database, file)
    assert _accounts(file) == 1


def test_a_backup_has_its_name_once_it_is_whole_and_on_the_disk(
    embedded: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    def linked(to: Path, part: Path) -> None:
        os.link(part, to)
        seen.append(to)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "hardlink_to", linked)
    back_up(embedded.database, tmp_path / "copy.db")
    part, named, folder = seen
    assert part.suffix == ".part"
    assert (named, folder) == (tmp_path / "copy.db", tmp_path)


def test_a_backup_in_a_folder_that_cannot_be_read_is_written_all_the_same(
    embedded: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_disk = backup._to_disk

    def refuse_folders(path: Path, flags: int) -> None:
        if path.is_dir():  # as the system does, unless root asks
            raise PermissionError(13, "Permission denied")
        to_disk(path, flags)

    monkeypatch.setattr(backup, "_to_disk", refuse_folders)
    back_up(embedded.database, tmp_path / "copy.db")
    assert _copies(tmp_path) == ["copy.db"]
    assert _accounts(tmp_path / "copy.db") == 1


def test_where_files_have_one_name_only_a_backup_is_written_all_the_same(
    embedded: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    file = tmp_path / "copy.db"
    back_up(embedded.database, file)
    assert _accounts(file) == 1
    assert _copies(tmp_path) == ["copy.db"]
    file.write_text("another's")
    with pytest.raises(UsageError, match="already"):
        back_up(embedded.database, file)
    assert file.read_text() == "another's"
