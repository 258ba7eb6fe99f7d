"""The queue of images to ask about: what one image says of the others, and what waits in memory."""

import asyncio
import gc
import hashlib
import math
import re
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from PIL import Image

from client.cache import notes as pending
from client.cache.notes import make_batch
from client.data.kept_images import KeptImages, kept_in
from client.errors import (
    CacheError,
    ClientError,
    FingerprintChanged,
    InputRefused,
    KeyRefused,
    QuotaExhausted,
    UsageError,
    VendorError,
    VendorUnreachable,
)
from client.learning.rejection import Rejection
from client.learning.student_metadata import StudentMetadata
from client.options.students import AskOptions
from client.serving import ask_queue
from client.serving.answers import Answer
from client.serving.ask_queue import AskQueue
from client.serving.asking import Asker
from client.vendors import transport
from client.vendors.query import Query
from shared.embeddings import Prices
from tests.client.cards import MODEL
from tests.client.shop import Shop

T = TypeVar("T")
# Nobody is kept waiting for so long unless a test fails.
_LONG = 20.0


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def _asker(shop: Shop, budget: int | None = None, metadata: StudentMetadata | None = None) -> Asker:
    options = AskOptions(budget=budget, period="total")
    return Asker(shop.teacher(), ["cat", "dog"], metadata or StudentMetadata(), options, patience=_LONG)


def _image(content: bytes) -> Query:
    return Query("image", hashlib.sha256(content).hexdigest(), "an image", lambda: content)


class _Gate:
    """Where something waits until it may go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.reached = threading.Semaphore(0)

    def wait(self) -> None:
        self.reached.release()
        assert self.go.wait(_LONG)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.acquire, timeout=_LONG)


@pytest.fixture
def gate(shop: Shop) -> _Gate:
    """Where the vendor waits before it answers."""
    gate = _Gate()
    shop.vendor.before = gate.wait
    return gate


def _run(
    asker: Asker,
    work: Callable[[AskQueue], Awaitable[T]],
    first: Callable[[], None] = lambda: None,
    kept: KeptImages | None = None,
    callers: int = 1,
) -> T:
    """Do something with a queue before a vendor, which does something first when it connects."""

    def connect() -> AbstractContextManager[Asker]:
        first()
        return nullcontext(asker)

    async def do() -> T:
        queue = AskQueue(connect, kept, callers)
        queue.start()
        try:
            return await asyncio.wait_for(work(queue), 3 * _LONG)
        finally:
            await asyncio.to_thread(queue.close)

    return asyncio.run(do())


def _who(said: list[Answer | None]) -> list[str]:
    return ["student" if each is None else each.answered_by for each in said]


@pytest.mark.parametrize("refused", [b"bad", bytes(MODEL.limits.max_image_bytes + 1)])
def test_an_image_that_the_vendor_refuses_keeps_no_other_from_it(shop: Shop, refused: bytes) -> None:
    async def work(queue: AskQueue) -> list[str]:
        alone = await queue.ask([_image(refused)], account="a", seconds=_LONG)
        return _who([*alone, *await queue.ask([_image(b"good")], account="a", seconds=_LONG)])

    assert _run(_asker(shop), work) == ["student", "vendor"]


def test_a_class_text_that_the_vendor_refuses_and_a_spent_budget_keep_all_from_it(shop: Shop) -> None:
    said = _asker(shop, budget=2).ask([_image(b"good")])
    assert (said.of_each, said.ended) == ([None], True)
    bad = Query.text("bad")
    asker = _asker(shop)
    asker._prompts[0] = bad
    said = asker.ask([_image(b"good")])
    assert (said.of_each, said.ended) == ([None], True)
    assert "the vendor refused it" in said.stopped


def test_a_budget_that_class_texts_alone_would_spend_is_refused(shop: Shop) -> None:
    with pytest.raises(UsageError, match=r"--ask-budget 2 .* 2 class texts .* at least 3"):
        _asker(shop, budget=2).check_budget()
    _asker(shop, budget=3).check_budget()
    assert shop.vendor.charged == 0
    _asker(shop).ask([_image(b"good")])
    _asker(shop, budget=1).check_budget()  # they are bought


def test_what_was_paid_before_the_quota_ended_is_counted(shop: Shop) -> None:
    shop.vendor.quota = 2 + 1

    async def work(queue: AskQueue) -> int:
        await queue.ask([_image(b"first"), _image(b"second")], account="a", seconds=_LONG)
        return queue.cost_micros

    assert _run(_asker(shop), work) == 2 * 20 + 100


@pytest.mark.parametrize("content", [b"bad", b"good"])
def test_what_was_asked_about_leaves_memory(shop: Shop, content: bytes) -> None:
    async def work(queue: AskQueue) -> bool:
        image = _image(content)
        held = weakref.ref(image.read)
        await queue.ask([image], account="a", seconds=_LONG)
        del image
        await queue.ask(
            [_image(b"another")], account="a", seconds=_LONG
        )  # by then it has done with the first
        gc.collect()
        return held() is None

    assert _run(_asker(shop), work)


def test_an_image_whose_answer_was_lost_is_paid_once_whoever_asks_next_and_then_leaves_memory(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)

    def cut() -> None:
        raise httpx.ReadError("cut")

    async def work(queue: AskQueue) -> list[str]:
        images = [_image(b"first"), _image(b"second")]
        held = weakref.ref(images[1].read)
        await queue.ask(
            [_image(b"before")], account="a", seconds=_LONG
        )  # the class texts are known from now on
        shop.vendor.after = cut  # it has charged by then
        said = await queue.ask(images, account="a", seconds=_LONG)
        shop.vendor.after = lambda: None
        while queue._in_hand:
            await asyncio.sleep(0.01)
        queue._silent_until = 0.0
        said += await queue.ask([_image(b"first")], account="a", seconds=_LONG)
        said += await queue.ask([_image(b"second")], account="a", seconds=_LONG)
        del images
        await queue.ask([_image(b"another")], account="a", seconds=_LONG)
        gc.collect()
        assert held() is None
        return _who(said)

    assert _run(_asker(shop), work) == ["student", "student", "vendor", "cache"]
    assert shop.vendor.charged == 2 + 4
    assert not shop.cache.notes.of_run()


def test_a_price_that_rises_is_not_paid_and_what_is_known_is_answered(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    asked = _asker(shop)
    asked.ask([_image(b"known")])
    cheaper = MODEL.model_copy(update={"prices": Prices(image_micros=99, text_micros=20)})
    options = AskOptions(period="total")
    asker = Asker(shop.teacher(model=cheaper), ["cat", "dog"], StudentMetadata(), options, patience=_LONG)

    async def work(queue: AskQueue) -> list[str]:
        said = [each for name in (b"new", b"next", b"known") for each in await _ask(queue, name)]
        assert queue._silent_until == math.inf
        return _who(said)

    async def _ask(queue: AskQueue, name: bytes) -> list[Answer | None]:
        said = await queue.ask([_image(name)], account="a", seconds=_LONG)
        while queue._in_hand:
            await asyncio.sleep(0.01)
        return said

    assert _run(asker, work) == ["student", "student", "cache"]
    assert shop.vendor.charged == 2 + 1
    assert caplog.text.count("the student answers alone until it is started again: The vendor says") == 1


def test_an_image_that_was_answered_about_before_is_kept(shop: Shop, tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    image = _image(file.getvalue())
    asker = _asker(shop)
    asker.ask([image])
    kept = KeptImages(tmp_path / "kept", at_most=9)

    async def work(queue: AskQueue) -> list[str]:
        return _who(await queue.ask([image], account="a", seconds=_LONG))

    assert _run(asker, work, kept=kept) == ["cache"]
    assert [each.digest for each in kept_in(tmp_path / "kept")] == [image.digest]


def test_an_image_in_which_the_vendor_sees_no_class_is_not_kept(shop: Shop, tmp_path: Path) -> None:
    """By the usual threshold, where nobody asked for one."""
    asker = _asker(shop, metadata=StudentMetadata(teacher_rejection=Rejection((2.0,) * 50)))
    kept = KeptImages(tmp_path / "kept", at_most=9)

    async def work(queue: AskQueue) -> list[str]:
        said = [await queue.ask([_image(b"noise")], account="a", seconds=_LONG) for _ in range(2)]
        assert not any(answer.rejected for answers in said for answer in answers if answer)
        return [who for answers in said for who in _who(answers)]

    assert _run(asker, work, kept=kept) == ["vendor", "cache"]
    assert not (tmp_path / "kept").exists()


def test_no_caller_has_more_of_the_budget_than_it_leaves_for_the_others(shop: Shop) -> None:
    """Of 12 queries, two are class texts; a stranger asks first, and about as much as it can."""

    async def work(queue: AskQueue) -> list[int]:
        paid: list[int] = []
        for account in ("stranger", "stranger", "one", "another", "stranger"):
            images = [_image(f"{account} {len(paid)} {n}".encode()) for n in range(20)]
            said = await queue.ask(images, account=account, seconds=_LONG)
            paid.append(_who(said).count("vendor"))
        known = await queue.ask([_image(b"stranger 0 0")], account="stranger", seconds=_LONG)
        assert _who(known) == ["cache"]  # which costs nothing
        return paid

    assert _run(_asker(shop, budget=12), work, callers=3) == [6, 0, 2, 1, 0]


def test_one_caller_leaves_room_in_the_queue_for_the_others(
    shop: Shop, gate: _Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_queue, "_MOST_BYTES", 16)

    async def work(queue: AskQueue) -> list[str]:
        many = asyncio.create_task(
            queue.ask([_image(b"noise %d" % n) for n in range(9)], account="stranger", seconds=_LONG)
        )
        await gate.until_reached()
        assert queue.room("stranger") < len(b"noise 0") < queue.room("one")
        gate.go.set()
        return _who([*await many, *await queue.ask([_image(b"good")], account="one", seconds=_LONG)])

    assert _run(_asker(shop), work, callers=2) == ["vendor"] + 8 * ["student"] + ["vendor"]


def test_beyond_so_many_bytes_the_oldest_images_in_memory_are_let_go(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "_MOST_BYTES", 10)
    images = [_image(each) for each in (b"first", b"second", b"four")]
    shop.cache.begin(make_batch("run", "fp_1", tuple(images)))
    for image in images:
        shop.cache.notes.hold([image, _image(b"of no note")])
    (note,) = shop.cache.notes.of_run()
    with pytest.raises(OSError, match="an image"):  # it is looked for in a file
        note.batch.queries[0].content()
    assert [query.content() for query in note.batch.queries[1:]] == [b"second", b"four"]


def test_what_nobody_waits_for_any_more_is_not_sent(shop: Shop, gate: _Gate) -> None:
    async def work(queue: AskQueue) -> list[str]:
        first = asyncio.create_task(queue.ask([_image(b"first")], account="a", seconds=_LONG))
        await gate.until_reached()
        late = await queue.ask([_image(b"late")], account="a", seconds=0.01)
        gone = asyncio.create_task(queue.ask([_image(b"gone")], account="a", seconds=_LONG))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert not queue._waiting
        gate.go.set()
        return _who([*await first, *late, *await queue.ask([_image(b"next")], account="a", seconds=_LONG)])

    assert _run(_asker(shop), work) == ["vendor", "student", "vendor"]
    assert shop.vendor.charged == 2 + 2  # the class texts, and what was answered


def test_what_nobody_waits_for_when_the_vendor_is_reached_is_not_sent(shop: Shop) -> None:
    gate = _Gate()

    async def work(queue: AskQueue) -> list[str]:
        first = asyncio.create_task(queue.ask([_image(b"first")], account="a", seconds=_LONG))
        await gate.until_reached()
        first.cancel()
        await asyncio.wait([first])
        gate.go.set()
        return _who(await queue.ask([_image(b"next")], account="a", seconds=_LONG))

    assert _run(_asker(shop), work, gate.wait) == ["vendor"]
    assert shop.vendor.charged == 2 + 1


def test_beyond_so_many_bytes_the_student_answers_at_once(
    shop: Shop, gate: _Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_queue, "_MOST_BYTES", 10)

    async def work(queue: AskQueue) -> list[str]:
        first = asyncio.create_task(queue.ask([_image(b"first!")], account="a", seconds=_LONG))
        await gate.until_reached()
        second = asyncio.create_task(queue.ask([_image(b"four")], account="a", seconds=_LONG))
        beyond = await asyncio.wait_for(queue.ask([_image(b"x")], account="a", seconds=2 * _LONG), _LONG)
        assert queue.room("a") == 0
        gate.go.set()
        said = [*await first, *await second, *beyond]
        while queue._in_hand:
            await asyncio.sleep(0.01)
        return _who([*said, *await queue.ask([_image(b"ten bytes!")], account="a", seconds=_LONG)])

    assert _run(_asker(shop), work) == ["vendor", "vendor", "student", "vendor"]


class _Shut:
    """A vendor that cannot be connected to, for a reason; it counts how often that is tried."""

    def __init__(self, why: Exception) -> None:
        self._why = why
        self.tries = 0

    def open(self) -> AbstractContextManager[Asker]:
        self.tries += 1
        raise self._why


@pytest.mark.parametrize("kind", [VendorUnreachable, KeyRefused, QuotaExhausted])
def test_a_vendor_that_does_not_answer_at_the_start_is_left_for_later(
    kind: type[ClientError], caplog: pytest.LogCaptureFixture
) -> None:
    queue = AskQueue(_Shut(kind("not today")).open, None)
    assert queue.room("a")
    queue.connect()
    assert not queue.room("a")
    assert "the student answers alone for 30 s: not today" in caplog.text


@pytest.mark.parametrize("kind", [FingerprintChanged, UsageError, CacheError, ClientError])
def test_what_cannot_be_asked_is_refused_at_the_start_and_answered_by_the_student_later(
    kind: type[ClientError], caplog: pytest.LogCaptureFixture
) -> None:
    shut = _Shut(kind("never"))
    with pytest.raises(kind, match="never"):
        AskQueue(shut.open, None).connect()

    assert asyncio.run(_asked_twice(shut)) == ["student", "student"]
    assert shut.tries == 1 + 1  # then it is left alone for a while
    assert "the student answers alone for 30 s: never" in caplog.text
    assert "could not be asked" not in caplog.text


async def _asked_twice(shut: _Shut) -> list[str]:
    """Who answers about two images, one after the other."""
    queue = AskQueue(shut.open, None)
    queue.start()
    try:
        said = [await queue.ask([_image(b"good")], account="a", seconds=_LONG) for _ in range(2)]
        return [who for each in said for who in _who(each)]
    finally:
        await asyncio.to_thread(queue.close)


def _silences(error: ClientError, caplog: pytest.LogCaptureFixture, times: int) -> list[int]:
    """For how many seconds a queue leaves a vendor alone each time that connecting fails."""
    queue = AskQueue(_Shut(error).open, None)
    for _ in range(times):
        queue._silent_until = 0.0
        assert queue._connected() is None
    return [int(number) for number in re.findall(r"alone for (\d+) s", caplog.text)]


@pytest.mark.parametrize("kind", [FingerprintChanged, InputRefused])
def test_who_was_paid_and_sells_no_such_model_is_left_alone_for_hours(
    kind: type[ClientError], caplog: pytest.LogCaptureFixture
) -> None:
    error = kind("never")
    error.paid_in_vain = True
    assert _silences(error, caplog, 2) == [6 * 3600] * 2


def test_who_may_have_been_paid_and_failed_is_left_alone_for_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = VendorError("not now")
    error.paid_in_vain = True
    assert _silences(error, caplog, 6) == [30, 240, 1920, 15360, 21600, 21600]


def test_what_nobody_foresaw_when_connecting_is_not_tried_again_with_every_image() -> None:
    shut = _Shut(ValueError("unforeseen"))

    assert asyncio.run(_asked_twice(shut)) == ["student", "student"]
    assert shut.tries == 1
