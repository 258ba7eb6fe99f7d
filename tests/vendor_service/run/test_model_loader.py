"""The model loader by itself: what it does when it is interrupted, and what it looks at."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.vendor_service.given_settings import GivenSettings
from vendor_service.clock import system_clock
from vendor_service.encoder.encoder import Encoder
from vendor_service.metrics import Metrics
from vendor_service.run.model_loader import ModelLoader
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.settings import DtypeChoice, Settings


async def _check() -> None: ...


ACTS: dict[str, Any] = {"start": lambda: None, "close": lambda: None, "check": _check}


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
        exchanging = asyncio.ensure_future(loader.exchange(find_specs(settings), lambda _: None))
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


_STOPPED_WHILE_LOADING = """
import asyncio, threading, time
from vendor_service.run import model_loader
from vendor_service.run.threads import make_apart

began = threading.Event()

def load():
    began.set()
    time.sleep(600)

async def stop():
    loading = asyncio.ensure_future(model_loader._apart(lambda: make_apart(load)))
    await asyncio.to_thread(began.wait)
    loading.cancel()

asyncio.run(stop())
print("stopped")
model_loader.end_while_loading(7)
"""


def test_a_process_ends_though_a_model_is_being_loaded() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _STOPPED_WHILE_LOADING], timeout=120, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (7, b"stopped\n")


@pytest.mark.parametrize(("dtype", "anew"), [("int8", True), ("float32", False)])
def test_a_model_in_eight_bits_is_loaded_anew_when_its_calibration_images_change(
    tmp_path: Path, dtype: DtypeChoice, anew: bool
) -> None:
    image = tmp_path / "deeper" / "one.PNG"
    image.parent.mkdir()
    image.touch()
    file = tmp_path / "models.toml"
    said = f'dtype = "{dtype}"\ncalibration = "{tmp_path}"'
    file.write_text(f'[[model]]\nid = "icon-clip"\nsource = "icon-clip"\ndefault = true\n{said}\n')
    settings = GivenSettings(models=file)
    (spec,) = find_specs(settings)

    def make(spec: ModelSpec, _settings: Settings, _metrics: Metrics) -> Encoder:
        made.append(spec.id)
        facts = SimpleNamespace(id=spec.id, fingerprint="fp", dtype="int8", devices=())
        return cast(Encoder, SimpleNamespace(facts=facts, preparation=None, waiting=lambda _: 0, **ACTS))

    made: list[str] = []
    loader = ModelLoader([spec], settings, Metrics(), make, system_clock, exchanges=True)
    asyncio.run(loader.exchange([spec], lambda _: None))
    assert len(made) == 1
    image.write_bytes(b"another image")
    asyncio.run(loader.exchange([spec], lambda _: None))
    assert len(made) == 1 + anew
