"""`vendor doctor`: what it finds, on a machine that is in order and on one that is not."""

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.vendor_service.books import Books, on_sqlite
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.acts.doctor import Finding
from vendor_service.clock import DAY
from vendor_service.database.session import Database
from vendor_service.run.doctor import examine


def found(books: Books, **settings: Any) -> dict[tuple[str, str], Finding]:
    given = GivenSettings(database_url=books.url, **{"port": 0} | settings)
    return {(each.check, each.state): each for each in examine(given, books.database, books.clock)}


@on_sqlite
def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.open(quota=5)
    file = books.database.file
    assert file is not None
    file.chmod(0o600)
    for each in file.parent.glob(f"{file.stem}.*"):
        each.chmod(0o600)
    well = found(books, public_url="https://vendor.example", batch_store=str(tmp_path / "store"))
    assert {check for check, state in well if state == "bad"} == set()
    assert {check for check, state in well if state == "look"} <= {"currency", "key of receipts", "disk"}
    for check in ("books", "clock", "limits", "file modes", "models", "port", "store of bulk jobs"):
        assert (check, "good") in well, check
    # Whatever is not as it should be.
    books.open()
    file.chmod(0o644)
    monkeypatch.setenv("VENDOR_PRIZE", "5")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        ill = found(
            books, port=bound.getsockname()[1], admin_port=taken.getsockname()[1], host="127.0.0.1",
            model="no-such-model", batch_store="/proc/x", trust_clock=True,
        )  # fmt: skip
    assert "VENDOR_PRIZE" in ill["settings", "look"].found or ("settings", "look") in ill
    assert "account-1" in ill["limits", "look"].found
    assert str(file) in ill["file modes", "look"].found
    assert ("port", "bad") in ill
    assert "somebody answers" in ill["port", "look"].found
    assert ("models", "bad") in ill
    assert "/proc/x" in ill["store", "bad"].found
    assert ill["operators", "look"].next == f"`vendor operators create NAME --database-url {books.url}`"
    books.clock.now -= 300 * DAY
    assert ("clock", "bad") in found(books)
    assert ("proxy", "look") in found(books, host="0.0.0.0")
    with closing(Database(f"sqlite:///{tmp_path / 'none.db'}")) as none:
        given = GivenSettings(database_url="sqlite:///none.db", port=0)
        states = {each.check: each.state for each in examine(given, none, books.clock)}
    assert (states["books"], "clock" in states) == ("bad", False)
    assert not (tmp_path / "none.db").exists()
    assert os.environ["VENDOR_PRIZE"]
