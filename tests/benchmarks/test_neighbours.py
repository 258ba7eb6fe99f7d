"""benchmarks/neighbours.py: the harness works, so that what it says of a vendor is about the vendor."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.attacks import ATTACKS, Attack
from benchmarks.barrage import Attacker, AttackResult, Keys
from benchmarks.bystander import Waits
from benchmarks.neighbours import Outcome
from tests.support.long_history import write_history
from tests.support.vendor_process import Charges, wait_until
from tests.vendor_service.books import opened_books

NOTHING = Charges(0, 0, 0, 0)


def _outcome(texts: list[float], images: list[float], *refused: str) -> Outcome:
    waits = Waits(texts, images)
    waits.refused.update(refused)
    return Outcome(ATTACKS["replays"], waits, 0.1, 0, AttackResult(), NOTHING)


def test_an_attack_passes_if_neither_kind_waits_three_times_as_long_and_nothing_is_refused() -> None:
    honest = _outcome([0.1] * 9, [0.4] * 9)
    assert _outcome([0.3] * 9, [0.4] * 9).passes(honest)
    assert not _outcome([0.31] * 9, [0.4] * 9).passes(honest)
    assert not _outcome([0.1] * 9, [1.3] * 9).passes(honest)
    assert not _outcome([0.1] * 9, [0.4] * 9, "503").passes(honest)


def test_attacks_have_names_and_say_what_they_do() -> None:
    assert len(ATTACKS) >= 12
    assert all(isinstance(each, Attack) and each.what for each in ATTACKS.values())


def test_a_long_history_verifies(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'vendor.db'}"
    with opened_books(url) as books:
        bought = books.open()
        books.buy(bought)
        write_history(books.database, bought.key_id, 6000, books.clock())
        books.buy(bought)
        books.check(bought)
        assert len(books.entries(bought)) == 6002
        assert books.account(bought).queries_used == 12_002


class Vendor:
    """Answers every request with one status, and says how many bytes came."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.bytes = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer_one, args=(connection,), daemon=True).start()

    def _answer_one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            self.bytes += len(connection.recv(65_536))
            connection.sendall(self._answer)
            connection.shutdown(socket.SHUT_WR)
            # To close with something unread would take the answer with it.
            while block := connection.recv(65_536):
                self.bytes += len(block)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with closing(
        Vendor(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
    ) as each:
        yield each


@pytest.mark.parametrize(
    ("way", "arguments"),
    [
        ("repeat", {"connections": 2}),
        ("knock", {"connections": 2, "per_second": 50}),
        ("pour", {"connections": 2, "bytes_per_second": 1e7}),
        ("besiege", {"sent": 5, "connections": 2, "drip": 1}),
    ],
)
def test_an_enemy_counts_what_it_is_answered(vendor: Vendor, way: str, arguments: dict[str, Any]) -> None:
    over = threading.Event()
    attacker = Attacker(vendor.port, Keys("", "", ""), lambda: None, over)

    def end() -> None:
        try:
            wait_until(lambda: attacker.result.answers["413"] >= 2, seconds=20)
        finally:
            over.set()

    threading.Timer(1.6, end).start()
    getattr(attacker, way)([b"GET / HTTP/1.1\r\n\r\n"], **arguments)
    answers = attacker.end().answers
    assert answers["413"] >= 2
    assert answers["413"] >= answers["cut"]
