"""The batcher: batches across requests, turns among accounts, and a student that fails."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.data.images import Pixels
from client.serving.batcher import Batcher
from client.serving.decoding import ImageDecoder
from client.serving.metrics import Metrics
from shared.errors import APIError

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


def run(work: Callable[[Batcher], Awaitable[T]], student: Reader) -> T:
    """Do something with a batcher of one thread."""

    async def do() -> T:
        batcher = Batcher(student, ImageDecoder(SIDE, 2**20), Metrics(), threads=1)
        batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 30)
        finally:
            student.go.set()
            await asyncio.to_thread(batcher.close)

    return asyncio.run(do())


async def _busy(batcher: Batcher, student: Reader) -> "asyncio.Task[list[NDArray[np.float32] | APIError]]":
    """A request that the student is at, until it may go on."""
    student.go.clear()
    first = asyncio.create_task(batcher.probabilities("first", [shade(1)]))
    await asyncio.to_thread(student.started.acquire)
    return first


async def _until(batcher: Batcher, waiting: int) -> None:
    while batcher.waiting != waiting:
        await asyncio.sleep(0.01)


def test_what_comes_while_the_student_works_is_its_next_batch() -> None:
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
