"""Servers on one SQLite file: what is held for a living one is not released when another starts."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts
from vendor_service.database.presence import Presence
from vendor_service.database.session import Database


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


def test_a_second_server_releases_nothing_of_the_first(scripted: ScriptedTexts, tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as first, ThreadPoolExecutor(1) as pool:
        key = first.key()
        answering = pool.submit(first.embed, key, {"text": "wait"})
        assert scripted.waiting.wait(20)
        with LocalVendor(tmp_path):
            scripted.go.set()
            assert answering.result().status_code == 200
        assert first.account(key).queries_used == 1
