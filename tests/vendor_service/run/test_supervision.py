"""Workers are started, watched, replaced and stopped; what they serve is of no concern here."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.support.vendor_process import wait_until
from tests.vendor_service.run import served
from tests.vendor_service.run.served import die, refuse, reread, serve
from vendor_service.errors import OperatorError, UsageError
from vendor_service.run import supervisor, workers
from vendor_service.run.workers import Workers


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    """A server of forks for these tests alone: they kill it, and `Workers` sets what it preloads."""
    own: Any = forkserver.ForkServer()
    shared = forkserver._forkserver
    before = dict(vars(shared))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forkserver, "_forkserver", own)
        for name in ("connect_to_new_process", "ensure_running", "set_forkserver_preload"):
            patched.setattr(forkserver, name, getattr(own, name))
        patched.setattr(workers, "_PRELOADED", [served.__name__])
        yield
    if own._forkserver_pid is not None:
        os.kill(own._forkserver_pid, signal.SIGKILL)  # it would wait for a child that a failed test left
        own._stop()
    assert vars(shared) == before


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener


def living(folder: Path) -> list[tuple[int, int]]:
    """The number and the process of each worker that has not ended in good order."""
    return [
        (int(number), int(pid)) for number, _, pid in (each.name.partition("-") for each in folder.iterdir())
    ]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_all_are_announced_once_and_stop_together(
    stop: signal.Signals, bound: socket.socket, tmp_path: Path
) -> None:
    told: list[str] = []

    def on_ready(facts: str) -> None:
        told.append(facts)
        assert sorted(number for number, _ in living(tmp_path)) == [0, 1, 2]
        os.kill(os.getpid(), stop)

    interrupted = Workers(partial(serve, tmp_path), 3, bound).run(on_ready)
    assert interrupted == (stop is signal.SIGINT)
    assert told == ["one of 3"]
    assert living(tmp_path) == []


def test_a_worker_that_is_killed_is_replaced(bound: socket.socket, tmp_path: Path) -> None:
    killed = 0

    def on_ready(_facts: str) -> None:
        nonlocal killed
        killed = dict(living(tmp_path))[1]
        os.kill(killed, signal.SIGKILL)
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    def look(*_: object) -> None:
        if len(living(tmp_path)) == 3:  # both, and what the killed one left
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    Workers(partial(serve, tmp_path), 2, bound).run(on_ready)
    assert living(tmp_path) == [(1, killed)]


def test_siblings_go_on_while_no_process_can_be_forked(
    bound: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that forks others dies where the system has no room, and another takes its place."""
    monkeypatch.setattr(supervisor, "_PAUSE_SECONDS", 0.05)
    before: dict[int, int] = {}
    kept: list[bool] = []
    start, errors = ForkServerProcess.start, [BlockingIOError("no room"), EOFError("unexpected EOF")]

    def start_later(process: ForkServerProcess) -> None:
        if errors:
            raise errors.pop()
        start(process)

    def on_ready(_facts: str) -> None:
        before.update(living(tmp_path))
        monkeypatch.setattr(ForkServerProcess, "start", start_later)
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        for each in (pid, before[1]):
            os.kill(each, signal.SIGKILL)
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    def look(*_: object) -> None:
        now = living(tmp_path)
        if len(now) == 3 or (0, before[0]) not in now:  # both, and what the killed one left
            signal.setitimer(signal.ITIMER_REAL, 0)
            kept.append((0, before[0]) in now)
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        Workers(partial(serve, tmp_path), 2, bound).run(on_ready)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert errors == []
    assert kept == [True]
    assert living(tmp_path) == [(1, before[1])]


def test_a_hangup_is_passed_on_to_every_worker_as_soon_as_it_is_ready(
    bound: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "living").mkdir()
    told, looks = {"0-hangup", "1-hangup"}, iter(range(200))

    def look(*_: object) -> None:
        if {each.name for each in tmp_path.glob("*-hangup")} == told or next(looks, None) is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    def on_ready(_facts: str) -> None:
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    assert not Workers(partial(reread, tmp_path, os.getpid()), 2, bound).run(on_ready)
    assert {each.name for each in tmp_path.glob("*-hangup")} == told
    assert living(tmp_path / "living") == []


def test_why_a_worker_does_not_start_is_told_as_it_is(bound: socket.socket) -> None:
    with pytest.raises(UsageError, match=r"worker \d cannot"):
        Workers(refuse, 2, bound).run(lambda _: None)


def test_a_worker_that_ends_before_it_is_ready_ends_the_start(bound: socket.socket) -> None:
    with pytest.raises(OperatorError, match="ended before it was ready"):
        Workers(die, 1, bound).run(lambda _: None)


def test_workers_end_with_the_process_that_started_them(bound: socket.socket, tmp_path: Path) -> None:
    code = f"import sys; from {served.__name__} import serve_two; serve_two(sys.argv[1])"
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    wait_until(lambda: len(living(tmp_path)) == 2, seconds=60)
    first.kill()
    first.wait()
    wait_until(lambda: living(tmp_path) == [], seconds=20)
