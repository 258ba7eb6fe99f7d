"""The model loader by itself: what it does when it is interrupted, and what it looks at."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.vendor_service.local_vendor import GivenSettings
from vendor_service.clock import system_clock
from vendor_service.encoder.encoder import Encoder
from vendor_service.observability.metrics import Metrics
from vendor_service.serving.model_loader import ModelLoader
from vendor_service.serving.model_specs import ModelSpec, find_specs
from vendor_service.settings import Settings


class Slow:
    """Makes no encoder, and takes its time for that."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()

    def __call__(self, _spec: ModelSpec, _settings: Settings, _metrics: Metrics) -> Encoder:
        self.began.set()
        self.go.wait(20)
        self.ended.set()
        raise RuntimeError("nobody waits for this")


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.go.set()


def test_who_stops_while_a_model_is_loaded_does_not_wait_for_it(slow: Slow) -> None:
    settings = GivenSettings()
    loader = ModelLoader([], settings, Metrics(), slow, system_clock, exchanges=True)

    async def stop() -> None:
        exchanging = asyncio.ensure_future(loader.exchange(find_specs(settings), lambda: None))
        assert await asyncio.to_thread(slow.began.wait, 20)
        exchanging.cancel()
        await asyncio.gather(exchanging, return_exceptions=True)

    asyncio.run(stop())
    assert not slow.ended.is_set()
    slow.go.set()
    for thread in threading.enumerate():
        if thread.name == "loading":
            thread.join(20)  # what it has made or met is nobody's, and no error
    assert slow.ended.is_set()
