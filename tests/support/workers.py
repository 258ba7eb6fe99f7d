"""`pytest --workers N`: the tests in N processes that are forked once all tests are collected.

What takes long at the start (imports, collecting, the server of forks) happens once, so a further process
costs next to nothing. There may be more of them than processors: tests wait as much as they compute. The
tests of a module run in one process, which shares its fixtures. A process stays with the modules of one
folder, which share more (a served student, a PostgreSQL), while there are some; then it helps where most is
left. The modules that took longest last time, or are marked as long, begin.
"""

import os
import signal
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing import forkserver
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

import pytest

_SECONDS = "tuition/seconds"  # in pytest's cache: how long each module took
_UNKNOWN_SECONDS, _LONG_SECONDS = 0.2, 60.0  # of a test


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in several processes where that is asked for."""
    workers = session.config.getoption("--workers")
    if workers < 2 or session.config.option.collectonly or session.testsfailed:
        return None
    _Run(session, workers).run()
    return True


@dataclass
class _Worker:
    """A process, what it was given to do, and what it is at.

    Attributes:
        folder: where the tests are that it was given last.
        todo: places of tests that are given to it and not begun.
        at: the place of the test that it is at.
    """

    number: int
    pid: int
    connection: "Connection[Any, Any]"
    folder: str = ""
    todo: deque[int] = field(default_factory=deque)
    at: int | None = None


@dataclass(frozen=True)
class _Module:
    """A module's tests by their places, and how long they are expected to take."""

    folder: str
    places: list[int]
    seconds: float


def start_server_of_forks() -> None:
    """Have the server of forks (`tests.support.forking`) import what it needs; the processes share it."""
    forkserver.ensure_running()


class _Run:
    """Gives modules to processes, and tells pytest what they report."""

    def __init__(self, session: pytest.Session, workers: int) -> None:
        self._session = session
        self._config = session.config
        self._modules = _modules_of(session)
        self._workers = min(workers, len(self._modules))
        self._numbers = iter(range(10**6))
        self._running: dict[Connection[Any, Any], _Worker] = {}
        self._seconds: dict[str, float] = {}

    def run(self) -> None:
        """Return when all tests have run, or raise what pytest has a run end with."""
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.showfspath = False  # the tests of many modules come at once
        self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        start_server_of_forks()
        sys.stdout.flush()
        try:
            for _ in range(self._workers):
                self._fork()
            while self._running:
                for connection in wait(list(self._running)):
                    self._hear(self._running[connection])  # type: ignore[index]
                if self._session.shouldfail:
                    raise self._session.Failed(self._session.shouldfail)
                if self._session.shouldstop:
                    raise self._session.Interrupted(self._session.shouldstop)
        finally:
            self._end()
        self._remember()

    def _hear(self, worker: _Worker) -> None:
        what, *told = _received(worker.connection)
        if what == "gone":
            self._bury(worker)
        elif what == "more":
            given = self._next(worker)
            worker.todo.extend(given)
            worker.connection.send(given)
        elif what == "begins":
            worker.at = worker.todo.popleft()
        else:
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=told[0])
            self._tell(worker, report)

    def _next(self, worker: _Worker) -> list[int]:
        """The longest module of a process's folder, or of the one in which most is left for each process."""
        if not self._modules:
            return []
        there = Counter(each.folder for each in self._running.values())
        left: dict[str, float] = {}
        for each in self._modules:
            left[each.folder] = left.get(each.folder, 0.0) + each.seconds
        if worker.folder not in left:
            worker.folder = max(left, key=lambda folder: left[folder] / (1 + there[folder]))
        mine = [each for each in self._modules if each.folder == worker.folder]
        found = max(mine, key=lambda each: each.seconds)
        self._modules.remove(found)
        return found.places

    def _tell(self, worker: _Worker, report: Any) -> None:
        module = report.nodeid.partition("::")[0]
        self._seconds[module] = self._seconds.get(module, 0.0) + report.duration
        self._config.hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            worker.at = None
            self._config.hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def _bury(self, worker: _Worker) -> None:
        """Fail the test that a process died of, and have another one do the rest."""
        del self._running[worker.connection]
        _, status = os.waitpid(worker.pid, 0)
        if worker.at is not None:
            item = self._session.items[worker.at]
            call = pytest.CallInfo.from_call(lambda: _died(os.waitstatus_to_exitcode(status)), "call")
            self._tell(worker, pytest.TestReport.from_item_and_call(item, call))
        if worker.todo:
            self._modules.append(_Module(worker.folder, list(worker.todo), _LONG_SECONDS))
        if worker.at is not None and self._modules:
            self._fork()

    def _fork(self) -> None:
        number = next(self._numbers)
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            for connection in (ours, *self._running):
                connection.close()
            _work(self._session, theirs, number)
        theirs.close()
        self._running[ours] = _Worker(number, pid, ours)

    def _end(self) -> None:
        """Have those that still run, as when something is wrong, tear down what they have set up."""
        for worker in self._running.values():
            worker.connection.close()
            os.kill(worker.pid, signal.SIGINT)
        for worker in self._running.values():
            os.waitpid(worker.pid, 0)
        self._running.clear()

    def _remember(self) -> None:
        cache = self._config.cache
        if cache is not None:
            cache.set(_SECONDS, cache.get(_SECONDS, {}) | self._seconds)


def _received(connection: "Connection[Any, Any]") -> tuple[Any, ...]:
    try:
        told: tuple[Any, ...] = connection.recv()
    except (EOFError, OSError):
        return ("gone",)
    return told


def _modules_of(session: pytest.Session) -> list[_Module]:
    cache = session.config.cache
    known = {} if cache is None else cache.get(_SECONDS, {})
    modules = []
    places = enumerate(session.items)
    for name, group in groupby(places, key=lambda each: each[1].nodeid.partition("::")[0]):
        tests = list(group)
        long = sum(item.get_closest_marker("long") is not None for _, item in tests)
        guess = long * _LONG_SECONDS + (len(tests) - long) * _UNKNOWN_SECONDS
        folder = name.rpartition("/")[0]
        modules.append(_Module(folder, [place for place, _ in tests], float(known.get(name, guess))))
    return modules


def _died(code: int) -> NoReturn:
    raise RuntimeError(f"the process of the tests ended with {code}")


def _work(session: pytest.Session, connection: "Connection[Any, Any]", number: int) -> NoReturn:
    """Run what is given, in a process of its own, and end it."""
    code = 1
    try:
        _settle(session.config, connection, number)
        try:
            _run_all(session, connection)
            code = 0
        except (KeyboardInterrupt, EOFError, OSError):  # nobody wants to hear any more
            session._setupstate.teardown_exact(None)
    finally:
        os._exit(code)


def _settle(config: pytest.Config, connection: "Connection[Any, Any]", number: int) -> None:
    """Give a process what it must not share: what it captures, its folder, and whom it reports to."""
    plugins = config.pluginmanager
    capturing = plugins.getplugin("capturemanager")
    if capturing is not None:
        capturing.stop_global_capturing()
        capturing.start_global_capturing()
        capturing.suspend_global_capture()
    folders: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    folders._basetemp = folders.getbasetemp() / f"w{number}"
    folders._basetemp.mkdir()
    # The server of forks is the child of the process that was forked from, which this one may not wait for.
    server: Any = forkserver._forkserver
    server.ensure_running = lambda: None
    plugins.unregister(name="terminalreporter")
    plugins.register(_Reporter(config, connection))


class _Reporter:
    """Sends reports to the process that tells pytest."""

    def __init__(self, config: pytest.Config, connection: "Connection[Any, Any]") -> None:
        self._config = config
        self._connection = connection

    def pytest_runtest_logstart(self) -> None:
        """A test begins."""
        self._connection.send(("begins",))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test is over."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", data))


def _run_all(session: pytest.Session, connection: "Connection[Any, Any]") -> None:
    """Run modules as long as some are given; the next one is known before the last test of one ends."""
    todo: deque[int] = deque()

    def ask() -> None:
        connection.send(("more",))
        todo.extend(connection.recv())

    ask()
    while todo:
        item = session.items[todo.popleft()]
        if not todo:
            ask()
        following = session.items[todo[0]] if todo else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
