"""What a model is believed while its canary waits its turn."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import pytest

from vendor_service.encoder.encoder import Encoder
from vendor_service.http import health
from vendor_service.http.health import _Canary


class Queued:
    """A model whose canaries wait until they are let `go`, and that fails where it is to."""

    facts = SimpleNamespace(id="large")

    def __init__(self) -> None:
        self.deaths = 0
        self.answered_at = -math.inf
        self.asked = 0
        self.fails = False
        self.go = asyncio.Event()

    async def check(self) -> None:
        self.asked += 1
        await self.go.wait()
        if self.fails:
            raise ValueError("it is broken")


class Clock:
    """The moment that the canaries read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(work: Callable[[Queued, _Canary], Awaitable[None]]) -> None:
    """Do it with a model that has answered its first canary, and holds the next one up."""

    async def in_time() -> None:
        model = Queued()
        canary = _Canary(cast(Encoder, model))
        async with asyncio.timeout(20):
            model.go.set()
            await canary.ask()
            model.go.clear()
            await work(model, canary)

    asyncio.run(in_time())


async def settled() -> None:
    """Let all that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def waits(canary: _Canary) -> "asyncio.Future[None]":
    """Somebody who asks, after making sure that there is no answer yet."""
    asking = asyncio.ensure_future(canary.ask())
    await settled()
    assert not asking.done()
    return asking


def test_a_batch_that_was_answered_speaks_for_a_model_whose_canary_waits(clock: Clock) -> None:
    async def work(model: Queued, canary: _Canary) -> None:
        for _ in range(4):
            clock.now += 10.5
            model.answered_at = clock.now - 6.4
            await canary.ask()
            await settled()
            assert model.asked == 2  # the one that waits is the same
        clock.now += 30
        model.answered_at = clock.now
        asking = await waits(canary)  # it should have come by now
        model.go.set()
        await asking

    run(work)


def test_an_answer_of_long_ago_or_from_before_a_death_says_nothing(clock: Clock) -> None:
    async def work(model: Queued, canary: _Canary) -> None:
        clock.now += 10.5
        model.answered_at = clock.now - 10.1
        asking = await waits(canary)
        model.go.set()
        await asking
        model.go.clear()
        model.deaths += 1
        model.answered_at = clock.now
        asking = await waits(canary)
        model.go.set()
        await asking

    run(work)


def test_once_a_canary_has_failed_the_next_one_is_waited_for(clock: Clock) -> None:
    async def work(model: Queued, canary: _Canary) -> None:
        clock.now += 10.5
        model.answered_at = clock.now
        await canary.ask()
        model.fails = True
        model.go.set()
        await settled()
        with pytest.raises(RuntimeError, match="it is broken"):
            await canary.ask()
        assert model.asked == 3
        model.fails = False
        await canary.ask()

    run(work)
