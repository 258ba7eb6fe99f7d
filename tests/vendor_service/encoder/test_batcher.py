"""Batches across callers: whole answers, in order, fair, and nobody pays for a neighbour's failure."""

import gc
import heapq
import math
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from shared.embeddings import Kind
from tests.support.vendor_process import wait_until
from tests.vendor_service.encoder.running_batcher import RunningBatcher
from vendor_service.encoder import batcher as batcher_module
from vendor_service.encoder.batcher import Batch, Batcher
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.replica import Buckets, Replica
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics

BUCKETS = Buckets([1, 2, 3, 4], pads=False)


class Numbers:
    """A model whose vector of the number n is [n]; it waits on request, fails on -1 and dies of -2."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.staged: list[list[float]] = []
        self.started = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def stage(self, kind: Kind, items: Sequence[Any]) -> list[float]:
        self.staged.append([float(each) for each in items])
        return self.staged[-1]

    def encode(self, kind: Kind, staged: list[float]) -> Vectors:
        self.started.set()
        assert self.go.wait(10)
        self.batches.append(staged)
        if -1 in staged:
            raise ValueError("negative")
        if -2 in staged:
            raise SystemExit
        return np.array(staged, dtype=np.float32)[:, None]

    def hold(self) -> None:
        self.started.clear()
        self.go.clear()


@pytest.fixture
def model() -> Numbers:
    return Numbers()


@pytest.fixture
def batcher(model: Numbers) -> Iterator[RunningBatcher]:
    batcher = RunningBatcher([model], BUCKETS, Metrics(), pause_seconds=0.2)
    batcher.start()
    yield batcher
    model.go.set()
    batcher.close()


def test_what_is_closed_keeps_no_model_in_memory() -> None:
    model = Numbers()
    batcher, kept = RunningBatcher([model, model], BUCKETS, Metrics()), weakref.ref(model)
    batcher.start()
    batcher.submit("a", "text", [1]).result(10)
    gc.disable()  # a server's collector leaves alone what it began with
    try:
        batcher.close()
        del batcher, model
        assert kept() is None
    finally:
        gc.enable()


def test_every_caller_gets_its_own_rows(model: Numbers) -> None:
    batcher = RunningBatcher([model, model], BUCKETS, Metrics())  # two devices may share one caller's queries
    batcher.start()

    def ask(first: int) -> list[float]:
        rows = batcher.submit(str(first % 3), "image", [float(first + each) for each in range(7)])
        return [float(row[0]) for row in rows.result(10).rows]

    with ThreadPoolExecutor(4) as pool:
        for first, answer in enumerate(pool.map(ask, range(100))):
            assert answer == [first + each for each in range(7)]
    batcher.close()
    assert max(map(len, model.batches)) <= 4


def test_it_tells_when_it_last_answered(batcher: RunningBatcher) -> None:
    assert batcher.answered_at == -math.inf
    began = time.monotonic()
    batcher.submit("a", "image", [1.0]).result(10)
    wait_until(lambda: began <= batcher.answered_at <= time.monotonic())
    first = batcher.answered_at
    with pytest.raises(ValueError, match="negative"):
        batcher.submit("a", "image", [-1.0]).result(10)
    assert batcher.answered_at == first


def test_what_waits_while_the_device_works_becomes_one_batch(batcher: RunningBatcher, model: Numbers) -> None:
    model.hold()
    futures = [batcher.submit("a", "image", [1.0])]
    assert model.started.wait(10)
    futures += [batcher.submit("a", "image", items) for items in ([2.0], [3.0, 4.0])]
    model.go.set()
    assert [rows.result(10).rows.tolist() for rows in futures] == [[[1.0]], [[2.0]], [[3.0], [4.0]]]
    assert model.batches == [[1.0], [2.0, 3.0, 4.0]]


def test_a_full_batch_is_prepared_while_the_device_works(batcher: RunningBatcher, model: Numbers) -> None:
    model.hold()
    (first, full, rest) = (batcher.submit("a", "image", [each] * 4) for each in (1.0, 2.0, 3.0))
    assert model.started.wait(10)
    wait_until(lambda: len(model.staged) >= 2)
    model.go.set()
    for each in (first, full, rest):
        each.result(10)
    assert model.batches == model.staged


def test_the_lanes_take_turns_even_when_one_is_always_full(batcher: RunningBatcher, model: Numbers) -> None:
    model.hold()
    batcher.submit("a", "image", [1.0] * 4)
    assert model.started.wait(10)
    batcher.submit("a", "image", [2.0] * 40)
    text = batcher.submit("b", "text", ["9"])
    model.go.set()
    text.result(10)
    assert model.batches.index([9.0]) <= 2


def test_what_is_too_little_for_a_second_device_is_not_passed_over_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both devices always find enough images, so that neither ever waits, and one text is no pass's worth."""

    def slowly(kind: Kind, staged: list[float]) -> Vectors:
        time.sleep(0.01)
        return Numbers.encode(models[0], kind, staged)

    models = [Numbers(), Numbers()]
    for each in models:
        monkeypatch.setattr(each, "encode", slowly)
    batcher = RunningBatcher(models, Buckets([1, 2, 4], pads=False, least=2), Metrics())
    batcher.start()
    images = batcher.submit("a", "image", [1.0] * 8000)  # twenty seconds of both
    try:
        wait_until(lambda: batcher.waiting("image") < 7900)
        assert batcher.submit("b", "text", ["9"]).result(5).rows.tolist() == [[9.0]]
        assert batcher.waiting("image")
    finally:
        images.cancel()
        batcher.close()


def test_accounts_share_a_batch_evenly(batcher: RunningBatcher, model: Numbers) -> None:
    model.hold()
    batcher.submit("first", "image", [0.0])
    assert model.started.wait(10)
    futures = [batcher.submit("rich", "image", [1.0] * 100), batcher.submit("rich", "image", [1.0] * 100)]
    futures += [
        batcher.submit(account, "image", [number] * 2) for account, number in (("b", 2.0), ("c", 3.0))
    ]
    model.go.set()
    for each in futures:
        each.result(10)
    # One batch may have been prepared before the others came; the next two are shared.
    shared = [sorted(batch) for batch in model.batches if 2.0 in batch or 3.0 in batch]
    assert shared == [[1, 1, 2, 3], [1, 1, 2, 3]]
    assert max(number for number, batch in enumerate(model.batches) if 2.0 in batch) <= 3


def test_batches_have_the_sizes_of_buckets(model: Numbers) -> None:
    batcher = RunningBatcher([model], Buckets([1, 2, 4], pads=False), Metrics())
    futures = [batcher.submit("a", "image", [float(each)]) for each in range(7)]
    batcher.start()
    assert [rows.result(10).rows.tolist() for rows in futures] == [[[each]] for each in range(7)]
    batcher.close()
    assert list(map(len, model.batches)) == [4, 2, 1]
    padding = Buckets([8, 4], pads=True)
    assert [padding.fit(waiting) for waiting in (1, 4, 7, 9)] == [1, 4, 7, 8]
    assert [padding.padded(queries) for queries in (1, 4, 7, 8)] == [4, 4, 8, 8]
    assert (padding.shortest, Buckets([1, 2, 4], pads=False, least=3).shortest) == (4, 4)


def test_who_is_alone_has_all_the_devices_that_are_free(model: Numbers) -> None:
    other = Numbers()
    batcher = RunningBatcher([model, other], BUCKETS, Metrics())
    batcher.start()
    wait_until(lambda: batcher.free == 2)
    rows = batcher.submit("a", "image", [1.0, 2.0, 3.0, 4.0]).result(10).rows
    batcher.close()
    assert rows.tolist() == [[1], [2], [3], [4]]
    assert max(map(len, model.batches + other.batches)) == 2  # the half of it, for the first that comes
    assert Buckets([8, 4], pads=True).fit(8, free=2) == 8  # where few cost as much as many


def test_what_is_not_worth_a_second_device_is_left_to_the_one_that_works(
    model: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "_LEFT_SECONDS", 60.0)
    second = Numbers()
    buckets = Buckets([1, 2, 3, 4], pads=False, least=3)
    batcher = RunningBatcher([model, second], buckets, Metrics())
    batcher.start()
    wait_until(lambda: batcher.free == 2)
    for each in (model, second):
        each.hold()
    assert buckets.fit(4, free=2) == 3
    few = [batcher.submit("a", "image", [1.0, 2.0])]  # one device takes both
    wait_until(lambda: model.started.is_set() or second.started.is_set())
    working, resting = (model, second) if model.started.is_set() else (second, model)
    few.append(batcher.submit("a", "image", [3.0, 4.0]))
    assert batcher.waiting("image") == 2
    few.append(batcher.submit("a", "image", [5.0]))
    wait_until(lambda: batcher.waiting("image") == 0)
    few.append(batcher.submit("a", "image", [6.0]))
    working.go.set()
    few[0].result(10)
    wait_until(lambda: batcher.free == 1)
    assert batcher.waiting("image") == 1  # it is the other one now that works
    resting.go.set()
    assert [len(each.result(10).rows) for each in few] == [2, 2, 1, 1]
    batcher.close()
    assert sorted(map(len, model.batches + second.batches)) == [1, 2, 3]


def test_what_is_left_to_a_device_is_not_left_anew_whenever_something_happens() -> None:
    model = Numbers()
    batcher = RunningBatcher([model, model], Buckets([1, 2], pads=False, least=2), Metrics())
    batcher.start()
    wait_until(lambda: batcher.free == 2)
    stuck, go = threading.Event(), threading.Event()
    encode = model.encode

    def stick(kind: Kind, staged: list[float]) -> Vectors:
        if staged == [1.0]:
            stuck.set()
            assert go.wait(20)
        return encode(kind, staged)

    model.encode = stick  # type: ignore[method-assign]
    held = batcher.submit("a", "image", [1.0])
    assert stuck.wait(10)
    left, over = batcher.submit("a", "image", [2.0]), threading.Event()

    def notify() -> None:
        while not over.wait(0.001):
            batcher.notify()

    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(notify)
            try:
                assert left.result(5).rows.tolist() == [[2.0]]
            finally:
                over.set()
    finally:
        go.set()
        held.result(10)
        batcher.close()


def test_processors_leave_a_full_batch_to_whichever_is_free_first(model: Numbers) -> None:
    other = Numbers()
    batcher = RunningBatcher([model, other], Buckets([2], pads=False), Metrics(), on_processors=True)
    batcher.start()
    try:
        for each in (model, other):
            each.hold()
        first = batcher.submit("a", "image", [1.0] * 4)
        assert model.started.wait(10)
        assert other.started.wait(10)
        full = batcher.submit("a", "image", [2.0] * 4)
        other.go.set()
        assert len(full.result(10).rows) == 4
        assert other.batches[1:] == [[2.0] * 2] * 2
        assert not first.done()
    finally:
        model.go.set()
        batcher.close()


@pytest.mark.parametrize("connections", [40, 48, 56, 64, 96])
def test_nobody_of_many_waits_much_longer_than_all_of_them_take(connections: int) -> None:
    """Two halves of a CPU take 2 seconds a row each, so that all that are in hand take a second a row."""
    sharing = Replica({}, torch.device("cpu"), torch.float32, Mock(), threads=1, shares=True)
    batcher = Batcher(2, sharing.buckets, Metrics(), on_processors=True)
    events: list[tuple[float, bool, int]] = []
    asked_at, waited, decoded = dict.fromkeys(range(connections), 0.0), list[float](), 0.0
    running: dict[int, Batch] = {}
    ahead: dict[int, Batch] = {}

    def ask(connection: int, now: float) -> None:
        nonlocal decoded
        asked_at[connection] = now
        decoded = max(decoded, now) + 0.05
        heapq.heappush(events, (decoded, True, connection))

    for each in asked_at:
        ask(each, 0.0)
    while len(waited) < 20 * connections:
        now, is_query, number = heapq.heappop(events)
        if is_query:
            batcher.submit("a", "image", [number])
        else:
            for each in running.pop(number).items:
                waited.append(now - asked_at[each])
                ask(each, now)
        for half in {0, 1} - running.keys():
            batcher.free = 1 - len(running)  # beside the one that asks
            batch = ahead.pop(half, None)
            if batch is None and batcher.waiting("image") >= sharing.buckets.least:
                batch = batcher.next_batch()
            if batch is not None:
                running[half] = batch
                heapq.heappush(events, (now + 2 * len(batch.items), False, half))
        for half in running.keys() - ahead.keys():
            if len(running) == 2 and batcher.waiting("image") >= sharing.buckets.largest:
                batch = batcher.full_batch(threading.Event())
                ahead |= {} if batch is None else {half: batch}
    assert np.percentile(waited[5 * connections :], 99) <= 1.3 * connections


def test_what_was_left_to_a_device_that_dies_is_done_by_another(model: Numbers) -> None:
    batcher = RunningBatcher(
        [model, model], Buckets([1, 2], pads=False, least=2), Metrics(), pause_seconds=60.0
    )
    batcher.start()
    wait_until(lambda: batcher.free == 2)
    model.hold()
    dying = batcher.submit("a", "image", [-2.0])
    assert model.started.wait(10)
    left = batcher.submit("a", "image", [1.0])
    assert batcher.waiting("image") == 1
    model.go.set()
    with pytest.raises(APIError):
        dying.result(10)
    assert left.result(10).rows.tolist() == [[1.0]]
    batcher.close()


def test_a_failed_batch_fails_the_caller_at_fault_and_no_neighbour(
    batcher: RunningBatcher, model: Numbers
) -> None:
    model.hold()
    first = batcher.submit("a", "image", [1.0])
    assert model.started.wait(10)
    bad = batcher.submit("a", "image", [-1.0, 2.0])
    neighbours = [batcher.submit(account, "image", [3.0]) for account in "ab"]
    later = batcher.submit("a", "image", [-1.0])
    model.go.set()
    assert first.result(10).rows.tolist() == [[1.0]]
    assert [each.result(10).rows.tolist() for each in neighbours] == [[[3.0]], [[3.0]]]
    for failed in (bad, later):
        with pytest.raises(ValueError, match="negative"):
            failed.result(10)
    assert batcher.deaths == 0


def test_what_a_failed_pass_made_is_not_in_memory_when_its_callers_are_run_again_nor_when_they_know(
    batcher: RunningBatcher, model: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Vectors]] = []
    kept: list[int] = []  # of what was made, as each further pass begins

    def run_out(kind: Kind, staged: list[float]) -> Vectors:
        kept.append(sum(each() is not None for each in made))
        activations = np.empty(1000, dtype=np.float32)
        made.append(weakref.ref(activations))
        raise MemoryError(len(activations))

    model.hold()
    first = batcher.submit("a", "image", [1.0])
    assert model.started.wait(10)
    monkeypatch.setattr(model, "encode", run_out)
    failing = [batcher.submit(account, "image", [2.0]) for account in "ab"]
    model.go.set()
    first.result(10)
    for each in failing:
        with pytest.raises(MemoryError):
            each.result(10)
    kept.append(sum(each() is not None for each in made))
    assert kept == [0, 0, 0, 0]


def test_cancelled_queries_never_reach_the_model(batcher: RunningBatcher, model: Numbers) -> None:
    model.hold()
    first = batcher.submit("a", "image", [1.0])
    assert model.started.wait(10)
    gone = batcher.submit("a", "image", [2.0])
    stays = batcher.submit("a", "image", [3.0])
    assert gone.cancel()
    assert first.cancel()
    model.go.set()
    assert stays.result(10).rows.tolist() == [[3.0]]
    assert model.batches == [[1.0], [3.0]]
    with pytest.raises(CancelledError):
        first.result(10)


def test_queries_cancelled_after_they_were_prepared_do_not_reach_it_either(
    batcher: RunningBatcher, model: Numbers
) -> None:
    model.hold()
    batcher.submit("a", "image", [1.0] * 4)
    assert model.started.wait(10)
    full = [batcher.submit("a", "image", [2.0, 2.0]), batcher.submit("b", "image", [3.0, 3.0])]
    wait_until(lambda: len(model.staged) == 2)
    assert full[0].cancel()
    model.go.set()
    assert full[1].result(10).rows.tolist() == [[3.0], [3.0]]
    assert model.batches == [[1.0] * 4, [3.0, 3.0]]
    assert sorted(model.staged[1]) == [2.0, 2.0, 3.0, 3.0]


def test_a_dead_worker_is_told_of_and_comes_back(model: Numbers) -> None:
    batcher = RunningBatcher([model], BUCKETS, Metrics(), pause_seconds=2)
    batcher.start()
    model.hold()
    fatal = batcher.submit("a", "image", [-2.0])
    assert model.started.wait(10)
    behind = [batcher.submit("b", "image", [1.0] * 9), batcher.submit("b", "text", ["1"])]
    model.go.set()
    for each in (fatal, *behind):
        with pytest.raises(APIError) as refused:
            each.result(10)
        assert refused.value.code == "not_ready"
    assert (batcher.deaths, batcher.dead, batcher.living) == (1, 1, 0)
    with pytest.raises(APIError) as refused:
        batcher.submit("a", "image", [1.0])
    assert refused.value.code == "not_ready"
    wait_until(lambda: batcher.dead == 0)
    assert batcher.submit("a", "image", [5.0]).result(10).rows.tolist() == [[5.0]]
    batcher.close()


def test_one_of_two_workers_may_die_and_the_other_serves_what_waits(model: Numbers) -> None:
    batcher = RunningBatcher([model, model], BUCKETS, Metrics(), pause_seconds=60)
    batcher.start()
    model.hold()
    fatal = batcher.submit("a", "image", [-2.0])
    assert model.started.wait(10)
    # Less than a full batch: that could be prepared ahead by the worker that dies, and would fail with it.
    others = batcher.submit("a", "image", [1.0] * 3)
    model.go.set()
    with pytest.raises(APIError):
        fatal.result(10)
    assert len(others.result(10).rows) == 3
    assert (batcher.dead, batcher.living) == (1, 1)
    batcher.close()


def test_closing_answers_what_waits_and_takes_no_more(model: Numbers) -> None:
    batcher = RunningBatcher([model], BUCKETS, Metrics())
    batcher.start()
    futures = [batcher.submit("a", "image", [1.0] * 9), batcher.submit("a", "text", ["2"])]
    batcher.close()
    assert [len(rows.result(0).rows) for rows in futures] == [9, 1]
    with pytest.raises(APIError) as refused:
        batcher.submit("a", "image", [1.0])
    assert refused.value.code == "shutting_down"


def test_the_background_is_taken_when_nobody_else_waits(model: Numbers, batcher: RunningBatcher) -> None:
    model.hold()
    first = batcher.submit("a", "image", [0.0])
    assert model.started.wait(10)
    late = batcher.submit("a", "image", [1.0, 2.0], background=True)
    soon = [batcher.submit("a", "image", [3.0] * 5), batcher.submit("b", "text", [4.0])]
    assert (batcher.waiting("image"), batcher.waiting("text")) == (5, 1)
    model.go.set()
    for each in (first, late, *soon):
        each.result(10)
    assert [set(batch) for batch in model.batches[-2:]] == [{1.0}, {2.0}]
    assert sorted(each for batch in model.batches[:-2] for each in batch) == [0.0, *[3.0] * 5, 4.0]


@pytest.mark.parametrize(
    ("seconds", "afterwards"), [(60.0, [[1.0], [1.0]]), (0.0, [[1.0] * 2])], ids=["soon after", "later"]
)
def test_who_waits_comes_behind_one_short_batch_of_the_background(
    model: Numbers, monkeypatch: pytest.MonkeyPatch, seconds: float, afterwards: list[list[float]]
) -> None:
    """And where somebody has asked a short while ago, its batches are shorter still."""
    monkeypatch.setattr(batcher_module, "_AWAITED_SECONDS", seconds)
    batcher = RunningBatcher([model], Buckets([1, 2, 4, 8], pads=False), Metrics())
    batcher.start()
    try:
        model.hold()
        late = batcher.submit("a", "image", [1.0] * 6, background=True)
        assert model.started.wait(10)
        wait_until(lambda: len(model.staged) == 2)  # the next one is prepared ahead
        soon = batcher.submit("b", "image", [2.0] * 3)
        model.go.set()
        assert len(soon.result(10).rows) == 3
        assert late.result(10).rows.tolist() == [[1.0]] * 6
        assert model.batches == [[1.0] * 2, [2.0] * 2, [2.0], [1.0] * 2, *afterwards]
    finally:
        batcher.close()


def test_where_devices_decode_the_background_waits_for_who_is_expected(model: Numbers) -> None:
    batcher = RunningBatcher([model], BUCKETS, Metrics(), on_processors=True)
    batcher.start()
    try:
        with batcher.expecting():
            late = batcher.submit("a", "image", [1.0] * 3, background=True)
            assert batcher.submit("b", "text", [2.0]).result(10).rows.tolist() == [[2.0]]
            assert not late.done()
            assert model.batches == [[2.0]]
        late.result(10)
    finally:
        batcher.close()


def test_a_death_is_told_to_the_background_as_well(model: Numbers, batcher: RunningBatcher) -> None:
    model.hold()
    dying = batcher.submit("a", "image", [-2.0])
    assert model.started.wait(10)
    late = batcher.submit("a", "image", [1.0] * 3, background=True)
    model.go.set()
    for each in (dying, late):
        with pytest.raises(APIError):
            each.result(10)
