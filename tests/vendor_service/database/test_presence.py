"""Servers on one database: what a living one holds is not released, and no command takes its tables away."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest

from tests.support.postgres import Postgres
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts
from vendor_service.cli.database import downgrade
from vendor_service.database import schema
from vendor_service.database.presence import Presence, alone
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError, VendorRunning
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
            with alone(database):
                pass
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
        vendor.app.state.refusals.note("acct_1", "overloaded")
        assert vendor.embed(vendor.key(), {"text": "a cat"}).status_code == 200
        for kind in (RefusalCounts, Recorder):
            monkeypatch.setattr(kind, "write", lambda _: 1 / 0)
    assert len(left) == 1


def test_the_tables_of_a_living_server_are_not_taken_away(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        schema.upgrade(database)
        first, second = Presence(database), Presence(database)
        for each in (first, second):
            each.enter(lambda: None)
        for each in (first, second):
            with pytest.raises(OperatorError, match=r"a vendor is running on .*; stop it first"):
                downgrade("base", database_url, yes=True)
            each.leave()
        assert schema.current(database) == schema.latest()
        downgrade("base", database_url, yes=True)
        assert schema.current(database) is None


def test_a_server_that_starts_waits_until_the_tables_are_settled(database_url: str) -> None:
    with closing(Database(database_url)) as database, ThreadPoolExecutor(1) as pool:
        presence = Presence(database)
        with alone(database):
            entering = pool.submit(presence.enter, lambda: None)
            with pytest.raises(TimeoutError):
                entering.result(0.5)
        entering.result(10)
        presence.leave()


def test_a_server_that_starts_while_a_command_is_alone_is_told_then_that_it_is_alone(tmp_path: Path) -> None:
    found: list[str] = []
    with closing(Database(f"sqlite:///{tmp_path / 'books.db'}")) as database, ThreadPoolExecutor(1) as pool:
        presence = Presence(database)
        with alone(database):
            entering = pool.submit(presence.enter, lambda: found.append("first"))
            with pytest.raises(TimeoutError):
                entering.result(0.5)
        entering.result(10)
        second = Presence(database)
        second.enter(lambda: found.append("second"))
        with pytest.raises(VendorRunning), alone(database):
            pass
        for each in (presence, second):
            each.leave()
    assert found == ["first"]


def test_a_server_is_seen_again_after_its_database_was_restarted(postgres: Postgres) -> None:
    with closing(Database(postgres.create_database())) as database:
        presence = Presence(database)
        presence.enter(lambda: None)
        postgres.stop()
        try:
            presence.renew()
        finally:
            postgres.start()
        presence.renew()
        with pytest.raises(OperatorError, match="stop it first"), alone(database):
            pass
        presence.leave()
        with alone(database):
            pass


def test_a_database_that_dies_without_a_word_is_given_up_as_by_all_connections(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Mock(wraps=psycopg.connect)
    monkeypatch.setattr(psycopg, "connect", connect)
    with closing(Database(f"{postgres.create_database()}&keepalives_idle=20")) as database:
        database.engine.connect().close()
        presence = Presence(database)
        presence.enter(lambda: None)
        presence.leave()
    others, own = (each.kwargs for each in connect.call_args_list[-2:])
    assert dict(own, context=None) == dict(others, context=None)  # SQLAlchemy's, one for each engine
    assert own.items() >= {"keepalives_idle": "20", "tcp_user_timeout": 30_000}.items()
