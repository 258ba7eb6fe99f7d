"""The first start: a key in a file that only its owner reads, or word of how to make one."""

import logging
from contextlib import closing
from pathlib import Path

import pytest

from vendor_service.accounts.accounts import Terms, list_accounts, open_account
from vendor_service.acts.first_key import bootstrap
from vendor_service.clock import system_clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError
from vendor_service.http.authentication import verify_key


@pytest.fixture
def database(database_url: str) -> Database:
    database = Database(database_url)
    schema.upgrade(database)
    return database


def test_the_first_start_writes_a_key_once_for_its_owner_alone(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "first.key", system_clock
    with closing(database), caplog.at_level(logging.INFO):
        bootstrap(database, file, clock)
        key = file.read_text().strip()
        file.write_text("used")
        bootstrap(database, file, clock)
        with database.read() as session:
            assert verify_key(session, key, clock()) is not None
            assert len(list_accounts(session)) == 1
    assert file.read_text() == "used"
    assert file.stat().st_mode & 0o777 == 0o600
    assert key.split("_")[2] not in caplog.text


def test_a_key_that_cannot_be_written_opens_no_account(database: Database, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "there").write_text("somebody's")
    with closing(database):
        for path in (tmp_path / "no" / "folder", tmp_path / "link", tmp_path / "there"):
            with pytest.raises(OperatorError, match="VENDOR_FIRST_KEY_TO"):
                bootstrap(database, path, system_clock)
        with database.read() as session:
            assert list_accounts(session) == []
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "there").read_text() == "somebody's"


def test_without_a_file_the_log_says_how_to_make_a_key(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    clock = system_clock
    with closing(database):
        bootstrap(database, None, clock)
        assert "vendor keys create" in caplog.text
        caplog.clear()
        with database.write() as session:
            open_account(session, "acme", Terms(), clock)
        bootstrap(database, None, clock)
    assert caplog.text == ""
