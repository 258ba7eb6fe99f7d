"""The number of requests in flight settles where more would not help, and falls when the vendor says so."""

import heapq
import threading

import pytest

from client.purchase.concurrency import LARGEST, START, ConcurrencyLimiter

BATCH_SIZE = 32


class Simulation:
    """A vendor that takes `latency` seconds for a request and serves `slots` of them at once."""

    def __init__(self, latency: float, slots: int) -> None:
        self.now = 0.0
        self.limiter = ConcurrencyLimiter(clock=lambda: self.now)
        self._latency = latency
        self._free = [0.0] * slots
        self._in_flight: list[float] = []
        self.limits: list[int] = []

    def run(self, answers: int) -> None:
        for _ in range(answers):
            while len(self._in_flight) < self.limiter.limit:
                assert self.limiter.acquire()
                begins = max(self.now, heapq.heappop(self._free))
                heapq.heappush(self._free, begins + self._latency)
                heapq.heappush(self._in_flight, begins + self._latency)
            self.now = heapq.heappop(self._in_flight)
            self.limiter.release(BATCH_SIZE)
            self.limits.append(self.limiter.limit)


@pytest.mark.parametrize(("slots", "least", "most"), [(1, 1, 6), (6, 6, 9), (12, 12, 16), (64, 16, 16)])
def test_it_settles_where_more_would_not_help(slots: int, least: int, most: int) -> None:
    simulation = Simulation(0.1, slots)
    simulation.run(3000)
    settled = simulation.limits[1000:]
    assert least <= sorted(settled)[len(settled) // 2] <= most
    assert max(settled) <= LARGEST


def test_it_halves_once_for_refusals_that_come_together() -> None:
    simulation = Simulation(0.1, 64)
    simulation.run(1000)
    for _ in range(5):
        simulation.limiter.push_back()
    assert simulation.limiter.limit == LARGEST // 2
    for _ in range(9):
        simulation.now += 2
        simulation.limiter.push_back()
    assert simulation.limiter.limit == 1
    simulation._in_flight.clear()
    simulation.limiter._active = 0
    simulation.run(1000)
    assert simulation.limiter.limit == LARGEST


def test_no_more_are_in_flight_than_the_limit_and_nobody_waits_after_the_end() -> None:
    limiter = ConcurrencyLimiter()
    for _ in range(START):
        assert limiter.acquire()
    entered: list[bool] = []
    waiting = threading.Thread(target=lambda: entered.append(limiter.acquire()))
    waiting.start()
    waiting.join(0.05)
    assert not entered
    limiter.release(BATCH_SIZE)
    waiting.join(5)
    assert entered == [True]
    late = threading.Thread(target=lambda: entered.append(limiter.acquire()))
    late.start()
    limiter.stop()
    late.join(5)
    assert entered == [True, False]
