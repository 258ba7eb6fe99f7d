"""The queue of inputs that wait to be prepared."""

import sys
import threading
from asyncio import new_event_loop
from collections.abc import Iterator

import pytest

from vendor_service.encoder.processes.inputs import Input, InputJob, InputQueue


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_another_thread_may_ask_how_many_wait_while_accounts_come_and_go() -> None:
    loop = new_event_loop()
    jobs = [InputJob(f"account {number}", loop.create_future(), [None]) for number in range(300)]
    queue = InputQueue()
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for job in jobs:
                queue.put([Input(job, 0, b"")])
            for job in jobs:
                queue.drop(job)

    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        assert all(0 <= queue.waiting <= len(jobs) for _ in range(2000))
    finally:
        over.set()
        coming.join()
        loop.close()
