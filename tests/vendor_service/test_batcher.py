"""Batches across callers: whole answers, in order, and nobody pays for a neighbour's failure."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from vendor_service.encoder.batcher import Batcher, Vectors
from vendor_service.errors import Refusal
from vendor_service.metrics import Metrics


class Numbers:
    """A model whose vector of the number n is [n]; it waits on request and fails on negative numbers."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.started = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def images(self, items: Sequence[float]) -> Vectors:
        self.started.set()
        assert self.go.wait(10)
        self.batches.append(list(items))
        if min(items) < 0:
            raise ValueError("negative")
        return np.array(items, dtype=np.float32)[:, None]

    def texts(self, items: Sequence[str]) -> Vectors:
        return self.images([float(each) for each in items])

    def hold(self) -> None:
        self.started.clear()
        self.go.clear()


@pytest.fixture
def model() -> Numbers:
    return Numbers()


@pytest.fixture
def batcher(model: Numbers) -> Iterator[Batcher[float]]:
    batcher = Batcher(model.images, model.texts, max_batch=4, max_waiting=20, observer=Metrics())
    batcher.start()
    yield batcher
    model.go.set()
    batcher.close()


def test_every_caller_gets_its_own_rows(batcher: Batcher[float], model: Numbers) -> None:
    def ask(first: int) -> list[float]:
        (rows,) = batcher.submit([float(first + each) for each in range(7)], [])
        return [float(row[0]) for row in rows.result(10).rows]

    with ThreadPoolExecutor(2) as pool:
        for first, answer in enumerate(pool.map(ask, range(100))):
            assert answer == [first + each for each in range(7)]
    assert max(map(len, model.batches)) <= 4


def test_what_waits_while_the_device_works_becomes_one_batch(batcher: Batcher[float], model: Numbers) -> None:
    model.hold()
    futures = batcher.submit([1.0], [])
    assert model.started.wait(10)
    futures += batcher.submit([2.0], []) + batcher.submit([3.0, 4.0], [])
    model.go.set()
    assert [rows.result(10).rows.tolist() for rows in futures] == [[[1.0]], [[2.0]], [[3.0], [4.0]]]
    assert model.batches == [[1.0], [2.0, 3.0, 4.0]]


def test_the_lanes_take_turns(batcher: Batcher[float], model: Numbers) -> None:
    model.hold()
    futures = batcher.submit([1.0] * 4, [])
    assert model.started.wait(10)
    futures += batcher.submit([2.0] * 12, []) + batcher.submit([], ["9"])
    model.go.set()
    futures[-1].result(10)
    assert model.batches.index([9.0]) <= 2


def test_a_failed_batch_fails_its_callers_alone(batcher: Batcher[float], model: Numbers) -> None:
    model.hold()
    (first,) = batcher.submit([1.0], [])
    assert model.started.wait(10)
    (bad,) = batcher.submit([-1.0, 2.0], [])
    (neighbour,) = batcher.submit([3.0, 4.0], [])
    (later,) = batcher.submit([5.0], [])
    model.go.set()
    assert first.result(10).rows.tolist() == [[1.0]]
    for failed in (bad, neighbour):
        with pytest.raises(ValueError, match="negative"):
            failed.result(10)
    assert later.result(10).rows.tolist() == [[5.0]]


def test_cancelled_queries_never_reach_the_model(batcher: Batcher[float], model: Numbers) -> None:
    model.hold()
    (first,) = batcher.submit([1.0], [])
    assert model.started.wait(10)
    (gone,) = batcher.submit([2.0], [])
    (stays,) = batcher.submit([3.0], [])
    assert gone.cancel()
    assert first.cancel()
    model.go.set()
    assert stays.result(10).rows.tolist() == [[3.0]]
    assert model.batches == [[1.0], [3.0]]
    with pytest.raises(CancelledError):
        first.result(10)


def test_a_full_queue_refuses_and_recovers(batcher: Batcher[float], model: Numbers) -> None:
    model.hold()
    futures = batcher.submit([1.0], [])
    assert model.started.wait(10)
    futures += batcher.submit([2.0] * 15, ["3"] * 5)
    with pytest.raises(Refusal) as refused:
        batcher.submit([], ["4"])
    assert refused.value.code == "overloaded"
    model.go.set()
    for rows in futures:
        rows.result(10)
    batcher.submit([], ["4"])[0].result(10)


def test_closing_answers_what_waits_and_takes_no_more(model: Numbers) -> None:
    batcher: Batcher[float] = Batcher(
        model.images, model.texts, max_batch=4, max_waiting=20, observer=Metrics()
    )
    batcher.start()
    futures = batcher.submit([1.0] * 9, ["2"])
    batcher.close()
    assert [len(rows.result(0).rows) for rows in futures] == [9, 1]
    with pytest.raises(Refusal) as refused:
        batcher.submit([1.0], [])
    assert refused.value.code == "shutting_down"
