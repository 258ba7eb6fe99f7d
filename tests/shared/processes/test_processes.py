"""Work in processes that can be killed: what an input costs is bounded, and costs nobody else anything."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.processes import fork_server
from shared.processes.fork_server import Launched, launch
from shared.processes.pool import PoolSpec
from shared.processes.pools import ProcessPools
from shared.processes.worker import Arena, ArenaLayout, Outcome
from shared.processes.worker import believed as _believed
from tests.shared.processes.scripted_tasks import HeavyTask, Notes, ScriptedTask
from tests.support.vendor_process import alive, below, wait_until
from vendor_service.errors import APIError

TOOK = '"processor_seconds": 1'
LAYOUT = ArenaLayout(slots=4, slot_bytes=16, input_bytes=1 << 20)

linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def processes(notes: Notes) -> Iterator[ProcessPools]:
    """One process, started."""
    made = started(notes, 1)
    yield made
    made.close()


def started(notes: Notes, count: int, spare_bytes: int = 0) -> ProcessPools:
    made = ProcessPools({"image": PoolSpec(count, ScriptedTask(), LAYOUT, spare_bytes)}, notes)
    made.start()
    return made


async def done(processes: ProcessPools, *inputs: bytes, account: str = "a") -> list[str]:
    """What became of inputs: their echo, or the code that they were refused with."""
    return list(map(shown, await processes.submit("image", account, [(each, False) for each in inputs]).done))


def shown(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, APIError) else bytes(outcome).rstrip(b"\0").decode()


def server(processes: ProcessPools) -> int:
    """Which process forks them. A vendor that other tests share may have another, which is none of ours."""
    process = processes._server._process
    assert process is not None
    return process.pid


def worker(processes: ProcessPools) -> int | None:
    """The one process that works on inputs, if it is there."""
    return next(iter(below(server(processes))), None)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(in_time())


def test_what_costs_too_much_is_refused_and_its_neighbours_are_answered(
    processes: ProcessPools, notes: Notes
) -> None:
    async def work() -> None:
        assert await done(processes, b"one", b"spin", b"two", b"spin", b"three", b"crash", b"four") == [
            *("one", "image_too_large", "two", "image_too_large", "three", "invalid_image", "four")
        ]
        assert await done(processes, b"again") == ["again"]

    run(work)
    assert notes.restarts == [("image", "time"), ("image", "time"), ("image", "crash")]


def test_a_task_may_allow_an_input_more_or_less_time(processes: ProcessPools) -> None:
    async def work() -> None:
        assert await done(processes, b"allowed:5", b"allowed:0.1") == ["allowed:5", "image_too_large"]

    run(work)


def test_the_processor_time_of_each_input_is_known_also_of_one_that_was_killed_for_it(
    processes: ProcessPools,
) -> None:
    async def work() -> None:
        inputs = [b"one", b"spin", b"sleep:0.5", b"allowed:5", b"allowed:0.1"]
        job = processes.submit("image", "a", [(each, False) for each in inputs])
        await job.done
        assert [round(each, 1) for each in job.seconds] == [0, 0.3, 0, 0.5, 0.1]

    run(work)


@pytest.mark.parametrize(("told", "believed"), [(0.0, 0.0), (2.5, 2.5), (61.0, 60.0), (-1.0, 60.0)])
def test_processor_time_that_no_process_can_have_taken_is_not_believed(told: float, believed: float) -> None:
    assert _believed(told) == believed
    assert _believed(float("nan")) == _believed(float("inf")) == 60.0


def test_what_takes_no_processor_time_and_never_ends_is_killed_too(
    processes: ProcessPools, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.processes.worker.WALL_SECONDS", 1.0)

    async def work() -> None:
        assert await done(processes, b"sleep:50", b"two") == ["image_too_large", "two"]

    run(work)
    assert notes.restarts == [("image", "time")]


@pytest.mark.parametrize(
    "lie",
    [
        *("[]", "{}", "nonsense", '[{"seconds": 1}]', f'[{{"seconds": "x", {TOOK}}}]'),
        *('[{"seconds": 1, "processor_seconds": "x"}]', f'[{{"seconds": 1, {TOOK}, "code": "no"}}]'),
        *(
            f'[{{"seconds": 1, {TOOK}, "code": "large", "more_bytes": {more}}}]'
            for more in ("-1", "1e9", '"x"')
        ),
    ],
)
def test_a_process_that_lies_is_killed(processes: ProcessPools, notes: Notes, lie: str) -> None:
    async def work() -> None:
        assert await done(processes, b"lie:" + lie.encode(), b"two") == ["invalid_image", "two"]

    run(work)
    assert notes.restarts == [("image", "crash")]


@linux
def test_memory_is_capped(processes: ProcessPools, notes: Notes) -> None:
    async def work() -> None:
        within, beyond = b"eat:%d" % (16 << 20), b"eat:%d" % (200 << 20)
        assert await done(processes, within, beyond, b"on") == [within.decode(), "image_too_large", "on"]

    run(work)
    assert notes.restarts == []


@linux
def test_an_input_whose_process_was_killed_is_tried_once_more(processes: ProcessPools, notes: Notes) -> None:
    async def work() -> None:
        killed = 0
        for kills, expected in ((1, "sleep:5"), (2, "invalid_image")):
            asked = asyncio.ensure_future(done(processes, b"sleep:5", b"two"))
            for _ in range(kills):
                while (found := worker(processes)) in (None, killed):
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                assert found is not None
                os.kill(killed := found, signal.SIGKILL)
            assert await asked == [expected, "two"]

    run(work)
    assert notes.restarts == [("image", "killed")] * 3


@linux
def test_the_server_that_forks_may_die_too(processes: ProcessPools) -> None:
    async def work() -> None:
        assert await done(processes, b"one") == ["one"]
        asked = asyncio.ensure_future(done(processes, b"two", b"sleep:2", b"three"))
        await asyncio.sleep(0.3)
        before = worker(processes)
        assert before is not None
        os.kill(server(processes), signal.SIGKILL)
        assert await asked == ["two", "sleep:2", "three"]
        wait_until(lambda: not alive(before))

    run(work)


def failing(times: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that the system has no descriptors for, so often."""
    left = [OSError(errno.EMFILE, "Too many open files")] * times

    def called(*args: Any) -> Any:
        if left:
            raise left.pop()
        return function(*args)

    return called


@linux
def test_processes_that_the_system_has_no_room_for_come_later(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.processes.pool._PAUSE_SECONDS", 0.05)
    two = started(notes, 2)

    async def work() -> None:
        asked = [asyncio.ensure_future(done(two, b"sleep:0.5", account=name)) for name in "ab"]
        await asyncio.sleep(0.1)
        monkeypatch.setattr(Arena, "make", failing(3, Arena.make))
        for pid in (first := below(server(two))):
            os.kill(pid, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [["sleep:0.5"]] * 2
        while two.living("image") < 2:
            await asyncio.sleep(0.01)
        assert len(first) == 2

    try:
        run(work)
    finally:
        two.close()
    assert notes.restarts == [("image", "killed")] * 2


@linux
def test_a_server_that_cannot_be_started_anew_is_started_later(
    processes: ProcessPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.processes.pools._PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(fork_server, "launch", failing(2, fork_server.launch))

    async def work() -> None:
        assert await done(processes, b"one") == ["one"]
        os.kill(server(processes), signal.SIGKILL)
        while processes.living("image"):
            await asyncio.sleep(0.01)
        assert await done(processes, b"two") == ["two"]

    run(work)


@linux
def test_processes_are_told_what_they_run_by_and_no_secret(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = ("VENDOR_DATABASE_URL", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HTTPS_PROXY")
    for name in (*secret, "OTEL_EXPORTER_OTLP_HEADERS", "A_VARIABLE_OF_TOMORROW"):
        monkeypatch.setenv(name, "hunter2")
    wanted = {"LC_TIME": "C", "MALLOC_ARENA_MAX": "2", "HF_HOME": "/hub", "PYTHONDONTWRITEBYTECODE": "1"}
    wanted["HUGGINGFACE_HUB_CACHE"] = "/hub/cache"
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    made = started(notes, 1)
    try:
        told = Path(f"/proc/{server(made)}/environ").read_text()
    finally:
        made.close()
    variables = dict(each.split("=", 1) for each in told.rstrip("\0").split("\0"))
    assert variables.items() >= {**wanted, "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}.items()
    assert variables["HF_HUB_OFFLINE"] == "1"  # the vendor has fetched what they read
    assert "hunter2" not in variables.values()


class Stopped:
    """Has servers stand still as soon as they are launched, each until it is let go or for 20 seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shared.processes.pools._PAUSE_SECONDS", 0.05)
        monkeypatch.setattr(fork_server, "launch", self._launch_stopped)
        self.pid: int | None = None
        self.let_go = threading.Event()
        self._launch = launch

    def _launch_stopped(self, control: socket.socket) -> Launched:
        process = self._launch(control)
        os.kill(process.pid, signal.SIGSTOP)
        self.pid = process.pid
        threading.Thread(target=self._go_on, args=(process.pid,)).start()
        return process

    def _go_on(self, pid: int) -> None:
        self.let_go.wait(20)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@linux
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
def test_nothing_waits_for_another_server_to_start(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(fork_server, "_STOP_SECONDS", 0.1)
    made = ProcessPools({"image": PoolSpec(1, HeavyTask(), LAYOUT)}, notes)
    made.start()

    async def work() -> None:
        assert await done(made, b"one") == ["one"]
        stopped = Stopped(monkeypatch)
        os.kill(server(made), signal.SIGKILL)
        began = time.monotonic()
        while stopped.pid is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        try:
            assert time.monotonic() - began < 20
            if ends:
                await asyncio.to_thread(made.close)
                assert not alive(stopped.pid)
        finally:
            stopped.let_go.set()
        if not ends:
            assert await done(made, b"two") == ["two"]

    try:
        run(work)
    finally:
        made.close()


def test_accounts_take_turns(processes: ProcessPools) -> None:
    async def work() -> None:
        many = processes.submit("image", "many", [(b"sleep:0.02", False)] * 100)
        assert processes.waiting("image") == 99  # of those in the process's hands, it works on one
        await asyncio.sleep(0)
        for _ in range(3):
            before = many.left
            assert await done(processes, b"one", account="few") == ["one"]
            assert before - many.left <= 2 * LAYOUT.slots
        assert many.left > 60
        processes.drop("image", many)

    run(work)


def test_the_background_waits_for_all_others(processes: ProcessPools) -> None:
    async def work() -> None:
        # They take long, so that hardly any is done before this goes on, however late that is.
        late = processes.submit("image", "many", [(b"sleep:0.3", False)] * 40, background=True)
        inputs = [(b"sleep:0.02", False)] * 40
        soon = [processes.submit("image", name, inputs) for name in ("many", "few")]
        await asyncio.gather(*(each.done for each in soon))
        assert late.left >= 38  # but for what a process had in hand
        processes.drop("image", late)
        assert processes.waiting("image") <= 2
        assert await done(processes, b"next") == ["next"]

    run(work)


def test_who_has_gone_is_dropped_from_the_queue(processes: ProcessPools) -> None:
    async def work() -> None:
        asked = asyncio.ensure_future(waiting())
        await asyncio.sleep(0.1)
        assert processes.waiting("image") > 90
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert processes.waiting("image") == 0
        assert await done(processes, b"next") == ["next"]

    async def waiting() -> None:
        job = processes.submit("image", "a", [(b"sleep:0.1", False)] * 100)
        try:
            await job.done
        finally:
            processes.drop("image", job)

    run(work)


def test_large_inputs_that_do_not_fit_beside_each_other_come_one_at_a_time_and_keep_small_ones_from_nothing(
    notes: Notes,
) -> None:
    three = started(notes, 3)  # of which two would take a long one each

    async def work() -> None:
        began = time.monotonic()
        large = [asyncio.ensure_future(done(three, b"large:0.1+1", account=name)) for name in "abcd"]
        small = [asyncio.ensure_future(done(three, b"small", account=name)) for name in "efgh"]
        assert await asyncio.gather(*large, *small) == [["large:0.1+1"]] * 4 + [["small"]] * 4
        assert time.monotonic() - began >= 0.4

    try:
        run(work)
    finally:
        three.close()


def test_large_inputs_come_at_once_as_far_as_they_fit_beside_each_other(notes: Notes) -> None:
    four = started(notes, 4, spare_bytes=10)  # of which three would take a large one each
    pool = four._pools["image"]

    async def work() -> None:
        jobs = [four.submit("image", name, [(b"large:50+4", False)]) for name in "abc"]
        while sum(bool(each.chunk) for each in pool._workers.values()) != 2 or pool.waiting != 1:
            await asyncio.sleep(0.01)
        assert await done(four, b"small", account="d") == ["small"]
        assert pool.waiting == 1
        for each in jobs:
            four.drop("image", each)

    try:
        run(work)
    finally:
        four.close()


def test_a_large_input_for_which_there_is_never_enough_comes_alone(notes: Notes) -> None:
    three = started(notes, 3, spare_bytes=10)

    async def work() -> None:
        began = time.monotonic()
        inputs = [b"large:0.2+11", b"large:0.2+1", b"large:0.2+1"]
        large = [asyncio.ensure_future(done(three, each, account=str(n))) for n, each in enumerate(inputs)]
        assert await asyncio.gather(*large) == [[each.decode()] for each in inputs]
        assert time.monotonic() - began >= 0.4

    try:
        run(work)
    finally:
        three.close()


def test_long_inputs_leave_a_process_to_the_others(notes: Notes) -> None:
    two = started(notes, 2)

    async def work() -> None:
        long = [asyncio.ensure_future(done(two, b"long:1.5", account=name)) for name in "ab"]
        await asyncio.sleep(0.2)
        assert await done(two, b"small", account="c") == ["small"]
        assert not any(each.done() for each in long)
        assert await asyncio.gather(*long) == [["long:1.5"]] * 2

    try:
        run(work)
    finally:
        two.close()


def test_what_is_not_done_when_they_end_is_refused(notes: Notes) -> None:
    made = started(notes, 1)

    async def work() -> None:
        asked = asyncio.ensure_future(done(made, b"sleep:5", b"two"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(made.close)
        assert await asked == ["shutting_down"] * 2
        with pytest.raises(APIError, match="stopping"):
            await done(made, b"late")

    run(work)


START = """
import asyncio, sys
from tests.support.vendor_process import below
from tests.shared.processes.test_processes import done, started
from tests.shared.processes.scripted_tasks import Notes
import os
processes = started(Notes(), 2)
async def work():
    await done(processes, b"one")
    busy = asyncio.ensure_future(done(processes, b"sleep:600"))
    await asyncio.sleep(0.2)
    print(*below(os.getpid()), flush=True)
    await busy
asyncio.run(work())
"""


@linux
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_they_end_with_the_process_that_started_them_and_leave_nothing(stop: signal.Signals) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert first.stdout is not None
    with first.stdout as told:
        pids = [int(pid) for pid in told.readline().split()]
    assert len(pids) == 3
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
    assert sum("/memfd:" in each for each in maps) == 2  # memory without a name, gone with who has it
    assert not any("/dev/shm" in each for each in maps)
    for pid in pids:  # as Ctrl-C and a container's end reach every process
        for sent in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, sent)
    time.sleep(0.2)
    assert all(map(alive, pids))
    first.send_signal(stop)
    first.wait()
    wait_until(lambda: not any(map(alive, pids)))
