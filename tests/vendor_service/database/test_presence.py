"""Servers on one database: what a living one holds is not released."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.postgres import Postgres
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts
from vendor_service.database import schema
from vendor_service.database.presence import Presence
from vendor_service.database.session import Database
from vendor_service.extraction.recorder import Recorder
from vendor_service.money.refusals import RefusalCounts


def test_only_a_server_without_a_living_sibling_is_alone(tmp_path: Path) -> None:
    found: list[str] = []
    with closing(Database(f"sqlite:///{tmp_path / 'books.db'}")) as database:
        first, second, third = (Presence(database) for _ in range(3))
        first.enter(lambda: found.append("first"))
        second.enter(lambda: found.append("second"))
        first.leave()
        second.leave()
        third.enter(lambda: found.append("third"))
        third.leave()
    assert found == ["first", "third"]


@pytest.mark.parametrize("error", [None, PermissionError(1, "Operation not permitted")])
def test_a_new_lock_is_given_to_the_owner_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    given: list[tuple[int, ...]] = []

    def give(descriptor: int, *owner: int) -> None:
        given.append((os.fstat(descriptor).st_ino, *owner))
        if error is not None:
            raise error

    monkeypatch.setattr(os, "chown", give)
    file, lock = tmp_path / "books.db", tmp_path / "books.db.lock"
    with closing(Database(f"sqlite:///{file}")) as database:
        schema.upgrade(database)
        for _ in range(2):
            Presence(database).leave()
    assert given == [(lock.stat().st_ino, file.stat().st_uid, file.stat().st_gid)]


def test_a_second_server_releases_nothing_of_the_first(scripted: ScriptedTexts, tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as first, ThreadPoolExecutor(1) as pool:
        key = first.key()
        answering = pool.submit(first.embed, key, {"text": "wait"})
        assert scripted.waiting.wait(20)
        with LocalVendor(tmp_path):
            scripted.go.set()
            assert answering.result().status_code == 200
        assert first.account(key).queries_used == 1


def test_a_server_that_cannot_write_at_its_stop_is_gone_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Presence] = []
    leave = Presence.leave

    def leaving(presence: Presence) -> None:
        leave(presence)
        left.append(presence)

    monkeypatch.setattr(Presence, "leave", leaving)
    with LocalVendor(tmp_path) as vendor:
        vendor.app.state.refusals.note("acct_1", "", "overloaded")
        assert vendor.embed(vendor.key(), {"text": "a cat"}).status_code == 200
        for kind in (RefusalCounts, Recorder):
            monkeypatch.setattr(kind, "write", lambda _: 1 / 0)
    assert len(left) == 1


def test_a_server_that_starts_waits_for_one_that_is_just_entering(tmp_path: Path) -> None:
    found: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def first_alone() -> None:
        found.append("first")
        begun.set()
        assert go.wait(10)

    with closing(Database(f"sqlite:///{tmp_path / 'books.db'}")) as database, ThreadPoolExecutor(2) as pool:
        first, second = Presence(database), Presence(database)
        entering = pool.submit(first.enter, first_alone)
        assert begun.wait(10)
        waiting = pool.submit(second.enter, lambda: found.append("second"))
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        go.set()
        for each in (entering, waiting):
            each.result(10)
        for presence in (first, second):
            presence.leave()
    assert found == ["first"]


def test_on_a_database_server_nobody_is_alone(postgres: Postgres) -> None:
    with closing(Database(postgres.create_database())) as database:
        presence = Presence(database)
        presence.enter(lambda: 1 / 0)
        presence.leave()
