"""Fair waiting: whose turn it is, what is dropped, and what other threads may ask meanwhile."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from shared.fairness import FairQueue, FairTurns


def taken(queue: FairQueue[str], *, background: bool = True) -> list[str]:
    """Everything that waits, in the order of the turns."""
    return [item for _ in range(len(queue)) if (item := queue.take(background=background)) is not None]


def test_accounts_take_turns_and_each_is_served_in_order() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("many", ["m1", "m2", "m3"])
    queue.put("few", ["f1"])
    queue.put("many", ["m4"])
    queue.put("late", ["l1", "l2"])
    assert queue.peek() == "m1"
    assert taken(queue) == ["m1", "f1", "l1", "m2", "l2", "m3", "m4"]
    assert (queue.take(), queue.peek(), len(queue)) == (None, None, 0)


def test_the_background_comes_after_all_others_and_only_where_it_may() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", ["late"], background=True)
    queue.put("b", ["soon"])
    assert (len(queue), queue.urgent, queue.peek()) == (2, 1, "soon")
    assert queue.take() == "soon"
    assert queue.take(background=False) is queue.peek(background=False) is None
    assert queue.take() == "late"


def test_a_run_is_of_one_account_and_what_is_put_back_comes_first() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.put("a", [1, 2, 3, 9, 4])
    queue.put("b", [5])
    assert queue.take_run(lambda item: item < 9) == [1, 2, 3]
    queue.put_back("a", [2, 3])
    queue.put_back("a", [])
    assert queue.take_run(lambda _: True) == [5]
    assert queue.take_run(lambda item: item < 9) == [2, 3]
    assert (queue.clear(), len(queue)) == ([9, 4], 0)


def test_who_leaves_is_dropped_and_keeps_no_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", ["a1", "b1", "a2"])
    queue.put("c", ["c1"])
    queue.drop("a", lambda item: item.startswith("a"))
    queue.drop("c", lambda _: True)
    queue.drop("nobody", lambda _: True)
    assert (len(queue), taken(queue)) == (1, ["b1"])


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_another_thread_may_ask_how_many_wait_while_accounts_come_and_go() -> None:
    queue: FairQueue[int] = FairQueue()
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(300):
                queue.put(str(number), [number])
            for number in range(300):
                queue.drop(str(number), lambda _: True)

    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        assert all(0 <= len(queue) <= 300 for _ in range(2000))
    finally:
        over.set()
        coming.join()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(in_time())


def test_turns_go_round_the_accounts_and_none_is_kept_by_who_left() -> None:
    async def test() -> None:
        turns, order = FairTurns(), list[str]()

        async def work(name: str) -> None:
            async with turns.turn(name[0]):
                order.append(name)

        end = await turns.begin("a")
        waiting = [asyncio.create_task(work(name)) for name in ("a1", "a2", "a3", "b1", "c1", "c2")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for gone in (waiting[1], waiting[4]):
            gone.cancel()
        await asyncio.sleep(0)
        end()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert sorted(order[:3]) == ["a1", "b1", "c2"]
        assert order[3:] == ["a3"]

    run(test)


def test_so_many_have_a_turn_at_once_and_of_one_account_fewer() -> None:
    async def test() -> None:
        turns, having, most = FairTurns(3, of_one=2), list[str](), list[list[str]]()

        async def work(account: str) -> None:
            async with turns.turn(account):
                having.append(account)
                most.append(sorted(having))
                await asyncio.sleep(0.01)
                having.remove(account)

        await asyncio.gather(*map(work, "aaaaab"))
        assert max(map(len, most)) == 3
        assert max(each.count("a") for each in most) == 2
        assert ["a", "a", "b"] in most

    run(test)
