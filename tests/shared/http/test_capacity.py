"""How much is in hand: bounds over all requests, fair among accounts, and an end that waits for all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

import pytest

from shared.errors import APIError
from shared.http.capacity import Capacity, while_awaited


def run(test: Callable[[Capacity], Awaitable[None]]) -> None:
    """Run a test with room for 10 inputs, 1,000 bytes and a tenth of a second."""

    async def main() -> None:
        await test(Capacity(max_inputs=10, max_bytes=1000, max_seconds=0.1))

    asyncio.run(main())


def test_what_does_not_fit_is_refused_and_what_ends_makes_room() -> None:
    async def test(capacity: Capacity) -> None:
        with capacity.reserve("a") as first, capacity.reserve("b") as second:
            first.take_inputs(6)
            second.take_inputs(4)
            for reservation in (first, second):
                with pytest.raises(APIError, match="overloaded"):
                    reservation.take_inputs(1)
            first.take_bytes(999)
            with pytest.raises(APIError, match="overloaded"):
                second.take_bytes(2)
            assert capacity.bytes == 999
        with capacity.reserve("c") as third:
            third.take_inputs(10)
            third.take_bytes(1000)
        assert (capacity.bytes, capacity.idle) == (0, True)

    run(test)


def test_an_account_leaves_as_much_to_others_as_it_has() -> None:
    async def test(capacity: Capacity) -> None:
        with ExitStack() as stack:
            hungry = [stack.enter_context(capacity.reserve("hungry")) for _ in range(10)]
            taken = 0
            for reservation in hungry:
                try:
                    reservation.take_inputs(1)
                    taken += 1
                except APIError:
                    break
            assert taken == 5
            stack.enter_context(capacity.reserve("modest")).take_inputs(5)

    run(test)


def test_a_part_of_an_account_leaves_room_to_its_other_parts_and_the_account_to_others() -> None:
    async def test(capacity: Capacity) -> None:
        with ExitStack() as stack:

            def taken(*who: str) -> int:
                count = 0
                with suppress(APIError):
                    while True:
                        stack.enter_context(capacity.reserve(*who)).take_bytes(30)
                        count += 1
                return count

            assert [taken("a", "red"), taken("a", "blue"), taken("a", ""), taken("a"), taken("b")] == [
                11, 4, 1, 1, 8,
            ]  # fmt: skip

    run(test)


def test_requests_of_one_account_alone_have_no_company() -> None:
    async def test(capacity: Capacity) -> None:
        with capacity.reserve("a", "red") as first, capacity.reserve("a", "blue") as second:
            for each in (first, second):
                each.take_inputs(1)
            assert not first.has_company
            with capacity.reserve("b") as other:
                other.take_inputs(1)
                assert first.has_company
            assert not first.has_company

    run(test)


def test_requests_whose_bodies_do_not_come_leave_room_to_other_accounts() -> None:
    async def test(capacity: Capacity) -> None:
        capacity.bound_requests(10)
        with ExitStack() as stack:
            taken = 0
            for _ in range(10):
                with suppress(APIError):
                    stack.enter_context(capacity.reserve("stalling"))
                    taken += 1
            assert taken == 5
            for _ in range(2):
                stack.enter_context(capacity.reserve("modest")).take_bytes(10)
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(capacity.reserve("again"))
        assert capacity.idle

    run(test)


def test_what_is_left_of_a_request_is_its_answer_until_it_is_sent() -> None:
    async def test(capacity: Capacity) -> None:
        with capacity.reserve("a") as reservation, capacity.reserve("b") as other:
            reservation.take_inputs(10)
            reservation.take_bytes(1000)
            reservation.keep_bytes(300)
            assert capacity.bytes == 300
            other.take_inputs(10)
            other.take_bytes(700)
        assert (capacity.bytes, capacity.idle) == (0, True)

    run(test)


def test_a_closed_capacity_lets_the_rest_finish() -> None:
    async def test(capacity: Capacity) -> None:
        with capacity.reserve("a") as reservation:
            capacity.close()
            reservation.take_inputs(1)
            with pytest.raises(APIError) as refused, capacity.reserve("a"):
                pass
            assert refused.value.code == "shutting_down"
            assert not capacity.idle
        assert capacity.idle

    run(test)


def test_what_takes_too_long_is_broken_off() -> None:
    async def test(capacity: Capacity) -> None:
        with capacity.reserve("a") as reservation:
            with pytest.raises(APIError) as refused:
                async with reservation.within_deadline():
                    await asyncio.sleep(10)
            assert refused.value.code == "deadline_exceeded"
            assert reservation.seconds_left == 0

    run(test)


async def hang_up() -> None:
    """What a caller does."""


def test_what_nobody_waits_for_is_broken_off_and_not_even_begun_later() -> None:
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)
        await asyncio.sleep(10)

    async def test(capacity: Capacity) -> None:
        leaving = asyncio.ensure_future(hang_up())
        for name in ("first", "second"):
            with capacity.reserve("a") as reservation:
                with pytest.raises(APIError) as refused:
                    await while_awaited(work(name), reservation, leaving)
                assert refused.value.code == "deadline_exceeded"
        assert begun == ["first"]

    run(test)


def test_who_leaves_when_all_is_done_is_not_complained_of() -> None:
    complaints: list[dict[str, object]] = []

    async def test(capacity: Capacity) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, each: complaints.append(each))
        leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> str:
            leaving.set_result(None)  # the loop has no turn until the work is done
            return "rows"

        with capacity.reserve("a") as reservation:
            assert await while_awaited(work(), reservation, leaving) == "rows"
        await asyncio.sleep(0)

    run(test)
    assert complaints == []
