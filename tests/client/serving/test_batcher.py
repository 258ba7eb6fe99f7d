"""The batcher: batches across requests, turns among accounts, and a student that fails."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.data.images import Pixels
from client.serving import batcher as batcher_module
from client.serving import decoding
from client.serving.batcher import Batcher
from client.serving.decoding import ImageDecoder, Squeezing
from client.serving.metrics import Metrics
from shared.errors import APIError
from shared.images.limits import ImageLimits
from shared.processes import fork_server
from tests.support.forking import launch_decoding

T = TypeVar("T")
SIDE = 8


def shade(value: int) -> bytes:
    """A picture of one shade of grey."""
    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


class Reader:
    """Answers each picture with its shade; it waits for `go`, and fails on white ones."""

    classes = ("shade",)
    side = SIDE

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        shades = [int(each[0, 0, 0]) for each in pixels]
        self.batches.append(shades)
        self.started.release()
        assert self.go.wait(20)
        if 255 in shades:
            raise RuntimeError("the student is broken")
        return np.array(shades, np.float32)[:, None]


def run(work: Callable[[Batcher], Awaitable[T]], student: Reader, metrics: Metrics | None = None) -> T:
    """Do something with a batcher of one thread."""

    async def do(metrics: Metrics) -> T:
        decoder = ImageDecoder(SIDE, ImageLimits(2**20, 10**6), 1, metrics)
        batcher = Batcher(student, decoder, metrics, threads=1)
        await batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 30)
        finally:
            student.go.set()
            await batcher.close()

    with patch.object(fork_server, "launch", launch_decoding):
        return asyncio.run(do(metrics or Metrics()))


async def _busy(batcher: Batcher, student: Reader) -> "asyncio.Task[list[NDArray[np.float32] | APIError]]":
    """A request that the student is at, until it may go on."""
    student.go.clear()
    first = asyncio.create_task(batcher.probabilities("first", [shade(1)]))
    await asyncio.to_thread(student.started.acquire)
    return first


async def _until(batcher: Batcher, waiting: int) -> None:
    while batcher.waiting != waiting:
        await asyncio.sleep(0.01)


def test_what_comes_while_the_student_works_is_its_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "_BATCH_SECONDS", 60.0)  # it is slow here
    student = Reader()

    async def work(batcher: Batcher) -> None:
        first = await _busy(batcher, student)
        others = [asyncio.create_task(batcher.probabilities("a", [shade(v)])) for v in (2, 3, 4)]
        await _until(batcher, 3)
        student.go.set()
        assert [row[0] for row in await first if not isinstance(row, APIError)] == [1]
        assert [float(row[0]) for (row,) in await asyncio.gather(*others)] == [2, 3, 4]  # type: ignore[index]

    run(work, student)
    assert [sorted(batch) for batch in student.batches] == [[1], [2, 3, 4]]


def test_one_with_many_images_does_not_keep_others_waiting() -> None:
    student = Reader()

    async def work(batcher: Batcher) -> None:
        first = await _busy(batcher, student)
        many = asyncio.create_task(batcher.probabilities("many", [shade(2)] * 1000))
        await _until(batcher, 1000)
        one = asyncio.create_task(batcher.probabilities("one", [shade(3)]))
        await _until(batcher, 1001)
        student.go.set()
        await asyncio.gather(first, many, one)

    run(work, student)
    (found,) = [number for number, batch in enumerate(student.batches) if 3 in batch]
    assert found <= 4 < len(student.batches)


def test_a_student_that_fails_fails_its_batch_and_no_other() -> None:
    student = Reader()

    async def work(batcher: Batcher) -> None:
        with pytest.raises(APIError) as failed:
            await batcher.probabilities("a", [shade(255)])
        assert failed.value.code == "internal_error"
        assert "broken" not in failed.value.message
        (row,) = await batcher.probabilities("a", [shade(7)])
        assert not isinstance(row, APIError)
        assert row[0] == 7

    run(work, student)


class _Hostile(Squeezing):
    """Does to its process what a flaw of a decoder might, by the shade of the picture."""

    def pixels(self, image: Image.Image) -> Pixels:
        shade = image.convert("L").getpixel((0, 0))
        if shade == 101:
            os.abort()
        while shade == 102:
            pass
        if shade == 103:
            bytearray(1 << 40)
        return super().pixels(image)


def test_a_decoder_that_crashes_hangs_or_eats_memory_costs_its_image_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "Squeezing", _Hostile)
    metrics = Metrics()

    async def work(batcher: Batcher) -> list[object]:
        own = batcher.probabilities("a", [shade(value) for value in (1, 101, 2, 102, 3, 103, 4)])
        other = batcher.probabilities("b", [shade(5)] * 3)
        rows = [*await own, *await other, *await batcher.probabilities("a", [shade(6)])]
        return [row.code if isinstance(row, APIError) else row[0] for row in rows]

    found = run(work, Reader(), metrics)
    assert found == [1, "invalid_image", 2, "image_too_large", 3, "image_too_large", 4, 5, 5, 5, 6]
    for reason in ("crash", "time"):
        assert f'tuition_preparation_restarts_total{{reason="{reason}"}} 1.0' in metrics.render()[0].decode()


def test_nothing_is_done_for_who_has_gone() -> None:
    student = Reader()

    async def work(batcher: Batcher) -> None:
        first = await _busy(batcher, student)
        gone = asyncio.create_task(batcher.probabilities("a", [shade(9)] * 5))
        await _until(batcher, 5)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        student.go.set()
        await first
        await batcher.probabilities("a", [shade(2)])

    run(work, student)
    assert student.batches == [[1], [2]]
